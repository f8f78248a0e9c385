"""Checkpoints are written as often as takes a twentieth of the time."""

from collections.abc import Iterator

import pytest

from gainfinder.training import CheckpointPace, checkpoint


def paced(monkeypatch: pytest.MonkeyPatch, *times: float) -> CheckpointPace:
    """A pace whose clock shows these times in turn."""
    monkeypatch.setattr(checkpoint, "QUICK_S", 0.25)
    shown: Iterator[float] = iter(times)
    return CheckpointPace(clock=lambda: next(shown))


def test_the_next_one_waits_until_the_last_took_a_twentieth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = paced(monkeypatch, 10.0, 12.0, 49.9, 50.0, 60.0, 61.0, 79.9, 80.0)
    assert pace.due(ended=False)
    with pace.writing():
        pass
    assert [pace.due(ended=False), pace.due(ended=False)] == [False, True]
    with pace.writing():  # half as long
        pass
    assert [pace.due(ended=False), pace.due(ended=False)] == [False, True]


def test_quick_ones_are_always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = paced(monkeypatch, 10.0, 10.25)
    with pace.writing():
        pass
    assert pace.due(ended=False)


def test_one_that_failed_is_due_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = paced(monkeypatch, 10.0)
    with pytest.raises(OSError), pace.writing():
        raise OSError("disk full")
    assert pace.due(ended=False)


def test_the_end_and_what_was_asked_for_are_always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = paced(monkeypatch, 10.0, 12.0, 12.0)
    with pace.writing():
        pass
    assert pace.due(ended=True) and not pace.due(ended=False)
    assert CheckpointPace(always=True).due(ended=False)
