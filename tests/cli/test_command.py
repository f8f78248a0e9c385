"""What a command writes to stderr."""

import logging

import pytest

from gainfinder.cli.command import _show_notes


@pytest.fixture
def logger() -> "logging.Logger":
    return logging.getLogger("gainfinder")


def test_a_note_is_shown_once_a_command(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", False)
    for _ in range(2):
        _show_notes()
        for note in ("a\nb", "a\nb", "c"):
            logger.warning(note)
    assert capsys.readouterr().err == "note: a b\nnote: c\n" * 2
