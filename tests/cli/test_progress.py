"""What a user reads while something runs."""

import io
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from gainfinder.cli.command import _Stderr
from gainfinder.cli.progress import LiveProgress, PlainProgress, Rate, make_progress

Row = dict[str, Any]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def row(epoch: int, accuracy: float | None) -> Row:
    known = accuracy is not None
    return {
        "epoch": epoch, "train_loss": 0.25, "teacher_share": 0.313, "accuracy": accuracy,
        "transfer_delta_pp": None if accuracy is None else 100 * (accuracy - 0.94),
        "knowledge_gain": 0.0345 if known else None, "knowledge_loss": 0.0104 if known else None,
        "agreement": 0.9812, "confidence": 0.91,
    }  # fmt: skip


def shown(view: LiveProgress, width: int) -> list[str]:
    console = Console(file=io.StringIO(), record=True, force_terminal=True, width=width, highlight=False)
    console.print(view)
    return [line.rstrip() for line in console.export_text().splitlines()]


@pytest.fixture
def view() -> Iterator[LiveProgress]:
    """In the middle of the third epoch of ten, from the second of three teachers: 100 images/s."""
    clock = Clock()
    found = LiveProgress(Console(file=io.StringIO()), clock)
    found.teacher(2, 3, "local-dir:/home/somebody/models/zoo/convnext")
    found.stage("training, epoch 1 of 10", 10_000)
    found.epoch_begins(1, 10, 1000, 0)
    found.epoch(row(1, 0.9637))
    found.epoch(row(2, 0.9508))
    found.stage("training, epoch 3 of 10", 8000)
    found.epoch_begins(3, 10, 1000, 0)
    for _ in range(5):
        clock.s += 1
        found.advance(100)
    found.running({"train_loss": 0.1234, "teacher_share": 0.312})
    yield found
    found.close()


def test_a_view_for_80_columns(view: LiveProgress) -> None:
    assert shown(view, 80) == [
        "teacher   2 of 3: local-dir:/home/somebody/models/zoo/convnext",
        "now       epoch 3 of 10",
        "          " + "━" * 32 + "╸" + "━" * 32 + "  50%",
        "speed     100 images/s, 1:15 left",
        "so far    loss 0.1234, 31.2% from the teacher",
        "epoch 2   accuracy 0.9508 (+1.08 pp), gained 3.45%, lost 1.04%",
        "best      epoch 1, accuracy 0.9637 (+2.37 pp), gained 3.45%, lost 1.04%",
    ]


def test_a_view_for_40_columns(view: LiveProgress) -> None:
    assert shown(view, 40) == [
        "teacher   2 of 3: lo…models/zoo/convnext",
        "now       epoch 3 of 10",
        "          " + "━" * 12 + "╸" + "━" * 12 + "  50%",
        "speed     100 images/s, 1:15 left",
        "so far    loss 0.1234, 31.2% from the",
        "          teacher",
        "epoch 2   accuracy 0.9508 (+1.08 pp),",
        "          gained 3.45%, lost 1.04%",
        "best      epoch 1, accuracy 0.9637",
        "          (+2.37 pp), gained 3.45%, lost",
        "          1.04%",
    ]


@pytest.mark.parametrize("width", [10, 20, 40, 80, 250])
def test_no_line_is_wider_than_the_terminal(view: LiveProgress, width: int) -> None:
    assert max(map(len, shown(view, width))) <= min(width, 100)


def test_the_best_epoch_is_named_where_it_is_the_latest_and_none_without_labels(view: LiveProgress) -> None:
    view.epoch(row(3, 0.97))
    text = " ".join(" ".join(shown(view, 80)).split())
    assert "epoch 3 accuracy 0.9700 (+3.00 pp), gained 3.45%, lost 1.04%, the best so far" in text
    assert "best epoch" not in text
    view.teacher(3, 3, "vit")
    view.epoch(row(1, None))
    text = " ".join(" ".join(shown(view, 80)).split())
    assert "epoch 1 agreement with the initial student 0.9812, confidence 0.9100" in text and "best" not in text


