"""Questions on images whose predicted class changed, and the answers: which class is it?

Nothing but the predictions in a result folder and a fixed seed makes the questions, so that they are the same whenever
they are asked for. questions.csv is a form with a row for each:

    number, id, first, second, answer, questions

`first` and `second` are the classes that the two students predict, in random order; `answer` is empty and becomes the
name of a class, one of these or another, or `neither`; `questions` says which folder's they are. answers.csv needs `id`
and `answer` (or `label`) alone.
"""

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, RunFolderError
from ..files import read_user_text, spreadsheet_text, text_of_spreadsheet, write_text
from ..metrics import Candidate, drawing_order
from ..predictions import IMAGE, Predictions
from ..references import suggest
from .config import RunConfig
from .documents import require_folder, validated
from .folder import RunFolder
from .metrics import TransferMetrics
from .two_way import refuse_two_way

SEED = 0
"""Seed of the order in which images are drawn."""
NEITHER = "neither"
KEYS = frozenset("012")
"""What the page takes for neither, the first and the second class."""
FEW_ANSWERS = 5
"""Fewer answers may look like keys by chance."""
COLUMNS = ("number", "id", "first", "second", "answer", "questions")


@dataclass(frozen=True, kw_only=True)
class Questions:
    """All images on which two students differ, in the order in which they are asked.

    Attributes:
        ids: M sample ids.
        classes: predicted classes of the old and of the new student, int64 (M, 2).
        swapped: whether the new student's class is shown first, bool (M,).
        class_names: names of the C classes; their numbers where there are no names.
        others: ids of the images on which both students agree.
        candidate: the student that is compared with the initial one.
        reference: reference of the images.
        key: digits that tell these questions from those of other folders.
        noun: what a sample is: `image` or `text`.
    """

    ids: tuple[str, ...]
    classes: NDArray[np.int64]
    swapped: NDArray[np.bool_]
    class_names: tuple[str, ...]
    others: frozenset[str]
    candidate: Candidate
    reference: str
    key: str
    noun: str = IMAGE

    @property
    def images(self) -> int:
        """N, the number of all images that both students predicted."""
        return len(self.ids) + len(self.others)

    def shown(self, index: int) -> tuple[str, str]:
        """The two classes of a question, in the order shown."""
        old, new = (self.class_names[one] for one in self.classes[index])
        return (new, old) if self.swapped[index] else (old, new)


def read_questions(path: Path) -> Questions:
    """The questions of a finished result folder.

    The student asked about is the one that is kept, or, where the guard kept the initial one, the one in `candidate/`.

    Raises:
        RunFolderError: the folder holds no finished transfer, or a damaged one.
        DataError: there is nothing to ask: the images carry labels, or no prediction changed.
    """
    require_folder(path)
    refuse_two_way(path)
    folder = RunFolder(path)
    metrics = folder.read_result()
    if metrics is None:
        raise RunFolderError(f"{path}: holds no finished transfer; expected the result folder of one")
    if path.parent.name == "steps" and RunFolder(path.parent.parent).config.exists():
        raise RunFolderError(f"{path}: is a step of {path.parent.parent}, which goes on from it; ask about that one")
    candidate = _candidate(metrics)
    names = ("before", "after") if metrics.guard is None else ("probe-before", f"guard-{candidate.name}")
    old, new = (_predictions(folder, name) for name in names)
    if old.target is not None:
        raise DataError(
            f"{path}: the {old.noun}s carry labels, which have decided; questions are for {old.noun}s without any"
        )
    if old.ids != new.ids:
        raise RunFolderError(f"{folder.predictions}: {names[0]} and {names[1]} are not of the same {old.noun}s")
    config = validated(RunConfig, folder.read_config() or {}, folder.config)
    return _questions(old, new, candidate, reference=(config.guard or config.val).reference, path=path)


def write_form(path: Path, questions: Questions, *, count: int) -> None:
    """Write the first questions as a form; answers that stand in an older one are carried over.

    Raises:
        RunFolderError: there is another file in the way, or it cannot be written.
        DataError: the older form is damaged.
    """
    given = read_answers(path, questions) if path.exists() else {}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for index, sample_id in enumerate(questions.ids[: max(count, len(given))]):
        answer = given.get(sample_id, "")
        texts = [spreadsheet_text(one) for one in (sample_id, *questions.shown(index), answer)]
        writer.writerow([index + 1, *texts, questions.key])
    write_text(path, out.getvalue())


