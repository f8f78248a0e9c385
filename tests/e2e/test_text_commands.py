"""Commands on classifiers of texts: what they say is about texts."""

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import gainfinder
from gainfinder.cli import app
from gainfinder.errors import DataError
from gainfinder.results import read_scan
from texts import text_file

OURS = re.compile(r"\bimages?\b|\bdecod|\bpixels?\b|\baugment|\bcrop", flags=re.IGNORECASE)
"""Words of what is said about images."""
SHORT = ["--preset", "gentle", "--epochs", "1", "--workers", "0", "--device", "cpu"]


def said(*arguments: str, code: int = 0) -> str:
    """All that a command says, which is nothing about images."""
    found: Result = CliRunner().invoke(app, [*arguments])
    assert found.exit_code == code, (found.stdout, found.stderr, found.exception)
    text = found.stdout + found.stderr
    assert not OURS.search(text), text
    return text


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Texts to learn from and labelled ones to measure on."""
    return (
        str(text_file(tmp_path / "train.csv", 40, labels=False)),
        str(text_file(tmp_path / "val.csv", 60, first=500)),
    )


def test_a_dry_run_and_a_transfer(text_zoo: dict[str, str], files: tuple[str, str], tmp_path: Path) -> None:
    models = ["transfer", "--student", text_zoo["weak"], "--teacher", text_zoo["good"]]
    asked = [*models, "--data", files[0], "--val", files[1], "--out", str(tmp_path / "out"), *SHORT]
    plan = said(*asked, "--dry-run")
    assert "train.csv, 36 texts, no labels read" in plan and "texts each" in plan
    assert "\nviews: texts as they are, up to 24 tokens\n" in plan and "4 texts of --data are set apart" in plan
    done = said(*asked)
    assert "measured on 60 texts" in done and "of all texts" in done and "(4 texts, by" in done
    document = json.loads((tmp_path / "out" / "config.json").read_text())
    assert [document[role]["noun"] for role in ("data", "val", "guard")] == ["text"] * 3
    assert "for 60 texts, bit for bit" in said("repeat", str(tmp_path / "out"), "--out", str(tmp_path / "again"))
    assert "(60)" in said("list", str(tmp_path))


def test_commands_on_models_speak_of_texts(text_zoo: dict[str, str], files: tuple[str, str], tmp_path: Path) -> None:
    weak, good = text_zoo["weak"], text_zoo["good"]
    for name, model in text_zoo.items():
        kept = tmp_path / "kept" / f"{name}.parquet"
        kept.parent.mkdir(exist_ok=True)
        assert "for 60 texts, accuracy" in said("predict", "--model", model, "--data", files[1], "--out", str(kept))
    both = ["--model", weak, "--model", good, "--data", files[1]]
    scan = said("scan", *both, "--out", str(tmp_path / "scan"))
    assert "Accuracy on 60 texts" in scan and "share of all texts" in scan
    assert read_scan(tmp_path / "scan")["noun"] == "text"
    assert "Accuracy on 60 texts" in said("scan", "--predictions", str(tmp_path / "kept")), "the files say it"
    assert "on 60 texts" in said("rank", "--student", weak, "--model", good, "--data", files[1])
    head = said("fit-head", "--model", weak, "--data", files[1], "--weight-decay", "1", "--out", str(tmp_path / "head"))
    assert "fitted to 54 texts" in head and "accuracy on 6 texts" in head
    timed = said("doctor", "--student", weak, "--teacher", good, "--data", files[0], "--device", "cpu")
    assert "A batch of 36 texts" in timed and "texts/s" in timed and "tokenizing" in timed


def test_questions_are_answered_and_certify(text_results: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(text_results["bare"], tmp_path / "run"))
    assert "questions, to answer" in said("ask", str(folder), "--labels", "10")
    form = (folder / "questions.csv").read_text().splitlines()
    (tmp_path / "answers.csv").write_text(
        "\n".join(["id,answer", *(f"{row.split(',')[1]},trees" for row in form[1:6])])
    )
    verdict = said("ask", str(folder), "--answers", str(tmp_path / "answers.csv"))
    assert "Of 5 texts whose answer changed" in verdict
    (tmp_path / "answers.csv").write_text("id,answer\nrow-nowhere,trees\n")
    assert "no text has the id 'row-nowhere'" in said(
        "ask", str(folder), "--answers", str(tmp_path / "answers.csv"), code=2
    )
    with pytest.raises(DataError, match=r"has no text 'row-.*', which the transfer had: give the texts that"):
        gainfinder.ask(folder, data=str(text_file(tmp_path / "other.csv", 2)))


def test_no_file_is_exported(text_results: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(text_results["transfer"], tmp_path / "run"))
    refused = CliRunner().invoke(app, ["export", str(folder), "--onnx", str(tmp_path / "student.onnx")])
    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
    assert "classifiers of texts are not exported" in refused.stderr and not (tmp_path / "student.onnx").exists()


def test_mistakes_are_told_in_a_line(text_zoo: dict[str, str], files: tuple[str, str], tmp_path: Path) -> None:
    models = ["transfer", "--student", text_zoo["weak"], "--teacher", text_zoo["good"], "--data", files[0]]
    for more, wanted in (
        (["--val", "digits"], "digits holds images, and"),
        (["--labels", "use", "--method", "kl-dp"], "the transfer texts carry none"),
        (["--guard-data", files[0], "--at-most", "0.0001"], "guard texts cannot show so little"),
        (["--val", f"{files[1]}#1/9000"], "part 1/9000 of 60 text(s) is empty"),
    ):
        found = CliRunner().invoke(app, [*models, "--out", str(tmp_path / "out"), "--dry-run", *more])
        assert found.exit_code == 2 and wanted in found.stderr and "Traceback" not in found.stderr, found.stderr