def test_a_stage_without_epochs_has_a_bar_of_its_own_and_keeps_what_was_measured(view: LiveProgress) -> None:
    view.stage("guard: interpolation α = 0.5", 200)
    view.advance(50)
    lines = shown(view, 80)
    assert "now       guard: interpolation α = 0.5" in lines and lines[2].endswith("  25%")
    assert any(line.startswith("best      epoch 1,") for line in lines)


def test_the_speed_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    rate = Rate(10_000, clock)
    assert rate.parts() == []
    clock.s = 100.0  # the first step compiled the model
    rate.advance(10)
    for _ in range(20):
        clock.s += 1
        rate.advance(100)
    assert rate.per_s() == pytest.approx(100)
    assert rate.parts() == ["100 images/s", "1:20 left"]
    clock.s += 30  # nothing comes any more
    assert rate.per_s() == pytest.approx(25)
    rate.advance(20_000)
    assert rate.done == 10_000


def test_the_speed_of_long_steps_is_steady_between_them() -> None:
    clock = Clock()
    rate = Rate(1000, clock)
    for _ in range(5):
        clock.s += 30
        rate.advance(64)
        told = {tuple(rate.parts())}
        for wait_s in (7, 14, 29):
            clock.s += wait_s
            told.add(tuple(rate.parts()))
            clock.s -= wait_s
        assert told == {tuple(rate.parts())}
    assert rate.parts()[0] == "2.1 images/s"


def test_plain_lines_tell_speed_time_left_and_what_was_learned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    plain = PlainProgress()
    plain.teacher(1, 2, "vit")
    plain.resumed(2, 7, [row(1, 0.95), row(2, 0.95)])
    plain.stage("training, epoch 3 of 3", 1000)
    plain.rate = Rate(1000, clock)
    for second in range(1, 13):
        clock.s += 1
        plain.running({"train_loss": 0.5 / second, "teacher_share": None})
        plain.advance(50)
    plain.epoch(row(3, 0.9637))
    assert capsys.readouterr().err.splitlines() == [
        "teacher 1 of 2: vit",
        "going on after 2 epoch(s) and 7 step(s)",
        "training, epoch 3 of 3: 550 of 1,000 images, 50 images/s, 0:09 left, loss 0.0455",
        "epoch 3: loss 0.2500, 31.3% from the teacher, accuracy 0.9637 (+2.37 pp), gained 3.45%, lost 1.04%",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("term", "stream", "kind"),
    [("xterm", Terminal, LiveProgress), ("dumb", Terminal, PlainProgress), ("xterm", io.StringIO, PlainProgress)],
)
@pytest.mark.parametrize("forced", [False, True])
def test_what_is_no_terminal_or_a_dumb_one_gets_plain_lines(
    monkeypatch: pytest.MonkeyPatch, term: str, stream: type[io.StringIO], kind: type, forced: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    if forced:
        monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stderr", stream())
    callback = make_progress()
    callback.close()
    assert type(callback) is kind


def test_a_note_in_the_middle_of_the_view_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    monkeypatch.setattr("sys.stderr", stream)
    live = LiveProgress(Console(file=stream, force_terminal=True, width=80, _environ={"TERM": "xterm"}))
    live.stage("measuring vit", 100)
    live.live.refresh()
    _Stderr().emit(logging.makeLogRecord({"msg": "batches are in parts"}))
    live.close()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", buffer.getvalue().decode()).replace("\r", "\n").splitlines()
    assert "note: batches are in parts" in [line.rstrip() for line in lines]


def test_a_live_view_gives_the_terminal_back_after_an_exception() -> None:
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=80, _environ={"TERM": "xterm", "NO_COLOR": "1"})
    live = LiveProgress(console)
    with pytest.raises(KeyboardInterrupt):
        try:
            live.stage("measuring vit", 100)
            live.advance(50)
            live.epoch(row(1, 0.95))
            live.live.refresh()
            raise KeyboardInterrupt
        finally:
            live.close()
    text = stream.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1 and text.rindex("\x1b[?25h") > text.rindex("━")
    assert "measuring vit" in text and "lost 1.04%" in text
    assert not [code for code in ("\x1b[3", "\x1b[9", ";3") if f"{code}1m" in text or f"{code}2m" in text]
