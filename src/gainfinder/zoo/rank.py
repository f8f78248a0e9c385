"""Run a student and models that could teach it on the same images, and say which of them to learn from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..config import Rule
from ..data import SampleSource, load_samples
from ..devices import default_workers, environment, resolve_device
from ..errors import ModelError, SettingsError
from ..metrics import Ranking, rank_predictions
from ..models import Classifier, ModelSource
from ..results import SCAN_PREDICTIONS, claim_ranking_folder, write_ranking
from .scan import OnModel, Scanning, check_references, name_of, read_folder
from .sources import load_ahead


def rank_models(
    student: ModelSource,
    models: Sequence[ModelSource],
    data: SampleSource,
    *,
    by: Rule | None = None,
    choose: int | None = None,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    max_broken: float = 0.01,
    on_model: OnModel | None = None,
    out: str | Path | None = None,
    command: str | None = None,
) -> Ranking:
    """Rank models as teachers of a student; each model predicts each image once, one model at a time.

    Models are run and kept as `scan_models` does it, in the same folder if that is wanted; all in the student's class
    order.

    Args:
        student: reference, classifier or module of the student.
        models: one or more models that could teach it; the student among them is passed over.
        data: a data reference, `Samples`, or a data set that yields images or (image, label).
        by: rule to rank by; None for the one that was measured best.
        choose: number of teachers to choose that are best together, at most; None for no such choice.
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: number of images in a forward pass.
        workers: number of processes that decode images; by default none on a CPU, else up to 16.
        max_broken: largest share of images that may be undecodable.
        on_model: called before a model runs.
        out: folder for the ranking as `ranking.json`, and the predictions. None keeps nothing.
        command: the command line that started it, kept with the ranking.

    Raises:
        RunFolderError: `out` holds something else, or cannot be written.
        SettingsError: no model but the student, a reference given twice, or a rule that needs what is not known.
        BadReference: a reference cannot be parsed.
        DataError: the images' classes do not fit the student's.
        ModelError: the student, or every other model, could not be run.
    """
    sources = [student, *(model for model in models if not _is_same(model, student))]
    if len(sources) < 2:
        raise SettingsError("a ranking needs a model to learn from: name one beside the student")
    check_references(sources)
    images, where = load_samples(data), resolve_device(device)
    folder = None if out is None else Path(out)
    if folder is not None:
        claim_ranking_folder(folder, data=images.reference)
    work = Scanning(
        images=images,
        count=len(sources),
        device=where,
        batch_size=batch_size,
        workers=default_workers(where) if workers is None else workers,
        max_broken=max_broken,
        on_model=on_model,
        folder=None if folder is None else folder / SCAN_PREDICTIONS,
    )
    parameters = _run(work, sources)
    assert work.first is not None, "the student ran"
    found = rank_predictions(
        work.predicted,
        num_classes=work.first.num_classes,
        student=work.predicted[0].model,
        parameters=parameters,
        by=by,
        choose=choose,
    )
    found = replace(found, failed=tuple(work.failed))
    if folder is not None:
        about = {"data": images.reference, "environment": {**environment(where), "command": command}}
        write_ranking(folder, {**found.to_dict(), **about})
    return found


def rank_folder_of_predictions(
    folder: str | Path, student: str, *, by: Rule | None = None, choose: int | None = None
) -> Ranking:
    """Rank models as teachers of one of them from their predictions alone.

    Args:
        folder: a folder of predictions, as `scan_folder_of_predictions` takes it.
        student: the student, as its file names it.
        by: rule to rank by; None for the best of those that need no more than predictions.
        choose: number of teachers to choose that are best together, at most; None for no such choice.

    Raises:
        SettingsError: the student is none of the models, or the rule needs what is not known.
        DataError: there are fewer than two files, or they are not of the same images, labels and classes.
    """
    found, names = read_folder(Path(folder))
    return rank_predictions(found, num_classes=len(names), student=student, by=by, choose=choose)


def _run(work: Scanning, sources: Sequence[ModelSource]) -> int | None:
    """Run all models, the student first, and count the student's weights; None where it has none to count."""
    parameters = None
    for source, loaded in load_ahead(sources):
        if isinstance(loaded, Classifier):
            work.add(loaded, name=name_of(source))
        else:
            work.fail(name_of(source), loaded)
        if not work.predicted:
            raise ModelError(f"the student could not be run: {work.failed[0].reason}")
        if parameters is None and isinstance(loaded, Classifier):
            parameters = sum(weights.numel() for weights in loaded.module.parameters())
    if len(work.predicted) < 2:
        reasons = "; ".join(one.reason for one in work.failed)
        raise ModelError(f"none of the {len(sources) - 1} models to learn from could be run: {reasons}")
    return parameters or None


def _is_same(model: ModelSource, student: ModelSource) -> bool:
    return model is student or (isinstance(model, str) and model == student)
