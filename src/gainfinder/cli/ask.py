"""`gainfinder ask`: a few labels of changed samples say whether the new student is better."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..startup import heavy_imports
from .command import command
from .options import DATA_HELP, Json

if TYPE_CHECKING:
    from ..results import TransferMetrics
    from ..runs import PreparedTransfer


@command
def ask(
    folder: Annotated[Path, typer.Argument(help="Folder that a transfer left.", show_default=False)],
    labels: Annotated[int | None, typer.Option(min=1, help="Questions, at most; default: 100.")] = None,
    answers: Annotated[
        Path | None, typer.Option(help="CSV file with the answers: what do they say?", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help=f"The images or texts, where the transfer's are no more: {DATA_HELP}.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Find out by a few labels whether the new student is better, and keep it if it is.

    Only images or texts that the two students answer differently can tell. They are drawn at random, and asked for on
    a page (ask.html) or in a form (questions.csv) that does not say which student is which; --answers reads the
    answers. The verdict may be asked for after any number of them: it is false 5 times in 100 at most.
    """
    with heavy_imports():
        from .. import api
        from ..errors import SettingsError
        from ..results import RunFolder
        from .tables import print_json, print_lines

    if answers is not None and (labels is not None or data is not None):
        raise SettingsError("--answers is given together with --labels or --data, which ask: give one or the other")
    if answers is None:
        page = api.ask(folder, labels=labels or 100, data=data)
        if json:
            print_json({"page": str(page), "form": str(page.with_name("questions.csv"))})
        else:
            print_lines(*asked(page))
        return
    certificate, noun = api.certify(folder, answers), RunFolder(folder).noun
    if json:
        print_json(certificate.to_dict())
        return
    from ..report import certificate_text

    print_lines(
        f"{certificate.verdict}: {certificate_text(certificate, noun=noun)}",
        f"{folder / 'certificate.json'}: the numbers",
    )


def ask_after(
    prepared: "PreparedTransfer", metrics: "TransferMetrics", out: Path, *, labels: int | None
) -> tuple[str, ...]:
    """Ask after a transfer; where there is nothing to ask, that is said instead.

    Args:
        prepared: the transfer, with its images.
        metrics: its metrics.
        out: its result folder.
        labels: number of questions, at most; None asks nothing.
    """
    from .. import api
    from ..errors import DataError

    if labels is None:
        return ()
    images = prepared.val_images if metrics.guard is None else prepared.guard_images
    try:
        return asked(api.ask(out, labels=labels, data=images))
    except DataError as error:
        return (f"nothing is asked: {error}",)


def asked(page: Path) -> tuple[str, ...]:
    """Where the questions are, and what to do with the answers, as lines."""
    return (
        f"{page}: questions, to answer by keyboard in a browser",
        f"{page.with_name('questions.csv')}: the same as a form",
        f"what the answers say: gainfinder ask {page.parent} --answers answers.csv",
    )
