"""How long a run has worked, by a monotonic clock, over all processes that worked at it.

`RunContext` has the clock, and notes in the folder (`worked.json`) what it shows whenever something is kept that a
killed process leaves to the next: predictions, a trial, a checkpoint. Work that is lost by a kill does not count, nor
does the time until the run goes on.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The end of a run.

    Attributes:
        seconds: how long it has worked; None where an earlier version began it, which did not note that.
        finished: when it ended, in seconds since 1970.
    """

    seconds: float | None
    finished: float


class WorkClock:
    """Seconds that a run has worked; its parts, which have folders and clocks of their own, are added.

    Args:
        before_s: seconds that earlier processes worked at it; None where that is not known.
        clock: tells seconds.

    Example:
        >>> shown = iter([100.0, 103.0, 110.0, 111.0])
        >>> clock = WorkClock(20.0, clock=lambda: next(shown))
        >>> with clock.paused():  # from 103 to 110
        ...     clock.add(50.0)
        >>> clock.seconds
        74.0
    """

    def __init__(self, before_s: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._before_s = before_s
        self._parts_s: float | None = 0.0
        self._began_s = clock()

    @property
    def own_s(self) -> float | None:
        """Seconds without those of parts; None where they are not known."""
        return None if self._before_s is None else self._before_s + self._clock() - self._began_s

    @property
    def seconds(self) -> float | None:
        """Seconds with those of parts; None where one of both is not known."""
        return known_sum(self.own_s, self._parts_s)

    def ended(self) -> Ended:
        """The run ends now."""
        return Ended(seconds=self.seconds, finished=time.time())

    def add(self, seconds: float | None) -> None:
        """A part has worked so long, in whatever process; None where that is not known."""
        self._parts_s = known_sum(self._parts_s, seconds)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """In this block a part is at work."""
        paused_s = self._clock()
        try:
            yield
        finally:
            self._began_s += self._clock() - paused_s


def known_sum(one: float | None, other: float | None) -> float | None:
    """The sum; None where one of both is not known."""
    return None if one is None or other is None else one + other
