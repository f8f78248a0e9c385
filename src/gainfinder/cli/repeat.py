"""`gainfinder repeat`: run a result again and say whether it was repeated."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..startup import heavy_imports
from .command import command, typed_command
from .options import Json, TrustRemoteCode

if TYPE_CHECKING:
    from ..results import OtherImages, Repetition
    from ..runs import PreparedRepetition

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

    A finished repetition that is there already is compared, and nothing is run. Exit code 0 where all is the same bit
    for bit, else 1; of a dry run 0. Relative paths start where the command is given, as they did.
    """
    with heavy_imports():
        from ..api import execute_repetition
        from ..runs import prepare_repetition
        from .progress import make_progress
        from .tables import print_json, print_lines

    again = prepare_repetition(folder, out, trusted=trust_remote_code or (), command=typed_command())
    is_main, noun = again.prepared.is_main, again.prepared.val_images.noun
    if is_main and dry_run and json:
        names = ("settings", "environment", "contents", "finished", "obstacle")
        print_json({name: getattr(again, name) for name in names})
    elif is_main and not json and (dry_run or again.obstacle is None):
        print_lines(*_changed(again, noun), *_ahead(again, dry_run=dry_run))
    if dry_run:
        return
    progress = make_progress(noun=noun, silent=not is_main)
    try:
        found = execute_repetition(again, callbacks=[progress])
    finally:
        progress.close()
    if is_main and json:
        print_json(found.to_dict())
    elif is_main:
        print_lines(*_compared(found, noun))
    if not found.repeated:
        raise typer.Exit(NOT_REPEATED)


def _changed(again: "PreparedRepetition", noun: str) -> list[str]:
    """What differs before anything is run, and how far images were looked at."""
    lines = [f"not the same: {one}" for one in again.settings]
    lines += [f"not the same, and may change the last digits: {one}" for one in again.environment]
    if not lines:
        lines = [
            "nothing differs that is known before: models, settings, versions and machine are the same, ids and labels "
            f"of {noun}s, too"
        ]
    uses = {"data": "learned from", "val": "measured on", "guard": "that guard"}
    compared = [f"{few:,} of {count:,} {uses[role]}" for role, (few, count) in again.contents.items()]
    return [*lines, f"{noun}s compared by their contents: {', '.join(compared)}"]


def _ahead(again: "PreparedRepetition", *, dry_run: bool) -> list[str]:
    """What a run does, or would do, with what is in its folder."""
    if again.obstacle is not None:
        return [f"cannot be run there: {again.out} {again.obstacle}. Give another --out"]
    if again.finished:
        what = "would be compared, and nothing run" if dry_run else "is compared, and nothing is run"
        return [f"{again.out}: holds a finished repetition, which {what}; another --out runs it again"]
    return []


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
    if found.other_images is not None:
        lines.append(_others(found.other_images, noun))
    if found.transfer_delta_pp is not None:
        first, second = found.transfer_delta_pp
        interval = found.transfer_delta_ci_pp
        within = "" if interval is None else f" (95 % interval of the first {interval[0]:+.2f} to {interval[1]:+.2f})"
        lines.append(f"transfer delta: {first:+.2f} pp then{within}, {second:+.2f} pp now")
    verdict = "repeated, bit for bit" if found.repeated else "not repeated bit for bit"
    when = "again" if found.ran else "compared with the repetition that was there,"
    return [*lines, f"{verdict}: {found.folder}, {when} in {found.out}"]


def _others(found: "OtherImages", noun: str) -> str:
    """That images are not as they were, which ones, and who tells."""
    ids = ", ".join(map(repr, found.ids)) + (" …" if found.images > len(found.ids) else "")
    return (
        f"{noun}s: {found.images:,} of {found.compared:,} are not as they were ({ids}): of the same weights, these "
        f"answer otherwise than then: {', '.join(found.models)}"
    )
