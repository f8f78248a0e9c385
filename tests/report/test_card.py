"""Model cards of real result folders, read by the hub's own parser."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_eval_result

from gainfinder.metrics import wilson_interval
from gainfinder.predictions import Predictions
from gainfinder.report import is_own_card, refresh_report
from gainfinder.report.card import model_card, write_card
from gainfinder.report.records import TransferRecord, read_record
from gainfinder.results import Certificate
from transfers import document

from .test_injection import BAD

TRANSFERS = ("transfer", "guarded", "sequence", "soup", "unlabelled", "control")


def read(folder: Path) -> TransferRecord:
    record = read_record(folder)
    assert isinstance(record, TransferRecord)
    return record


def card_of(folder: Path, **options: Any) -> ModelCard:
    """The card as it would be written now, as the hub reads it."""
    return ModelCard(model_card(read(folder), **options))


def body(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def copied(results: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A result folder of a kind, to change."""
    return lambda kind: Path(shutil.copytree(results[kind], tmp_path / kind))


def changed(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    found = document(folder, name)
    change(found)
    (folder / name).write_text(json.dumps(found))


@pytest.mark.parametrize("kind", TRANSFERS)
def test_every_student_has_a_card_that_the_hub_can_read(results: dict[str, Path], kind: str) -> None:
    for folder in (results[kind], *sorted((results[kind] / "steps").glob("[0-9]"))):
        card = ModelCard.load(folder / "student" / "README.md")
        assert is_own_card(folder / "student" / "README.md")
        assert card.data.library_name == "timm" and card.data.pipeline_tag == "image-classification"
        assert "gainfinder" in card.data.tags
        assert card.data.get("license") is None and card.data.get("base_model") is None, "nobody said so"
        assert re.search("# What convnext .*learned from", card.text) and "create_model" in card.text
        assert "nan" not in body(card.text).lower() and "None" not in card.text


def test_the_index_has_the_accuracy_of_the_result(results: dict[str, Path]) -> None:
    told, config = document(results["transfer"]), document(results["transfer"], "config.json")
    card = ModelCard.load(results["transfer"] / "student" / "README.md")
    (result,) = card.data.eval_results
    assert (result.task_type, result.metric_type) == ("image-classification", "accuracy")
    assert result.metric_value == told["accuracy_after"]
    low, high = wilson_interval(round(told["accuracy_after"] * told["samples"]), told["samples"])
    assert result.metric_args == {"interval_95": [low, high], "accuracy_before": told["accuracy_before"]}
    assert result.dataset_name == "digits#1/4"
    assert result.dataset_args == {"images": told["samples"], "digest": config["val"]["digest"]}
    written = metadata_eval_result(
        model_pretty_name=card.data.model_name,
        task_pretty_name="Image Classification",
        task_id="image-classification",
        metrics_pretty_name="Accuracy",
        metrics_id="accuracy",
        metrics_value=told["accuracy_after"],
        dataset_pretty_name="digits#1/4",
        dataset_id=result.dataset_type,
    )
    (ours,), (theirs,) = card.data.to_dict()["model-index"], written["model-index"]
    for part in ("task", "dataset"):
        assert theirs["results"][0][part].items() <= ours["results"][0][part].items()
    low, high = told["transfer_delta_ci_pp"]
    assert f"{told['transfer_delta_pp']:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}" in body(card.text)
    assert f"{told['knowledge_gain']:.2%} of all images" in card.text
    for digest in (config["data"]["digest"], config["val"]["digest"], config["teachers"][0]["digest"]):
        assert digest in card.text


def test_teachers_stand_by_what_they_taught(results: dict[str, Path]) -> None:
    record = read(results["sequence"])
    text = model_card(record)
    assert record.before.target is not None
    for name, teacher in zip(("vit", "resnet"), record.teachers, strict=True):
        assert teacher is not None
        target = record.before.target
        positive = (teacher.predicted == target) & (record.before.predicted != target)
        arrived = int((positive & (record.after.predicted == target)).sum())
        assert re.search(
            rf"^\| `{name}` \| {teacher.accuracy:.2%} \| {int(positive.sum())} \| {arrived} \|", text, re.M
        )


def test_samples_that_were_set_apart_are_told(copied: Callable[[str], Path]) -> None:
    folder = copied("guarded")
    changed(folder, "config.json", lambda found: found["guard"].update(held_out=True))
    assert "(set apart from the transfer images) |" in model_card(read(folder))


def test_without_labels_there_is_no_accuracy(results: dict[str, Path]) -> None:
    card = ModelCard.load(results["unlabelled"] / "student" / "README.md")
    assert "model-index" not in card.data.to_dict() and card.data.eval_results is None
    told = document(results["unlabelled"])
    assert f"{1 - told['agreement']:.2%} of {told['samples']} answers changed" in card.text


def test_what_guard_and_labels_certify(copied: Callable[[str], Path]) -> None:
    folder = copied("guarded")
    found = document(folder)["guard"]
    text = body(card_of(folder).text)
    assert f"On {found['images']} guard images" in text
    certified = found["certificate"] or "the guard kept the student that was given"
    assert certified.replace("_", r"\_") in text
    answers = Certificate(
        verdict="better", kept=True, alpha=1.0, bn_reestimated=False, answers=20, decided_after=12, right_new=15,
        right_old=3, evidence_better=40.0, evidence_not_better=0.1, delta_pp=1.0, delta_ci_pp=(0.5, 2.0), changed=30,
        images=400, level=0.05, seed=0, reference="/home/ann/photos",
    )  # fmt: skip
    changed(folder, "result.json", lambda one: one.update(certificate=answers.to_dict()))
    text = body(card_of(folder).text)
    assert (
        "The new student is better than the one that you gave: known after 12 answers, with an error of 5% at" in text
    )
    assert "/home/ann" not in text
    assert "Nothing: there was no guard" in card_of(copied("transfer")).text


def test_licences_and_the_base_are_those_that_are_known(copied: Callable[[str], Path]) -> None:
    folder = copied("transfer")
    told = document(folder)
    origins = {
        told["student"]: {"repository": "lab/student", "license": "mit", "said_by": "card"},
        told["teachers"][0]: {"license": "cc-by-nc-4.0", "said_by": "configuration"},
    }
    changed(folder, "config.json", lambda one: one["environment"].update(origins=origins))
    card = card_of(folder)
    assert (card.data.get("license"), card.data.get("base_model")) == ("mit", "lab/student")
    assert "`lab/student` | mit, by its model card" in card.text
    assert "| – | cc-by-nc-4.0, by the configuration beside its weights |" in card.text
    origins[told["student"]]["said_by"] = "configuration"
    changed(folder, "config.json", lambda one: one["environment"].update(origins=origins))
    assert card_of(folder).data.get("license") is None, "it may be that of the weights that training began with"


def test_no_path_and_no_secret_is_told(copied: Callable[[str], Path]) -> None:
    folder = copied("sequence")
    own = str(folder.parents[1])
    home = "/home/ann/secret-project"
    old = document(folder)["teachers"]
    twins = [f"local-dir:{home}/a/vit", f"local-dir:{home}/b/vit"]
    for path in [folder, *folder.glob("steps/*")]:
        for name in ("result.json", "config.json"):
            text = (path / name).read_text()
            for one, other in zip(old, twins, strict=True):
                text = text.replace(json.dumps(one)[1:-1], other)
            (path / name).write_text(text)

    def move(config: dict[str, Any]) -> None:
        config["data"]["reference"] = f"{home}/photos/#1/2"
        config["environment"]["command"] = (
            f"gainfinder transfer --student local-dir:{home}/net --teacher={twins[0]} --data '{home}/photos/#1/2' "
            "--mirror s3://key:password@bucket/x --token hf_abcdefghijklmnopqrst"
        )

    changed(folder, "config.json", move)
    text = model_card(read(folder))
    for secret in (home, "secret-project", own, str(Path.home()) + "/", "password", "hf_abc"):
        assert secret not in text
    assert "`local-dir:vit`" in text and "`local-dir:vit (2)`" in text, "different models stay different"
    assert "--data 'photos#1/2'" in text and "put your own in their place" in text


@pytest.mark.parametrize("bad", [*BAD, "- a: [b", "---", "| x | `y` |", "a: b # c", "Ω\u202eevil"])
def test_names_are_shown_as_they_are(copied: Callable[[str], Path], bad: str) -> None:
    folder = copied("guarded")
    for path in (folder / "predictions").glob("*.parquet"):
        old = Predictions.load(path)
        replace(old, class_names=tuple(f"{bad}{i}" for i in range(old.num_classes))).write(path)
    changed(folder, "result.json", lambda one: one.update(student=bad, teachers=[bad]))

    def rename(config: dict[str, Any]) -> None:
        config["val"]["reference"] = config["data"]["reference"] = bad
        config["student"]["reference"] = config["teachers"][0]["reference"] = bad
        config["environment"]["command"] = bad

    changed(folder, "config.json", rename)
    card = card_of(folder)
    assert card.data["eval_results"][0].metric_value == document(folder)["accuracy_after"]
    outside = re.sub(r"(?s)(`+).*?\1", "", card.text.partition("<!-- gainfinder wrote")[0])
    assert not re.search(r"<[a-z/!]", outside, re.IGNORECASE), "no HTML outside code"
    for line in card.text.splitlines():
        if line.startswith("| "):
            cells = re.split(r"(?<!\\)\|", line)
            assert len(cells) in (6, 5, 7, 8, 9), line


def test_very_many_classes_are_not_all_listed(copied: Callable[[str], Path]) -> None:
    folder = copied("unlabelled")
    for path in (folder / "predictions").glob("*.parquet"):
        old = Predictions.load(path)
        wide = old.logits.repeat(1, 200)
        replace(old, logits=wide, class_names=tuple(f"class {i}" for i in range(2000))).write(path)
    text = model_card(read(folder))
    assert "Its 2,000 classes, in the order of the logits, are 0: class 0, 1: class 1" in text
    assert "19: class 19, …; `label_names` in `config.json` has them all" in text and "class 20" not in text


@pytest.mark.parametrize(
    ("reference", "library", "lines"),
    [
        ("hf:better/student", "transformers", ["AutoModelForImageClassification", "No image processor goes with it"]),
        ("file:/home/ann/nets.py:small@/home/ann/better/student/model.safetensors", "pytorch",
         ["load_state_dict", "`file:nets.py:small@model.safetensors`"]),
        ("torchvision:resnet18/DEFAULT@better/student/model.safetensors", "pytorch",
         ["torchvision.models.get_model('resnet18', num_classes=10)"]),
        (None, "pytorch", ["built by your own code"]),
    ],
)  # fmt: skip
def test_students_of_every_source_have_one(
    copied: Callable[[str], Path], reference: str | None, library: str, lines: list[str]
) -> None:
    folder = copied("transfer")
    changed(folder, "result.json", lambda one: one.update(student_reference=reference))
    card = card_of(folder)
    assert card.data.get("library_name") == library
    for line in lines:
        assert line in card.text
    assert "/home/ann" not in card.text


def test_a_published_one_names_its_repository(results: dict[str, Path]) -> None:
    text = card_of(results["transfer"], repository="ann/better").text
    assert 'create_model("hf-hub:ann/better", pretrained=True)' in text and "`hf-hub:ann/better`" in text
    assert "FOLDER" not in text


def test_a_card_that_was_changed_by_hand_stays(copied: Callable[[str], Path], caplog: pytest.LogCaptureFixture) -> None:
    folder = copied("transfer")
    path = folder / "student" / "README.md"
    before = path.read_text()
    path.write_text(before.replace("What convnext learned", "What my net learned"))
    mine = path.read_text()
    write_card(read(folder))
    assert path.read_text() == mine and "stays as it is" in caplog.text
    path.write_text("# my own\n")
    write_card(read(folder))
    assert path.read_text() == "# my own\n"
    path.unlink()
    write_card(read(folder))
    assert path.read_text() == before


def test_a_result_without_a_card_gets_one(copied: Callable[[str], Path]) -> None:
    folder = copied("unlabelled")  # which has no figures to draw
    path, report = folder / "student" / "README.md", folder / "report.html"
    before = path.read_bytes()
    refresh_report(folder)
    made = report.stat().st_mtime_ns
    assert path.read_bytes() == before, "nothing is newer than the report"
    path.unlink()
    refresh_report(folder)
    assert path.read_bytes() == before and report.stat().st_mtime_ns >= made
    os.utime(folder / "result.json")
    changed(folder, "config.json", lambda one: one["environment"].update(command="gainfinder transfer --anew"))
    os.utime(folder / "result.json", (2**31, 2**31))
    refresh_report(folder)
    assert "--anew" in path.read_text()


@pytest.mark.parametrize("kind", ["transfer", "guarded"])
def test_settings_that_are_not_read_are_not_told(results: dict[str, Path], kind: str) -> None:
    record = read(results[kind])
    decided = record.config.settings
    assert decided["slow_momentum"] is not None and decided["patience"] is not None  # by rules, whether read or not
    told = re.search(r"as they were decided: (.*?)\.\n", card_of(results[kind]).text)
    assert told is not None and "`epochs`" in told[1] and "`lr`" in told[1]
    assert "slow_momentum" not in told[1] and "patience" not in told[1]
