"""`gainfinder push`: a result's student goes to a model hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..references import AUTO_MODELS
from ..startup import heavy_imports
from .command import command
from .options import Json

if TYPE_CHECKING:
    from ..sharing import PushedStudent


@command
def push(
    folder: Annotated[Path, typer.Argument(help="Folder that a transfer left.", show_default=False)],
    repository: Annotated[str, typer.Argument(help="USER/NAME on the hub.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the files in the place of others that gainfinder did not write.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    message: Annotated[str | None, typer.Option(help="Message of the commit.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Put a result's student on the Hugging Face hub, where plain timm or transformers load it.

    Weights, configuration and model card (student/README.md) are sent, in one commit; report, predictions and pictures
    stay here. Log in before with hf auth login, or set HF_TOKEN.
    """
    with heavy_imports():
        from .. import api
        from .tables import print_json, print_lines

    found = api.push(folder, repository, private=private, replace=replace, dry_run=dry_run, message=message)
    if json:
        print_json({**vars(found), "dry_run": dry_run})
    else:
        print_lines(*_lines(found))


def _lines(found: "PushedStudent") -> list[str]:
    what = "would be sent to" if found.commit is None else "sent to"
    card = ": the card as it was changed by hand" if found.own_card else ""
    lines = [
        *(f"{name} ({size:,} bytes){card if name == 'README.md' else ''}" for name, size in found.files.items()),
        f"{what} {found.url}" + ("" if found.commit is None else f" as commit {found.commit[:12]}"),
    ]
    if found.library == "timm":
        load = f'timm.create_model("{found.reference}", pretrained=True)'
    else:
        load = f'transformers.{AUTO_MODELS[found.classified]}.from_pretrained("{found.repository}")'
    return [*lines, f"load it by {load}, or here as {found.reference}"]
