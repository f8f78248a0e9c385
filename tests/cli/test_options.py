"""The options that the declared settings become."""

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gainfinder.cli import app as gainfinder_app
from gainfinder.cli.options import with_settings
from gainfinder.config import SETTINGS, DeclaredSetting, TransferConfig


def typed(*words: str, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings that a command gets from what is typed."""
    got: dict[str, Any] = {}

    @with_settings(*names)
    def command(student: str = "net", *, json: bool = False, **settings: Any) -> None:
        got.update(settings)

    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return got


def test_nothing_typed_is_every_default() -> None:
    assert TransferConfig(**typed()) == TransferConfig()


def test_what_is_typed_arrives() -> None:
    words = (
        "--no-guard --control copy --control labels --epochs 3 --batch-size auto --micro-batch 8 --lr 1 "
        "--strategy soup --bank views --track wandb --track mlflow --momentum 0.5 --student-mode frozen --seed -1 "
        "--json"
    )
    assert TransferConfig(**typed(*words.split())) == TransferConfig(
        guard=False, control=("copy", "labels"), epochs=3, batch_size="auto", micro_batch=8, lr=1.0, strategy="soup",
        bank=Path("views"), track=("wandb", "mlflow"), momentum=0.5, student_mode="frozen", seed=-1,
    )  # fmt: skip


def test_a_command_can_have_some_of_them() -> None:
    assert typed("--device", "cpu", names=("labels", "device")) == {"labels": "use", "device": "cpu"}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_transfer_has_an_option_for_each_setting(setting: DeclaredSetting) -> None:
    command: Any = typer.main.get_command(gainfinder_app)
    options = {option.name: option for option in command.commands["transfer"].params}
    option = options[setting.name]
    assert option.opts == [f"--{setting.word}"] and option.help == setting.help and not option.required
    by_rule = setting.name in ("guard", "trials", "adapt_start")  # what may be on can be switched off
    assert option.secondary_opts == ([f"--no-{setting.word}"] if by_rule else [])
    assert [*options][:4] == ["student", "teacher", "data", "out"] and [*options][-2:] == ["dry_run", "json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--schedule linea", "gainfinder: schedule is 'linea': expected one of linear, cosine, constant, plateau\n"),
        ("--epochs 0", "gainfinder: epochs is 0: expected 1 or more\n"),
        ("--batch-size many", "gainfinder: batch-size is 'many': expected a whole number, 1 or more, or auto\n"),
    ],
)
def test_a_value_out_of_range_is_one_line_and_exit_code_2(words: str, message: str) -> None:
    command = f"transfer --student a --teacher b --data c --out d {words}"
    done = CliRunner().invoke(gainfinder_app, command.split())
    assert (done.exit_code, done.stderr, done.stdout) == (2, message, "")
