"""The live view of a real transfer, in a real terminal."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gainfinder
import gainfinder.api
from forked import forked_command
from gainfinder.report import refresh_report
from gainfinder.runs.callbacks import Callback
from gainfinder.training import loop
from transfers import SHORT, interruptible, same, weights

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SHOW, HIDE = "\x1b[?25h", "\x1b[?25l"


def fork(arguments: list[str], terminal: int, environment: dict[str, str | None]) -> "subprocess.Popen[str]":
    return forked_command(arguments, environment=environment, stdin=terminal, stdout=terminal, stderr=terminal)


def start_anew(arguments: list[str], terminal: int, environment: dict[str, str | None]) -> "subprocess.Popen[str]":
    """Start a new interpreter, as a shell does."""
    variables = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    with interruptible():  # a shell that runs the tests in the background has it ignored
        return subprocess.Popen(
            [sys.executable, "-m", "gainfinder", *arguments],
            env=variables, stdin=terminal, stdout=terminal, stderr=terminal, text=True,
        )  # fmt: skip


Begin = Callable[[list[str], int, dict[str, str | None]], "subprocess.Popen[str]"]


def in_terminal(
    arguments: list[str],
    environment: dict[str, str] | None = None,
    *,
    stop_at: str | None = None,
    begin: Begin = fork,
) -> tuple[int, str]:
    """Run gainfinder with a terminal of 80 columns for all its streams; interrupt it once it shows a text.

    Returns its exit code and all it wrote there, and checks that line discipline and echo are as they were.
    """
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (30, 80))
    was = termios.tcgetattr(child)
    asked = {"NO_COLOR": None, "FORCE_COLOR": None, "TERM": "xterm-256color", **(environment or {})}
    process = begin(arguments, child, asked)
    os.set_blocking(parent, False)
    text, code, end = "", None, time.monotonic() + 600
    while code is None or _readable(parent):
        assert time.monotonic() < end, text
        text += _read(parent)
        if stop_at is not None and stop_at in text:
            process.send_signal(signal.SIGINT)
            stop_at = None
        if code is None and (code := process.poll()) is not None:
            text += _read(parent)
        time.sleep(0.005)
    assert termios.tcgetattr(child) == was
    os.close(parent)
    os.close(child)
    return code, text


def _read(terminal: int) -> str:
    found = b""
    try:
        while part := os.read(terminal, 65536):
            found += part
    except BlockingIOError:
        pass
    return found.decode(errors="replace")


def _readable(terminal: int) -> bool:
    import select

    return bool(select.select([terminal], [], [], 0)[0])


def command(zoo: dict[str, str], out: Path, *more: str) -> list[str]:
    return [
        "transfer", "--student", zoo["vit"], "--teacher", zoo["resnet"], "--data", "digits#2/4", "--val", "digits#1/4",
        "--epochs", "4", "--batch-size", "16", "--workers", "0", "--device", "cpu", "--no-guard", "--out", str(out),
        *more,
    ]  # fmt: skip


def test_a_transfer_in_a_terminal(zoo: dict[str, str], run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gainfinder.api, "refresh_report", refresh_report)  # it is written while the view is there
    code, text = in_terminal(command(zoo, run_folder, "--augment", "crop-flip"))
    assert code == 0, text
    seen = " ".join(CODES.sub(" ", text).split())
    assert re.search(r"now epoch \d of 4 ━", seen) and re.search(r"[\d,]+ images/s, 0:\d\d left", seen)
    assert re.search(r"epoch 4 accuracy 0\.\d{4} \([+-].* pp\), gained \d+\.\d\d%, lost \d+\.\d\d%, loss", seen)
    assert "transfer delta (95 % interval)" in seen
    assert text.count(HIDE) == text.count(SHOW) == 1
    after = text[text.index(SHOW) :]
    assert "images/s" not in after, "the view is gone once the result is there"
    assert after.rstrip().endswith(f"local-dir:{run_folder}/student") or "load it again as" in after


def test_ctrl_c_gives_the_terminal_back(zoo: dict[str, str], run_folder: Path) -> None:
    code, text = in_terminal(command(zoo, run_folder, "--epochs", "500"), stop_at="of 500", begin=start_anew)
    assert code == 130 and "Traceback" not in text
    assert text.rindex(SHOW) > text.rindex(HIDE) and "images/s" not in text[text.rindex(SHOW) :]
    assert CODES.sub("", text).rstrip().endswith("if it writes any")


@pytest.mark.parametrize("variable", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_dumb_terminals_and_no_color(zoo: dict[str, str], run_folder: Path, variable: dict[str, str]) -> None:
    code, text = in_terminal(command(zoo, run_folder, "--epochs", "1", "--limit", "100"), variable)
    assert code == 0, text
    if "TERM" in variable:
        assert HIDE not in text and "epoch 1: loss" in text
    else:
        assert HIDE in text and not re.search(r"\x1b\[[0-9;]*3[0-9][0-9;]*m", text)


class Sums(Callback):
    """Keeps what is told of the epochs."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, dict[str, Any]]] = []
        self.epochs: list[tuple[int, int, int, int]] = []
        self.done = self.number = 0

    def epoch_begins(self, epoch: int, of: int, images: int, done: int) -> None:
        self.epochs.append((epoch, of, images, done))
        self.number, self.done = epoch, done

    def advance(self, images: int) -> None:
        self.done += images

    def running(self, row: Any) -> None:
        self.told.append((self.number, self.done, dict(row)))


@pytest.mark.parametrize(("method", "shared"), [("kl-dp-u", True), ("kl", False)])
def test_the_sums_so_far_end_as_the_epochs_row(
    zoo: dict[str, str], val: Any, monkeypatch: pytest.MonkeyPatch, method: str, shared: bool
) -> None:
    asked = {**SHORT, "epochs": 2, "limit": 90, "val": val}
    monkeypatch.setattr(loop, "SHOW_EVERY_S", 0.0)
    sums = Sums()
    done = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", method=method, callbacks=[sums], **asked)
    assert sums.epochs == [(1, 2, 90, 0), (2, 2, 90, 0)]
    assert [told[:2] for told in sums.told] == [(epoch, images) for epoch in (1, 2) for images in (30, 60, 90)]
    for row, (_, _, last) in zip(done.epochs, (sums.told[2], sums.told[5]), strict=True):
        assert last == {"train_loss": row.train_loss, "teacher_share": row.teacher_share}
        assert (row.teacher_share is not None) == shared


def test_the_sums_are_not_read_at_each_step(zoo: dict[str, str], val: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them waits for the device."""
    asked = {**SHORT, "epochs": 3, "limit": 90, "val": val}
    monkeypatch.setattr(loop, "SHOW_EVERY_S", 3600.0)
    sums = Sums()
    still = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", callbacks=[sums], **asked)
    assert sums.told == []
    monkeypatch.setattr(loop, "SHOW_EVERY_S", 0.0)
    watched = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", callbacks=[sums], **asked)
    assert same(weights(still), weights(watched))
