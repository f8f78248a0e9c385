"""Sections of a long measurement: each adds its rows as they come, has its time, and is not run again once it is done.

Beside `NAME.csv` a section leaves `NAME.done` at its end, or `NAME.failed` with what went wrong; the next one runs in
either case. One that was cut off begins anew.
"""

import csv
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

COLUMNS = ("model", "setting", "kind", "round", "measure", "value", "note")
KEPT_BACK = 0.15
"""Share of a section's time that it does not plan with: where it takes longer than it thought, it is stopped at all of
it."""
AGAIN_S = 5.0
"""Seconds after which a section that went on all the same is stopped once more."""


class OutOfTime(BaseException):
    """A section took all of its time. No `Exception`, which libraries catch and go on from."""


class Sheet:
    """The rows of a section, written as they come, and the time that it has left.

    Args:
        path: the CSV file; one that is there is replaced.
        budget_s: seconds that the section may take.
    """

    def __init__(self, path: Path, *, budget_s: float) -> None:
        self.path = path
        self.until_s = time.monotonic() + (1 - KEPT_BACK) * budget_s
        with path.open("w", newline="") as file:
            csv.writer(file).writerow(COLUMNS)

    def left_s(self) -> float:
        """Seconds that are left to plan with; below 0 where they are used up."""
        return self.until_s - time.monotonic()

    def add(
        self,
        measure: str,
        value: float | str,
        *,
        model: str = "",
        setting: str = "",
        kind: str = "",
        number: int | str = "",
        note: str = "",
    ) -> None:
        """Add a row, and print it.

        Args:
            measure: what was measured, its unit in the name.
            value: the number, or a word where there is none.
            model: the model it is of.
            setting: under what it was measured.
            kind: the variant of what is compared.
            number: the round it is of, or a word for what sums up all rounds.
            note: whatever else is to be said.
        """
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        row = (model, setting, kind, str(number), measure, shown, note)
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(row)
        print(f"  {self.path.stem}:", *(part for part in row if part), flush=True)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a measurement.

    Attributes:
        name: names its files.
        budget_s: seconds that it may take.
        run: measures, and adds rows to the sheet.
        takes_rest: whether it may take more, where time is left of all.
    """

    name: str
    budget_s: float
    run: Callable[[Sheet], None]
    takes_rest: bool = False


def run_sections(sections: Sequence[Section], out: Path, *, total_s: float) -> list[str]:
    """Run the sections that are not done, one after the other.

    Args:
        sections: in their order.
        out: folder of their files.
        total_s: seconds for all of them; the last ones get what is left, and none where too little is.

    Returns:
        The names of those that failed or had no time.
    """
    out.mkdir(parents=True, exist_ok=True)
    end_s = time.monotonic() + total_s
    failed = []
    for section in sections:
        if (out / f"{section.name}.done").exists():
            print(f"{section.name}: done before", flush=True)
            continue
        left_s = end_s - time.monotonic()
        budget_s = left_s if section.takes_rest else min(section.budget_s, left_s)
        if budget_s < 0.1 * section.budget_s or not _run(section, out, budget_s=budget_s):
            print(f"{section.name}: not done", flush=True)
            failed.append(section.name)
    return failed


def _run(section: Section, out: Path, *, budget_s: float) -> bool:
    """Whether the section came to its end."""
    note = out / f"{section.name}.failed"
    note.unlink(missing_ok=True)
    print(f"{section.name}: at most {budget_s:.0f} s", flush=True)
    began_s = time.monotonic()
    try:
        with _stopped_after(budget_s):
            section.run(Sheet(out / f"{section.name}.csv", budget_s=budget_s))
    except (Exception, OutOfTime):
        text = traceback.format_exc()
        print(text, flush=True)
        note.write_text(text, encoding="utf-8")
        return False
    seconds = time.monotonic() - began_s
    (out / f"{section.name}.done").write_text(f"{seconds:.1f} s\n", encoding="utf-8")
    print(f"{section.name}: done in {seconds:.1f} s", flush=True)
    return True


@contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in the block after so long; where there are no such timers, or not for this thread, never."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTime(f"stopped after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
