"""The Python API: models and images by name or as objects. Runs the packages below and writes reports."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack, cast

from .config import Rule, TransferConfig, TransferOptions, TransferSpec
from .data import SampleSource, load_images, load_samples
from .errors import Diverged, SettingsError
from .heads import fit_head
from .inference import ImageCount, predict
from .metrics import CHOOSE, Ranking, Scan
from .models import ModelSource, TeacherSource, load_model
from .report import refresh_report, write_question_page, write_report, write_study_report
from .results import Certificate, Repetition, RunFolder, compare_results, list_results, read_questions, write_form
from .runs import (
    Callback,
    CallbackList,
    PreparedRepetition,
    PreparedTransfer,
    TransferResult,
    certify_student,
    contents_asked,
    execute,
    needing_folder,
    prepare_repetition,
    prepare_spec,
    prepare_transfer,
    refuse_diverged,
)
from .sharing import export_student as export
from .sharing import push_student as push
from .study import StudyFolder, StudyRow, read_study
from .study import study_rows as rows_of_study
from .workers import StudySummary, make_backend
from .workers import run_study as execute_study
from .zoo import rank_folder_of_predictions, rank_models, scan_folder_of_predictions, scan_models

__all__ = [
    "ask",
    "certify",
    "execute_repetition",
    "execute_with_reports",
    "export",
    "fit_head",
    "list_results",
    "load_images",
    "load_model",
    "load_samples",
    "predict",
    "push",
    "rank",
    "repeat",
    "run",
    "run_study",
    "scan",
    "study_rows",
    "transfer",
    "write_report",
    "write_study_report",
]


def transfer(
    student: ModelSource,
    teacher: TeacherSource | Sequence[TeacherSource],
    data: SampleSource,
    *,
    val: SampleSource | None = None,
    guard_data: SampleSource | None = None,
    label_map: str | Path | Sequence[str | Path] | None = None,
    referee: TeacherSource | Sequence[TeacherSource] = (),
    out: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    config: TransferConfig | None = None,
    **settings: Unpack[TransferOptions],
) -> TransferResult:
    """Move what the teacher knows and the student does not into the student.

    Nothing passed in is changed: the student is copied before it is trained.

    Args:
        student: reference, classifier or module of the student.
        teacher: reference, classifier or module of the teacher, or several of them.
        data: the transfer images: a reference, `Samples`, or a data set that yields images or (image, label), each
            image a PIL image, uint8, or float in [0, 1]; not normalised, for each model normalises for itself.
        val: images to measure on, in full; by default a tenth of `data` is set apart.
        guard_data: images that none of the models was trained on, for the guard; by default a tenth of
            `data` is set apart for it, too. `guard=False` goes without.
        label_map: file that maps a teacher's classes to the student's, for all teachers, or one each;
            see `classes.read_label_map`.
        referee: models, or tables of predictions, that never teach and judge for the guard, where no labels may be
            read: a reference, classifier or module, or several.
        out: result folder. A run killed there goes on when it is called again with the same arguments; a finished
            one returns its result. None: nothing is kept on disk.
        callbacks: notified of progress and of each complete result folder.
        config: the settings; by default each by its rule.
        **settings: fields of `TransferConfig` by name, in place of `config` or beside it.

    Returns:
        The student's result; with `both`, that of the teacher is its `partner`, and `out` has both, in `1` and `2`.

    Raises:
        Diverged: training leaves all bounds; `result` of the error, and `out`, have the student as it was before.
        GainfinderError: models, images, settings or folder cannot be used.
    """
    teachers, referees = _several(teacher), _several(referee)
    requested = (config or TransferConfig()).merged(settings)
    if out is None and (names := needing_folder(requested.trackers)):
        raise SettingsError(f"track {names[0]!r} writes into the result folder, and none is kept: give one as out")
    maps = [] if label_map is None else [label_map] if isinstance(label_map, str | Path) else label_map
    asked: dict[str, Any] = {
        "student": student,
        "teachers": tuple(teachers),
        "data": data,
        "val": val,
        "guard_data": guard_data,
        "label_maps": tuple(map(str, maps)),
        "referees": tuple(referees),
    }
    given = [student, *teachers, *referees, *(one for one in (data, val, guard_data) if one is not None)]
    if all(isinstance(one, str) for one in given):  # kept with the result, so that it can be repeated
        prepared = prepare_spec(TransferSpec(**asked, config=requested))
    else:
        prepared = prepare_transfer(**{**asked, "label_maps": [*map(Path, maps)]}, settings=requested)
    if out is not None:
        return execute_with_reports(prepared, Path(out), callbacks=callbacks)
    with tempfile.TemporaryDirectory(prefix="gainfinder-") as scratch:
        try:
            return _without_folder(execute(prepared, Path(scratch) / "run", callback=CallbackList(callbacks)))
        except Diverged as error:
            error.result = _without_folder(error.result)
            refuse_diverged(error.result, precision=prepared.accelerator.mixed_precision)
            raise  # a control did


def _without_folder(result: TransferResult) -> TransferResult:
    kept = result.metrics.model_copy(update={"out": None, "student_reference": None})
    partner = None if result.partner is None else _without_folder(result.partner)
    return replace(result, out=None, metrics=kept, partner=partner)


def _several(given: TeacherSource | Sequence[TeacherSource]) -> list[TeacherSource]:
    return [*given] if isinstance(given, list | tuple) else [cast(TeacherSource, given)]


def run(spec: TransferSpec, out: str | Path, *, callbacks: Sequence[Callback] = ()) -> TransferResult:
    """Run a specified transfer in a folder: as `transfer`, with all that it depends on in one value.

    Args:
        spec: the transfer, by references and settings.
        out: the result folder. A run killed there continues when it is called again; a finished one returns its result.
        callbacks: as those of `transfer`.

    Raises:
        GainfinderError: whatever is wrong with models, images, settings or folder.
    """
    return execute_with_reports(prepare_spec(spec), Path(out), callbacks=callbacks)


def repeat(
    folder: str | Path,
    *,
    out: str | Path | None = None,
    trust_remote_code: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
) -> Repetition:
    """Run a finished transfer again, as it was asked for, and compare.

    Args:
        folder: its result folder.
        out: folder for the new result; by default beside the first, its name with `-repeat`. One that was killed there
            goes on; one that is finished is compared, and nothing is run (`ran` is false).
        trust_remote_code: repositories or folders of `hf:` models that may run code of their own.
        callbacks: as those of `transfer`.

    Returns:
        Whether it was repeated bit for bit, and what differs.

    Raises:
        RunFolderError: the folder holds no finished transfer, or what it holds is damaged; or `out` holds a different
            run, or an earlier repetition under other conditions.
        SettingsError: the folder does not hold what was asked for.
        GainfinderError: models or images are not there any more, or cannot be used.
    """
    again = prepare_repetition(Path(folder), None if out is None else Path(out), trusted=trust_remote_code)
    return execute_repetition(again, callbacks=callbacks)


def execute_repetition(again: PreparedRepetition, *, callbacks: Sequence[Callback] = ()) -> Repetition:
    """Run a prepared repetition, unless a finished one is in its folder, and compare.

    Args:
        again: the repetition.
        callbacks: as those of `transfer`.

    Raises:
        RunFolderError: its folder holds an earlier repetition under other conditions, is in use or is damaged.
        GainfinderError: models or images cannot be used.
    """
    again.refuse_obstacle()
    execute_with_reports(again.prepared, again.out, callbacks=callbacks)
    return compare_results(RunFolder(again.first), RunFolder(again.out), ran=not again.finished)


def execute_with_reports(
    prepared: PreparedTransfer, out: Path, *, callbacks: Sequence[Callback] = ()
) -> TransferResult:
    """Run a prepared transfer in its folder, with a report of each result in it.

    Args:
        prepared: the transfer to run.
        out: the result folder.
        callbacks: notified of progress and of each complete result folder.

    Raises:
        RunFolderError: the folder belongs to another run, is in use or is damaged.
        GainfinderError: models or images cannot be used.
    """
    return execute(prepared, out, callback=CallbackList([*callbacks, _Reporting()]))


def scan(
    models: Sequence[ModelSource] | str | Path,
    data: SampleSource | None = None,
    *,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    max_broken: float = 0.01,
    student: str | None = None,
    choose: int = CHOOSE,
    class_names: str | Path | None = None,
    class_embeddings: str | Path | None = None,
    embed: str | None = None,
    on_model: Callable[[str, int], ImageCount] | None = None,
    out: str | Path | None = None,
    command: str | None = None,
) -> Scan:
    """Measure complementary knowledge between models; each model meets each image once, one model at a time.

    The next model is loaded while one runs. One that cannot be loaded or run, or whose classes do not fit, is left out
    and named in `failed`. With `out` each model's predictions are kept and never made again: a scan that was stopped
    goes on where it was, and one of more models makes those of the new ones only.

    Modules and classifiers that are passed in are not changed; of several of one name, the later are numbered.

    Args:
        models: two or more references, classifiers or modules; or a folder of predictions, Parquet files as `predict`
            and `scan` write them, which need neither models nor images.
        data: a data reference, `Samples`, or a data set that yields images or (image, label); None with a folder of
            predictions. Without labels what needs them is None, and stand-ins and estimates are there alone.
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: images a forward pass.
        workers: processes that decode images; by default none on a CPU, else up to 16.
        max_broken: largest share of images that may be undecodable.
        student: reference of one of the models, for which teachers are chosen greedily: each the one with which the
            better of the routed and the mean ensemble of all chosen so far is best, or without labels is estimated to
            be by all models together.
        choose: number of these teachers at most.
        class_names: file of the classes' names for areas of expertise: a name a line in class order, or JSON, such a
            list or {"class": "name"}. By default what data and models call them, and timm's names for ImageNet's.
        class_embeddings: file of an embedding of each class: .npy, .npz, .safetensors, .parquet or .csv, by the class's
            name or in class order. With it areas of expertise have a semantic similarity.
        embed: text model that embeds the classes' names, in its place: `open_clip:NAME/PRETRAINED`,
            `open_clip:local-dir:FOLDER`, `open_clip:hf-hub:REPO` or `sentence-transformers:NAME`.
        on_model: function of each model's reference and the number of images, which returns a callback for images done.
        out: folder for the scan as `scan.json` and `pairs.parquet`, the predictions, and a report; one that
            holds a scan of these models, or some of them, on the same data is written anew. None keeps nothing.
        command: command line that requested it, kept with the scan.

    Raises:
        RunFolderError: `out` holds something else, or cannot be written.
        SettingsError: fewer than two models, or a reference given twice, models without images, a student that is none
            of them, or names or embeddings of classes for images without labels.
        BadReference: a reference cannot be parsed.
        MissingExtra: the text model's package is not installed.
        DataError: the images' classes do not fit the first model's; or the predictions are not of the same images and
            classes; or names or embeddings do not fit the classes.
        ModelError: fewer than two models could be run, or the text model could not.
    """
    if isinstance(models, str | Path):
        if data is not None or out is not None:
            raise SettingsError(
                f"a scan of the predictions in {models} takes neither `data` nor `out`; models are given as a list"
            )
        return scan_folder_of_predictions(
            models,
            device=device,
            student=student,
            choose=choose,
            class_names=class_names,
            class_embeddings=class_embeddings,
            embed=embed,
        )
    if data is None:
        raise SettingsError("a scan of models needs images: give `data`; a folder of predictions needs none")
    found = scan_models(
        models,
        data,
        device=device,
        batch_size=batch_size,
        workers=workers,
        max_broken=max_broken,
        student=student,
        choose=choose,
        class_names=class_names,
        class_embeddings=class_embeddings,
        embed=embed,
        on_model=on_model,
        out=out,
        command=command,
    )
    if out is not None:
        refresh_report(Path(out))
    return found


def rank(
    student: ModelSource,
    models: Sequence[ModelSource] | str | Path,
    data: SampleSource | None = None,
    *,
    by: Rule | None = None,
    choose: int | None = None,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    max_broken: float = 0.01,
    on_model: Callable[[str, int], ImageCount] | None = None,
    out: str | Path | None = None,
    command: str | None = None,
) -> Ranking:
    """Say which models a student should learn from and what to expect, before any training.

    The rule that says so was fitted to measured transfers. Where none was measured to choose better than "the most
    accurate teacher", it is that one; `basis` of the result tells.

    Args:
        student: reference, classifier or module of the student; with a folder of predictions what its file calls it.
        models: models that could teach it: references, classifiers or modules; or a folder of predictions, Parquet
            files as `predict` and `scan` write them, the student's among them.
        data: images that no model was trained on: a data reference, `Samples`, or a data set that yields images or
            (image, label); None with a folder of predictions. Without labels everything is estimated by all models
            together.
        by: rule to rank by, in place of the one that was measured best.
        choose: number of teachers to choose, at most, that are best together, for a sequence or in parallel: each the
            one that adds most to the ensemble of all so far. None for no such choice.
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: images a forward pass.
        workers: processes that decode images; by default none on a CPU, else up to 16.
        max_broken: largest share of images that may be undecodable.
        on_model: function of each model's reference and the number of images, which returns a callback for images done.
        out: folder for the ranking as `ranking.json`, and for the predictions, which are never made again; a scan's
            folder on the same data will do. None keeps nothing.
        command: command line that requested it, kept with the ranking.

    Raises:
        RunFolderError: `out` holds something else, or cannot be written.
        SettingsError: no model but the student, a reference given twice, models without images, a student that has no
            file, or a rule that needs what is not known.
        BadReference: a reference cannot be parsed.
        DataError: the images' classes do not fit the student's; or the predictions are not of the same images and
            classes.
        ModelError: the student, or every other model, could not be run.
    """
    if isinstance(models, str | Path):
        if data is not None or out is not None or not isinstance(student, str):
            raise SettingsError(
                f"a ranking by the predictions in {models} takes the student by name, and neither `data` nor `out`; "
                "models are given as a list"
            )
        return rank_folder_of_predictions(models, student, by=by, choose=choose)
    if data is None:
        raise SettingsError("a ranking of models needs images: give `data`; a folder of predictions needs none")
    return rank_models(
        student,
        models,
        data,
        by=by,
        choose=choose,
        device=device,
        batch_size=batch_size,
        workers=workers,
        max_broken=max_broken,
        on_model=on_model,
        out=out,
        command=command,
    )


def ask(folder: str | Path, *, labels: int = 100, data: SampleSource | None = None) -> Path:
    """Ask for a few labels, of images that the new student answers otherwise than the old one: nothing else can tell.

    Writes `ask.html`, a page to answer on by keyboard, offline, and `questions.csv`, the same as a form. Neither says
    which student is which. Images are drawn in a random order of a fixed seed; answers in an older form stay in it.

    Args:
        folder: result folder of a finished transfer, guarded or measured on images without labels.
        labels: number of questions, at most; 1 or more.
        data: the images that guarded, or, without a guard, that it was measured on; None for those that the transfer
            named.

    Returns:
        The page's path.

    Raises:
        SettingsError: `labels` is below 1.
        RunFolderError: the folder holds no finished transfer, or cannot be written.
        DataError: there is nothing to ask, or the images cannot be read.
    """
    if labels < 1:
        raise SettingsError(f"`labels` is {labels}: expected 1 or more")
    path = Path(folder)
    questions = read_questions(path)
    contents = contents_asked(questions, labels, data=data)
    run_folder = RunFolder(path)
    write_form(run_folder.questions, questions, count=labels)
    write_question_page(run_folder.ask, questions, contents)
    return run_folder.ask


def certify(folder: str | Path, answers: str | Path) -> Certificate:
    """Say by the answers whether the new student is better, and keep it if it is.

    The test is valid whenever one stops: a false verdict comes with a probability of 5 % at most; see
    `metrics/evidence.py`. A student that the guard did not keep, and that is better, takes the place of the old one in
    `student/`. The verdict goes into `certificate.json`, `result.json` and the report.

    Args:
        folder: the result folder that was asked about.
        answers: CSV file with the columns `id` and `answer` (or `label`): class names, or `neither`.

    Raises:
        RunFolderError: the folder holds no finished transfer, is in use, or cannot be written.
        DataError: the answers are not right, or there is nothing to ask; nothing was changed.
    """
    certificate = certify_student(Path(folder), Path(answers))
    refresh_report(Path(folder))
    return certificate


def run_study(
    file: str | Path,
    out: str | Path,
    *,
    workers: int = 1,
    on: str = "local",
    engine: Mapping[str, str] | None = None,
    threads: int | None = None,
    overrides: Sequence[str] = (),
    retry: bool = False,
    mirror: str | None = None,
    on_poll: Callable[[], object] | None = None,
) -> StudySummary:
    """Run the cells of a study that are not done; what is missing on disk is what is left to do.

    Args:
        file: the study, a TOML file.
        out: its folder; one that holds this study goes on, or grows by cells that are new.
        workers: worker processes at once, for each GPU of this machine, or in all on Ray and Slurm.
        on: the engine: `local`, `ray` or `slurm`.
        engine: options of Ray (`address`, `num_cpus`, `num_gpus` …) or Slurm (those of submitit).
        threads: torch's threads of each worker; None leaves them to torch.
        overrides: `KEY=VALUE`, each in place of a value of the file.
        retry: whether cells that failed are tried again.
        mirror: URL that finished cells are copied to, too.
        on_poll: called every half second while workers run.

    Raises:
        SettingsError: something in the file is wrong, with its line; or the engine or its options are unknown.
        RunFolderError: the folder holds something else, or workers cannot run.
        MissingExtra: the engine's package is not installed.
    """
    backend = make_backend(on, out=Path(out), options=engine)
    return execute_study(
        read_study(file, overrides),
        out,
        backend=backend,
        workers=workers * backend.devices,
        threads=threads,
        retry=retry,
        mirror=mirror,
        on_poll=on_poll,
    )


def study_rows(out: str | Path) -> list[StudyRow]:
    """A row of measures for each cell of a study; those that are not done have none.

    Args:
        out: the study's folder.

    Raises:
        RunFolderError: the folder holds no study, or a file in it is damaged.
    """
    return rows_of_study(StudyFolder(out))


class _Reporting(Callback):
    """Writes the report of each result folder that is complete."""

    def result(self, folder: Path) -> None:
        refresh_report(folder)
