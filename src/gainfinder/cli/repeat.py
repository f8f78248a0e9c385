"""`gainfinder repeat`: run a result again and say whether it was repeated."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..startup import heavy_imports
from .command import command, typed_command
from .options import Json, TrustRemoteCode

if TYPE_CHECKING:
    from ..results import Repetition

NOT_REPEATED = 1
"""Exit code where something came out otherwise."""


@command
def repeat(
    folder: Annotated[Path, typer.Argument(help="Folder that a transfer left.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the new result; default: beside it, its name with -repeat.")
    ] = None,
    trust_remote_code: TrustRemoteCode = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what differs before anything is run; run nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Run a transfer again as it was asked for, and say whether it was repeated and, if not, what differs.

    Exit code 0 where all is the same bit for bit, else 1. Relative paths start where the command is given, as they did.
    """
    with heavy_imports():
        from ..api import execute_with_reports
        from ..results import RunFolder, compare_results
        from ..runs import prepare_repetition
        from .progress import make_progress
        from .tables import print_json, print_lines

    again = prepare_repetition(folder, out, trusted=trust_remote_code or (), command=typed_command())
    is_main, noun = again.prepared.is_main, again.prepared.val_images.noun
    if is_main and dry_run and json:
        print_json({"settings": again.settings, "environment": again.environment})
    elif is_main and not json:
        print_lines(*_changed(again.settings, again.environment, noun))
    if dry_run:
        return
    progress = make_progress(noun=noun, silent=not is_main)
    try:
        execute_with_reports(again.prepared, again.out, callbacks=[progress])
    finally:
        progress.close()
    found = compare_results(RunFolder(folder), RunFolder(again.out))
    if is_main and json:
        print_json(found.to_dict())
    elif is_main:
        print_lines(*_compared(found, noun))
    if not found.repeated:
        raise typer.Exit(NOT_REPEATED)


def _changed(settings: list[str], environment: list[str], noun: str) -> list[str]:
    """What differs before anything is run."""
    if not settings and not environment:
        return [f"nothing differs that is known before: models, {noun}s, settings, versions and machine are the same"]
    lines = [f"not the same: {one}" for one in settings]
    return [*lines, *(f"not the same, and may change the last digits: {one}" for one in environment)]


def _compared(found: "Repetition", noun: str) -> list[str]:
    lines = []
    if found.weights_differ is None:
        lines.append("weights: not compared, for a folder keeps none")
    elif not found.weights_differ:
        lines.append("weights: the same, bit for bit")
    else:
        most = found.largest_weight_difference
        largest = "" if most is None else f", by {most:.3g} at most"
        lines.append(f"weights: {found.weights_differ:,} tensors differ{largest}")
    if found.images is None:
        lines.append(f"answers: not compared, for a folder keeps none, or other {noun}s")
    elif found.largest_logit_difference == 0:
        lines.append(f"answers: the same for {found.images:,} {noun}s, bit for bit")
    else:
        lines.append(
            f"answers: {found.answers_differ:,} of {found.images:,} {noun}s are answered otherwise, logits differ by "
            f"{found.largest_logit_difference:.3g} at most"
        )
    if found.transfer_delta_pp is not None:
        first, second = found.transfer_delta_pp
        interval = found.transfer_delta_ci_pp
        within = "" if interval is None else f" (95 % interval of the first {interval[0]:+.2f} to {interval[1]:+.2f})"
        lines.append(f"transfer delta: {first:+.2f} pp then{within}, {second:+.2f} pp now")
    verdict = "repeated, bit for bit" if found.repeated else "not repeated bit for bit"
    return [*lines, f"{verdict}: {found.folder}, again in {found.out}"]
