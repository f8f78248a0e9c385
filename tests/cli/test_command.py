"""What a command writes to stderr."""

import logging

import pytest

from gainfinder.cli.command import shown_notes


def test_a_note_is_shown_once_a_command_and_the_logger_is_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("gainfinder")
    before = [*logger.handlers], logger.propagate
    for _ in range(2):
        with shown_notes():
            for note in ("a\nb", "a\nb", "c"):
                logger.warning(note)
    assert capsys.readouterr().err == "note: a b\nnote: c\n" * 2
    assert ([*logger.handlers], logger.propagate) == before
