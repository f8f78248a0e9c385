"""Rankings of teachers from the command line and in Python: with labels and without, of models and of predictions."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import gainfinder
from gainfinder.cli import app
from gainfinder.errors import ModelError, RunFolderError, SettingsError
from gainfinder.metrics import Ranking
from gainfinder.metrics.rule_table import TABLES

RUNNER = CliRunner()
DATA = "digits#1/4"


def command(*arguments: str) -> Result:
    return RUNNER.invoke(app, ["rank", *arguments])


def ranked(student: str, models: Any, data: Any = DATA, **asked: Any) -> Ranking:
    return gainfinder.rank(student, models, data, device="cpu", workers=0, **asked)


def test_a_ranking_from_the_command_line(zoo: dict[str, str], tmp_path: Path) -> None:
    out, gone = tmp_path / "zoo", f"local-dir:{tmp_path / 'gone'}"
    arguments = [f"--model={one}" for one in (gone, *zoo.values())]
    arguments += ["--data", DATA, "--device", "cpu", "--workers", "0", "--out", str(out), "--choose", "2"]
    done = command("--student", zoo["convnext"], *arguments)
    assert done.exit_code == 0, done.stderr
    assert "Left out" in done.stdout and "does not exist" in done.stdout
    found = ranked(zoo["convnext"], [zoo["vit"], zoo["resnet"]])
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Teachers for convnext (accuracy 0.")
    for line, teacher in zip(lines[2:4], found.teachers, strict=True):
        name = teacher.teacher.rpartition("/")[2]
        assert line.split()[:2] == [name, line.split()[1]] and f"{teacher.features.delta_acc_pp:+.2f}" in line
    assert "Best together, each the one that adds most" in done.stdout
    assert lines[-2].startswith(f"Learn from {found.best.teacher}: expect") and lines[-1].startswith("By the most acc")
    kept = json.loads((out / "ranking.json").read_text())
    assert [one["teacher"] for one in kept["teachers"]] == [one.teacher for one in found.teachers]
    assert kept["data"] == DATA and kept["advice"] == lines[-2] and kept["failed"][0]["model"] == gone
    assert kept["parameters"] == sum(one.numel() for one in gainfinder.load_model(zoo["convnext"]).module.parameters())


def test_a_scan_and_a_ranking_share_a_folder(zoo: dict[str, str], tmp_path: Path) -> None:
    runs: list[str] = []

    def on_model(name: str, images: int) -> Any:
        runs.append(name)
        return lambda count: None

    first = ranked(zoo["vit"], [zoo["resnet"]], out=tmp_path, on_model=on_model)
    assert runs == [zoo["vit"], zoo["resnet"]]
    gainfinder.scan(list(zoo.values()), DATA, device="cpu", workers=0, out=tmp_path, on_model=on_model)
    assert runs[2:] == [zoo["convnext"]]
    again = ranked(zoo["resnet"], list(zoo.values()), out=tmp_path, on_model=on_model)
    assert len(runs) == 3 and len(again.teachers) == 2
    assert ranked(zoo["vit"], [zoo["resnet"]], out=tmp_path).teachers == first.teachers
    assert (tmp_path / "scan.json").exists()
    assert len(list((tmp_path / "predictions").iterdir())) == 3
    with pytest.raises(RunFolderError, match=r"holds a scan on digits#1/4, not digits#2/4"):
        ranked(zoo["vit"], [zoo["resnet"]], "digits#2/4", out=tmp_path)
    other = tmp_path / "other"
    ranked(zoo["vit"], [zoo["resnet"]], out=other)
    with pytest.raises(RunFolderError, match=r"holds a ranking on digits#1/4, not digits#2/4"):
        gainfinder.scan(list(zoo.values()), "digits#2/4", device="cpu", workers=0, out=other)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="holds files but no scan"):
        ranked(zoo["vit"], [zoo["resnet"]], out=tmp_path / "mine")


def test_predictions_are_enough(zoo: dict[str, str], tmp_path: Path) -> None:
    whole = ranked(zoo["vit"], list(zoo.values()), out=tmp_path, choose=2)
    found = gainfinder.rank(zoo["vit"], tmp_path / "predictions", choose=2)
    assert [one.teacher for one in found.teachers] == [one.teacher for one in whole.teachers]
    assert found.chosen == whole.chosen and found.parameters is None
    for ours, theirs in zip(found.teachers, whole.teachers, strict=True):
        assert replace(theirs.features, log10_parameters=None) == ours.features
    done = command("--student", zoo["vit"], "--predictions", str(tmp_path / "predictions"), "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["basis"] == found.basis
    with pytest.raises(SettingsError, match="takes the student by name"):
        gainfinder.rank(gainfinder.load_model(zoo["vit"]), tmp_path / "predictions")


def test_without_labels(zoo: dict[str, str], tmp_path: Path) -> None:
    labelled = gainfinder.load_images(DATA)
    bare = replace(labelled, labels=None, num_classes=None)
    found, known = (ranked(zoo["convnext"], list(zoo.values()), data) for data in (bare, labelled))
    assert not found.labelled and found.score == next(one for one in TABLES if not one.labelled).score(found.rule.name)
    assert {one.teacher for one in found.teachers} == {one.teacher for one in known.teachers}
    estimates = [one.features.teacher_accuracy for one in found.teachers]
    assert found.rule.name == "accuracy" and estimates == sorted(estimates, reverse=True)
    for one in found.teachers:
        its = next(other for other in known.teachers if other.teacher == one.teacher)
        assert one.features.agreement == its.features.agreement
        assert one.features.teacher_share == its.features.teacher_share
        assert one.features.teacher_accuracy != its.features.teacher_accuracy
    folder = tmp_path / "bare"
    folder.mkdir()
    for reference in zoo.values():
        made = gainfinder.predict(reference, bare, device="cpu", workers=0)
        made.write(folder / f"{Path(reference).name}.parquet")
    done = command("--student", zoo["convnext"], "--predictions", str(folder))
    assert done.exit_code == 0 and "without labels; all is estimated by the models together" in done.stdout


def test_modules_are_ranked_as_they_are(zoo: dict[str, str]) -> None:
    student, teacher = (gainfinder.load_model(zoo[name]) for name in ("convnext", "vit"))
    found = ranked(student, [student, teacher])  # type: ignore[arg-type]
    assert found.student == zoo["convnext"] and [one.teacher for one in found.teachers] == [zoo["vit"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", DATA], "a ranking needs a model to learn from: name one beside the student"),
        (["--model", "VIT", "--data", DATA], "a ranking needs a model to learn from"),
        (["--model", "RESNET"], "a ranking needs images: give --data beside the models, or --predictions alone"),
        (["--predictions", "zoo", "--data", DATA], "--predictions are compared by themselves"),
        (["--model", "RESNET", "--model", "RESNET", "--data", DATA], "is given twice"),
        (["--model", "local-dir:gone", "--data", DATA], "none of the 1 models to learn from could be run"),
        (["--model", "RESNET", "--data", DATA, "--by", "capacity"], "the rule 'capacity' is not fitted"),
        (["--model", "RESNET", "--data", DATA, "--by", "luck"], "'luck' is not one of 'accuracy', 'headroom'"),
    ],
)
def test_mistakes_are_one_line(zoo: dict[str, str], arguments: list[str], message: str) -> None:
    given = [zoo.get(one.lower(), one) for one in arguments]
    done = command("--student", zoo["vit"], *given)
    assert done.exit_code == 2 and message in " ".join(done.stderr.replace("│", " ").split())


def test_a_student_that_cannot_be_run_ends_it(zoo: dict[str, str]) -> None:
    with pytest.raises(ModelError, match=r"the student could not be run: .*gone"):
        ranked("local-dir:gone", [zoo["vit"]])
