"""A few labels, where they count: a student that the guard refused, questions on it, true labels as answers."""

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import gainfinder
from gainfinder.cli import app
from gainfinder.errors import DataError, GainfinderError, RunFolderError, SettingsError
from gainfinder.metrics import Candidate
from gainfinder.predictions import Predictions
from gainfinder.report import write_report
from gainfinder.results import RunFolder, read_questions
from transfers import SHORT, Run, document, same, weights

RUNNER = CliRunner()
SETTINGS: Run = {
    **SHORT, "val": "digits#1/4", "labels": "none", "method": "kl", "limit": 300, "epochs": 2, "lr": 0.05,
}  # fmt: skip
GUARDS = "digits#3/4"
CONTROLS = ("copy", "labels")


@pytest.fixture(scope="module")
def refused(zoo: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A result folder whose guard kept the initial student, though the trained one is much better."""
    folder = tmp_path_factory.mktemp("asking") / "refused"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gainfinder.runs.guard.choose", lambda judgements, level: None)
        patch.setattr("gainfinder.runs.guard.candidates", lambda prepared: (Candidate(alpha=1.0),))
        patch.setattr("gainfinder.api.refresh_report", lambda path: None)
        asked = {**SETTINGS, "guard": True, "guard_data": GUARDS, "control": CONTROLS, "out": folder}
        gainfinder.transfer(zoo["convnext"], zoo["resnet"], "digits#2/4", **asked)
    yield folder


@pytest.fixture
def folder(refused: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(refused, tmp_path / "refused"))


def truth(reference: str = GUARDS) -> dict[str, str]:
    images = gainfinder.load_images(reference)
    assert images.labels is not None
    return {one: str(label) for one, label in zip(images.ids, images.labels.tolist(), strict=True)}


def answers(folder: Path, path: Path, *, count: int | None = None, wrong: bool = False) -> Path:
    """A file of answers by true labels, or by whatever the old student said."""
    questions, labels = read_questions(folder), truth()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "answer", "questions"])
        for one, (old, _) in list(zip(questions.ids, questions.classes, strict=True))[:count]:
            said = questions.class_names[old] if wrong else labels[one]
            writer.writerow([one, said, questions.key])
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_a_refused_student_that_labels_prove_better_is_kept(zoo: dict[str, str], folder: Path, tmp_path: Path) -> None:
    before = document(folder)
    assert before["guard"]["alpha"] == 0 and before["guard"]["offered_alpha"] == 1.0 and before["certificate"] is None
    free = gainfinder.transfer(zoo["convnext"], zoo["resnet"], "digits#2/4", **SETTINGS, control=CONTROLS)
    assert free.metrics.transfer_delta_pp is not None and free.metrics.transfer_delta_pp > 5
    page = gainfinder.ask(folder, labels=120)
    assert page == folder / "ask.html" and page.exists()
    (folder / "student" / "README.md").write_text("# my own card\n")
    certificate = gainfinder.certify(folder, answers(folder, tmp_path / "answers.csv", count=120))
    assert certificate.verdict == "better" and certificate.kept and certificate.evidence_better >= 20
    assert certificate.decided_after is not None and certificate.decided_after <= 120 == certificate.answers

    assert same(weights(folder), weights(free)) and not (folder / "candidate").exists()
    assert (folder / "student" / "README.md").read_text() == "# my own card\n", "what somebody wrote is not lost"
    after = document(folder)
    same_as_free = ("accuracy_after", "transfer_delta_pp", "transfer_delta_ci_pp", "knowledge_gain", "agreement",
                    "headroom_captured", "control", "control_labels")  # fmt: skip
    for name in same_as_free:
        assert after[name] == free.metrics.to_dict()[name], name
    assert (after["guard"]["alpha"], after["guard"]["offered_alpha"]) == (1.0, None)
    assert after["certificate"] == certificate.to_dict() and RunFolder(folder).read_result().kept_by_labels
    assert document(folder, "certificate.json")["given"] == {
        row["id"]: row["answer"] for row in _rows(tmp_path / "answers.csv")
    }
    write_report(folder)  # measures, predictions and student fit each other
    assert "Yes, by labels." in (folder / "report.html").read_text()
    again = gainfinder.transfer(
        zoo["convnext"],
        zoo["resnet"],
        "digits#2/4",
        **{**SETTINGS, "guard": True, "guard_data": GUARDS, "control": CONTROLS, "out": folder},
    )
    assert again.metrics.certificate == certificate and again.metrics.accuracy_after == free.metrics.accuracy_after
    # the true change on the images asked about lies in the interval
    questions, labels = read_questions(folder), truth()
    right = [
        (labels[one] == questions.class_names[new]) - (labels[one] == questions.class_names[old])
        for one, (old, new) in zip(questions.ids, questions.classes, strict=True)
    ]
    assert certificate.delta_ci_pp[0] <= 100 * sum(right) / questions.images <= certificate.delta_ci_pp[1]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_killed_while_it_is_kept_the_same_call_completes_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = answers(folder, tmp_path / "answers.csv", count=120)
    whole = Path(shutil.copytree(folder, tmp_path / "whole"))
    gainfinder.certify(whole, path)

    def killed(self: RunFolder, metrics: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_result", killed)
        with pytest.raises(KeyboardInterrupt):
            gainfinder.certify(folder, path)
    assert document(folder)["certificate"] is None
    gainfinder.certify(folder, path)
    assert contents(folder) == contents(whole)


def test_a_student_that_labels_prove_worse_is_not_kept(folder: Path, tmp_path: Path) -> None:
    initial = weights(folder)
    certificate = gainfinder.certify(folder, answers(folder, tmp_path / "answers.csv", count=120, wrong=True))
    assert certificate.verdict == "not better" and not certificate.kept and certificate.delta_ci_pp[1] < 0
    assert same(weights(folder), initial) and document(folder)["guard"]["offered_alpha"] == 1.0
    few = gainfinder.certify(folder, answers(folder, tmp_path / "answers.csv", count=3))
    assert few.verdict == "not yet known" and few.decided_after is None
    assert gainfinder.certify(folder, answers(folder, tmp_path / "answers.csv", count=120)).kept


def test_the_keys_of_the_page_are_no_classes(folder: Path, tmp_path: Path) -> None:
    """Classes that are digits would take them, and a wrong student might be kept."""
    questions, path = read_questions(folder), tmp_path / "keys.csv"
    keys = [("1", "2", "0")[number % 3] for number in range(12)]
    rows = [f"{one},{key}" for one, key in zip(questions.ids, keys, strict=False)]
    path.write_text("\n".join(["id,answer", *rows]))
    before = contents(folder)
    with pytest.raises(DataError, match=r"the keys of the page, 0, 1 and 2, and \d+ of 12 name neither"):
        gainfinder.certify(folder, path)
    assert contents(folder) == before


def test_the_form_is_blind_and_keeps_its_answers(folder: Path) -> None:
    gainfinder.ask(folder, labels=20)
    questions, form = read_questions(folder), folder / "questions.csv"
    rows = _rows(form)
    assert [row["id"] for row in rows] == [*questions.ids[:20]] and [row["number"] for row in rows] == [
        str(number) for number in range(1, 21)
    ]
    old = {one: questions.class_names[first] for one, (first, _) in zip(questions.ids, questions.classes, strict=True)}
    first_is_old = [row["first"] == old[row["id"]] for row in rows]
    assert 3 < sum(first_is_old) < 17, "which is which changes from image to image"
    assert not re.search("old|new|student|teacher", form.read_text().replace(str(folder), ""))

    lines = form.read_text().splitlines()
    labels = truth()
    filled = [",".join([*line.split(",")[:4], labels[line.split(",")[1]], line.split(",")[5]]) for line in lines[1:6]]
    form.write_text("\n".join([lines[0], *filled, *lines[6:]]) + "\n")
    gainfinder.ask(folder, labels=30)
    again = _rows(form)
    assert [row["answer"] for row in again] == [labels[row["id"]] for row in rows[:5]] + [""] * 25
    assert gainfinder.certify(folder, form).answers == 5


def test_labels_by_class_name_do(folder: Path, tmp_path: Path) -> None:
    """Labels of all guard images, as somebody else made them: those on which both agree say nothing."""
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["id,label", *(f"{one},{label}" for one, label in truth().items())]))
    certificate = gainfinder.certify(folder, path)
    assert certificate.answers == certificate.changed and certificate.verdict == "better"


Change = Callable[[list[str]], list[str]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [lines[0], *[line[:-12] + "0123456789ab" for line in lines[1:]]], "of another folder"),
        (lambda lines: [*lines, "digits/9999,3,"], "no image has the id 'digits/9999'"),
        (lambda lines: [*lines[:-1], ",".join([lines[-1].split(",")[0], "3o", ""])], "'3o' is none of the 10 classes"),
        (lambda lines: [*lines[:-1], lines[-1].split(",")[0]], "is the file cut off"),
        (lambda lines: [*lines, lines[1].replace(f",{lines[1].split(',')[1]},", ",neither,")], "is answered twice"),
        (lambda lines: [lines[0], *lines[2:]], "question 1 .* has no answer, and a later one has"),
        (lambda lines: ["id,class,questions", *lines[1:]], "no column 'label'"),
        (lambda lines: [], "an empty file"),
        (lambda lines: lines[:1], "holds no answer yet"),
    ],
)
def test_wrong_answers_are_one_line_and_change_nothing(
    folder: Path, tmp_path: Path, change: Change, message: str
) -> None:
    path = answers(folder, tmp_path / "answers.csv", count=5)
    path.write_text("\n".join(change(path.read_text().splitlines())))
    there = contents(folder)
    result = RUNNER.invoke(app, ["ask", str(folder), "--answers", str(path)])
    assert result.exit_code == 2 and result.stdout == ""
    assert re.search(message, result.stderr) and result.stderr.count("\n") == 1, result.stderr
    assert contents(folder) == there


def test_other_mistakes(folder: Path, tmp_path: Path, zoo: dict[str, str]) -> None:
    for words, message in (
        ([str(tmp_path / "none")], "there is no such folder; expected the result folder of a transfer"),
        ([str(tmp_path)], "holds no finished transfer"),
        ([str(folder), "--answers", str(tmp_path / "none.csv")], "cannot be read as CSV (it does not exist)"),
        ([str(folder), "--answers", "a.csv", "--labels", "5"], "--answers is given together with --labels"),
        ([str(folder), "--data", "digits#1/4"], "has no image 'digits/"),
        ([str(folder), "--labels", "0"], "--labels"),
    ):
        result = RUNNER.invoke(app, ["ask", *words])
        assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.stderr
    with pytest.raises(SettingsError, match="`labels` is 0"):
        gainfinder.ask(folder, labels=0)
    labelled = tmp_path / "labelled"
    gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", **{**SETTINGS, "labels": "use", "out": labelled})
    with pytest.raises(DataError, match="the images carry labels, which have decided"):
        gainfinder.ask(labelled)


def test_without_a_guard_it_asks_on_the_images_measured_on(zoo: dict[str, str], run_folder: Path) -> None:
    bare = gainfinder.load_images("digits#1/4", labels=False)
    gainfinder.transfer(zoo["convnext"], zoo["resnet"], "digits#2/4", **{**SETTINGS, "val": bare, "out": run_folder})
    gainfinder.ask(run_folder, labels=5)
    path = run_folder / "labels.csv"
    path.write_text("\n".join(["id,label", *(f"{one},{label}" for one, label in truth("digits#1/4").items())]))
    certificate = gainfinder.certify(run_folder, path)
    after = Predictions.load(run_folder / "predictions" / "after.parquet")
    assert certificate.images == len(after) and certificate.kept and certificate.verdict == "better"


def test_a_transfer_asks_when_it_is_told_to(zoo: dict[str, str], run_folder: Path) -> None:
    words = ["transfer", "--student", zoo["convnext"], "--teacher", zoo["resnet"], "--data", "digits#2/4",
             "--val", "digits#1/4", "--guard-data", "digits#3/4", "--labels", "none", "--epochs", "1", "--limit", "64",
             "--preset", "gentle", "--method", "kl-dp-u",
             "--workers", "0", "--device", "cpu", "--out", str(run_folder)]  # fmt: skip
    result = RUNNER.invoke(app, [*words, "--ask", "7"])
    assert result.exit_code == 0, result.stderr
    assert f"gainfinder ask {run_folder} --answers answers.csv" in result.stdout
    assert 0 < len((run_folder / "questions.csv").read_text().splitlines()) - 1 <= 7
    labelled = [{"none": "use", "kl-dp-u": "kl-dp"}.get(word, word) for word in words[:-1]] + [
        str(run_folder) + "-2",
        "--ask",
        "7",
    ]
    result = RUNNER.invoke(app, labelled)
    assert result.exit_code == 0 and "nothing is asked" in result.stdout


def test_steps_of_a_sequence_are_not_asked_about(zoo: dict[str, str], run_folder: Path) -> None:
    bare = gainfinder.load_images("digits#1/4", labels=False)
    asked = {**SETTINGS, "val": bare, "epochs": 1, "limit": 64, "out": run_folder, "guard": True, "guard_data": GUARDS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gainfinder.runs.guard.choose", lambda judgements, level: judgements[-1].candidate)
        gainfinder.transfer(zoo["convnext"], [zoo["resnet"], zoo["vit"]], "digits#2/4", **asked)
    assert not list(run_folder.rglob("candidate"))
    with pytest.raises(RunFolderError, match="is a step of"):
        gainfinder.ask(run_folder / "steps" / "1")
    gainfinder.ask(run_folder, labels=3, data=bare)


@pytest.mark.parametrize("student", ["convnext", "resnet"])
def test_at_most_walks_the_line_only_so_far(zoo: dict[str, str], run_folder: Path, student: str) -> None:
    """Whatever the rule would keep: here the furthest that it is shown and that is not vetoed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "gainfinder.runs.guard.choose",
            lambda judgements, level: max(
                (one.candidate for one in judgements if one.veto != "more answers change than is allowed"),
                key=lambda one: one.alpha, default=None,
            ),
        )  # fmt: skip
        asked = {**SETTINGS, "guard": True, "guard_data": GUARDS, "at_most": "5%", "out": run_folder}
        result = gainfinder.transfer(zoo[student], zoo["vit"], "digits#2/4", **asked)
    guard = document(run_folder)["guard"]
    assert guard["at_most"] == 0.05 == json.loads((run_folder / "config.json").read_text())["settings"]["at_most"]
    line = [point for point in guard["points"] if not point["bn_reestimated"]]
    *allowed, last = line
    assert [point["alpha"] for point in line] == [1 / 32, 1 / 16, 1 / 8, 0.25, 0.5, 0.75, 1.0][: len(line)]
    assert all(point["changed"] <= point["most_changed"] <= 0.05 and not point["veto"] for point in allowed)
    assert last["most_changed"] > 0.05 and last["veto"] == "more answers change than is allowed"
    assert guard["alpha"] == (allowed[-1]["alpha"] if allowed else 0.0) < 1
    kept = gainfinder.predict(result.student, GUARDS, device="cpu", workers=0)
    before = Predictions.load(run_folder / "predictions" / "probe-before.parquet")
    assert (kept.predicted != before.predicted).float().mean() <= 0.05
    write_report(run_folder)
    assert ("How much worse can it be?" in (run_folder / "report.html").read_text()) == (guard["alpha"] > 0)


def test_a_limit_that_cannot_be_shown_is_refused(zoo: dict[str, str], run_folder: Path) -> None:
    asked = {
        **SETTINGS,
        "guard": True,
        "guard_data": gainfinder.load_images(GUARDS).select(range(100)),
        "at_most": 0.01,
    }
    with pytest.raises(
        SettingsError, match="100 guard images cannot show so little even where none changes: expected 368"
    ):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=run_folder, **asked)
    with pytest.raises(SettingsError, match="`at_most` is given together with `guard=False`"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=run_folder, **{**SETTINGS, "at_most": 0.5})
    assert not run_folder.exists()
    with pytest.raises(
        GainfinderError, match="at-most is 'few': expected a share above 0 and below 1, or a percentage"
    ):
        gainfinder.TransferConfig(at_most="few")