def read_answers(path: Path, questions: Questions) -> dict[str, str]:
    """The answers in a file, by id: class names or `neither`, those of the first questions without a gap.

    Rows without an answer do not count, nor do images on which both students agree.

    Raises:
        DataError: it cannot be read, a column or value is missing, an id or class is unknown, an image is answered
            twice in different ways, it belongs to another folder, or a question before an answered one is not.
    """
    found: dict[str, str] = {}
    asked = frozenset(questions.ids)
    for line, row in _rows(path):
        key, sample_id, answer = row.get("questions"), row["id"], row["answer"]
        if key:  # a form of gainfinder's
            sample_id, answer = text_of_spreadsheet(sample_id), text_of_spreadsheet(answer)
        if key and key != questions.key:
            raise DataError(
                f"{path}, line {line}: answers questions of another folder (key {key!r}, not {questions.key})"
            )
        if not answer or sample_id in questions.others:
            continue
        if sample_id not in asked:
            raise DataError(
                f"{path}, line {line}: no {questions.noun} has the id {sample_id!r}{suggest(sample_id, questions.ids)}"
                "; expected those of questions.csv"
            )
        if answer != NEITHER and answer not in questions.class_names:
            raise DataError(
                f"{path}, line {line}: {answer!r} is none of the {len(questions.class_names)} classes"
                f"{suggest(answer, questions.class_names)}; expected a class or {NEITHER}"
            )
        if found.setdefault(sample_id, answer) != answer:
            raise DataError(
                f"{path}, line {line}: {sample_id!r} is answered twice, {found[sample_id]!r} and {answer!r}"
            )
    _check_order(path, found, questions)
    _check_no_keys(path, found, questions)
    return found


def _check_no_keys(path: Path, found: Mapping[str, str], questions: Questions) -> None:
    """Refuse the page's keys in place of classes, where classes are numbers, too."""
    shown = {one: questions.shown(index) for index, one in enumerate(questions.ids)}
    named = sum(answer in shown[one] for one, answer in found.items())
    if len(found) >= FEW_ANSWERS and KEYS.issuperset(found.values()) and 2 * named < len(found):
        raise DataError(
            f"{path}: the answers are the keys of the page, 0, 1 and 2, and {len(found) - named} of {len(found)} name "
            f"neither of the two classes shown: expected the class itself, or {NEITHER}"
        )


def outcomes(answers: Mapping[str, str], questions: Questions) -> NDArray[np.int64]:
    """1 where the new student is right, −1 where the old one is, else 0, in the order asked, int64 (T,)."""
    found = []
    for sample_id, (old, new) in zip(questions.ids[: len(answers)], questions.classes, strict=False):
        answer = answers[sample_id]
        found.append(int(answer == questions.class_names[new]) - int(answer == questions.class_names[old]))
    return np.array(found, dtype=np.int64)


def _candidate(metrics: TransferMetrics) -> Candidate:
    guard = metrics.guard
    if guard is None:
        return Candidate(alpha=1.0)
    if guard.kept_initial:
        return Candidate(alpha=1.0 if guard.offered_alpha is None else guard.offered_alpha)
    return Candidate(alpha=guard.alpha, bn_reestimated=guard.bn_reestimated)


def _predictions(folder: RunFolder, name: str) -> Predictions:
    try:
        return Predictions.load(folder.predictions / f"{name}.parquet")
    except DataError as error:
        raise RunFolderError(f"{error}; the folder has been changed since the transfer") from error


def _questions(old: Predictions, new: Predictions, candidate: Candidate, *, reference: str, path: Path) -> Questions:
    classes_N2 = np.stack([old.predicted.numpy(), new.predicted.numpy()], axis=1)
    changed = np.flatnonzero(classes_N2[:, 0] != classes_N2[:, 1])
    if not len(changed):
        raise DataError(f"{path}: no answer changed on {len(old)} {old.noun}s of {reference}: there is nothing to ask")
    ids = [old.ids[i] for i in changed]
    order = drawing_order(ids, seed=SEED)
    asked = tuple(ids[i] for i in order)
    classes = classes_N2[changed[order]]
    key = hashlib.blake2b(repr((asked, classes.tolist())).encode(), digest_size=6)
    names, count = old.class_names, old.logits.shape[1]
    if names is None or len(set(names)) < count:
        names = tuple(map(str, range(count)))
    return Questions(
        ids=asked,
        classes=classes,
        swapped=np.random.default_rng(list(key.digest())).random(len(asked)) < 0.5,
        class_names=names,
        others=frozenset(old.ids) - frozenset(asked),
        candidate=candidate,
        reference=reference,
        noun=old.noun,
        key=key.hexdigest(),
    )


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows with their lines, `label` read as `answer`."""
    try:
        text = read_user_text(path)
        reader = csv.DictReader(io.StringIO(text), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({getattr(error, 'strerror', None) or error})") from error
    columns = [*(reader.fieldnames or ())]
    wanted = "answer" if "answer" in columns else "label"
    if missing := {"id", wanted} - set(columns):
        raise DataError(
            f"{path}: no column {min(missing)!r} in {', '.join(columns) or 'an empty file'}; expected id, answer"
        )
    for line, row in rows:
        if None in row or None in row.values():
            raise DataError(f"{path}, line {line}: expected {len(columns)} values; is the file cut off?")
    return [(line, {**row, "id": row["id"], "answer": row[wanted].strip()}) for line, row in rows]


def _check_order(path: Path, found: Mapping[str, str], questions: Questions) -> None:
    first = questions.ids[: len(found)]
    gap = next((number for number, one in enumerate(first, start=1) if one not in found), None)
    if gap is not None:
        raise DataError(
            f"{path}: question {gap} ({first[gap - 1]}) has no answer, and a later one has: they are to be answered in "
            f"the order of questions.csv, which is random; {NEITHER} is an answer, too"
        )
