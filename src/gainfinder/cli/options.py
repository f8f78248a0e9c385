"""Options that several commands share, and those that the declared settings become."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..config import SETTINGS, DeclaredSetting
from ..references import number_within

LARGEST = 10**18 - 1
"""The largest number of an option that also takes words; the settings say what is too large."""
_BY_NAME = {one.name: one for one in SETTINGS}

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout instead of tables.")]
Device = Annotated[str, typer.Option(help=_BY_NAME["device"].help)]
Workers = Annotated[int | None, typer.Option(help=_BY_NAME["workers"].help)]
MaxBroken = Annotated[float, typer.Option(help=_BY_NAME["max_broken"].help)]
TrustRemoteCode = Annotated[
    list[str] | None,
    typer.Option(
        help="Repository or folder of an hf: model that may run Python code of its own; read it first. Repeatable.",
        metavar="NAME",
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images or texts a forward pass.")]
MODEL_HELP = (
    "a timm name, hf-hub:REPO, local-dir:FOLDER, torchvision:NAME[/WEIGHTS], hf:REPO-OR-FOLDER, "
    "file:PATH.py:FACTORY[@WEIGHTS] or onnx:PATH; settings follow as ?size=64&mean=0.5,0.5,0.5"
)
DATA_HELP = (
    "a folder of class folders or of images, a .tar or a folder of them, a .parquet file, texts as .csv, .tsv or "
    ".jsonl, hfds/NAME?split=, torch/NAME?split=, or digits; #k/n takes part k of n"
)


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each setting, in place of its parameter `**settings`.

    They stand behind the command's own options and before those that it takes by keyword only. The command gets the
    values by name, for `TransferConfig` to check.

    Args:
        names: names of the settings; none for all of them.
    """
    chosen = [_BY_NAME[name] for name in names] if names else SETTINGS

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        """The command with the options in its signature, which Typer reads."""

        @functools.wraps(command)
        def run(**values: Any) -> None:
            command(**{**values, **{one.name: _as_setting(one, values[one.name]) for one in chosen}})

        signature = inspect.signature(command, eval_str=True)
        own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        last = [one for one in own if one.kind is inspect.Parameter.KEYWORD_ONLY]
        options = [_parameter(one) for one in chosen]
        parameters = [*(one for one in own if one not in last), *options, *last]
        # Typer reads the one, the completers are put into the other
        run.__dict__["__signature__"] = signature.replace(parameters=parameters)
        run.__annotations__ = {
            **get_type_hints(command, include_extras=True),
            **{one.name: one.annotation for one in options},
        }
        return run

    return decorate


def typed_settings(context: typer.Context, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of a command's settings those that were typed, so that they can go over those of a file.

    Args:
        context: the command's context.
        settings: all that it got.
    """
    return {name: value for name, value in settings.items() if not _is_default(context, name)}


def _is_default(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is None or source.name.startswith("DEFAULT")


def _parameter(setting: DeclaredSetting) -> inspect.Parameter:
    kind = _kind(setting)
    # what is on, or by a rule, can be switched off, too; what is off can be switched on
    names = (f"--{setting.word}",) if setting.default is False else ()
    option = typer.Option(*names, help=setting.help)
    default = None if kind == list[str] else setting.default
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind if default is not None else kind | None, option],
    )


def _kind(setting: DeclaredSetting) -> Any:
    """The type that an option reads; values are checked by the settings, which have the messages for them."""
    if Sequence[str] in setting.kinds:
        return list[str]
    if Path in setting.kinds:
        return Path
    return str if setting.literals else setting.kinds[0]


def _as_setting(setting: DeclaredSetting, value: Any) -> Any:
    """What an option read, as the setting takes it."""
    if Sequence[str] in setting.kinds:
        return tuple(value or ())
    if not setting.literals or int not in setting.kinds or value is None:
        return value
    number = number_within(value.removeprefix("-"), low=0, high=LARGEST)
    return value if number is None else -number if value.startswith("-") else number
