"""A transfer by its specification is the transfer that its references and settings make."""

import io
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import gainfinder
from gainfinder.config import RunFile, TransferConfig, TransferSpec
from gainfinder.errors import DataError, SettingsError
from gainfinder.runs import describe, prepare_spec, prepare_transfer
from transfers import same, weights

CONFIG = TransferConfig(method="kl-dp-u", epochs=2, limit=64, guard=False, device="cpu", workers=0, seed=3)


def test_a_specification_is_prepared_as_it_says(zoo: dict[str, str]) -> None:
    spec = TransferSpec(
        student=zoo["vit"], teachers=(zoo["resnet"],), data="digits#2/4", val="digits#1/8", config=CONFIG
    )
    by_spec = describe(prepare_spec(TransferSpec.from_json(spec.to_json()), command="gainfinder transfer"))
    by_hand = describe(prepare_transfer(zoo["vit"], [zoo["resnet"]], "digits#2/4", val="digits#1/8", settings=CONFIG))
    assert by_spec.pop("environment")["command"] == "gainfinder transfer"
    assert by_hand.pop("environment")["command"] is None
    assert by_hand.pop("request") is None  # what else prepares by hand may give objects
    assert RunFile.model_validate(by_spec.pop("request")).spec() == spec
    assert by_spec == by_hand
    assert by_spec["settings"]["seed"] == 3 and by_spec["data"]["samples"] == 64


def test_a_specification_runs_as_the_transfer_does(zoo: dict[str, str], tmp_path: Path) -> None:
    spec = TransferSpec(
        student=zoo["vit"], teachers=(zoo["resnet"],), data="digits#2/4", val="digits#1/8", config=CONFIG
    )
    done = gainfinder.run(spec, tmp_path / "run")
    usual = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", val="digits#1/8", config=CONFIG)
    assert same(weights(done), weights(usual))
    assert (tmp_path / "run" / "report.html").exists() and done.metrics.out == str(tmp_path / "run")


def test_settings_that_do_not_go_together_are_refused_before_any_work(zoo: dict[str, str]) -> None:
    teachers, control = [zoo["resnet"], zoo["convnext"]], CONFIG.replace(control=True)
    with pytest.raises(SettingsError, match="2 teachers and strategy sequential"):
        prepare_transfer(zoo["vit"], teachers, "digits#2/4", val="digits#1/8", settings=control)
    with pytest.raises(SettingsError, match="expected at least one teacher, got none"):
        prepare_transfer(zoo["vit"], [], "digits#2/4", val="digits#1/8", settings=CONFIG)


def test_the_paper_preset_guards_only_where_it_is_told_to(zoo: dict[str, str]) -> None:
    paper = TransferConfig(preset="paper", device="cpu", workers=0, limit=64)
    asked = (zoo["vit"], [zoo["resnet"]], "digits#2/4")

    def guards(settings: TransferConfig, guard_data: str | None = None) -> bool:
        found = prepare_transfer(*asked, val="digits#1/8", guard_data=guard_data, settings=settings)
        return found.guard_images is not None

    assert not guards(paper)
    assert guards(paper.replace(guard=True)) and guards(paper, guard_data="digits#3/4")
    assert guards(paper.replace(preset=None)) and not guards(paper.replace(preset=None, guard=False))
    with pytest.raises(SettingsError, match="`guard_data` is given together with `guard=False`"):
        guards(paper.replace(guard=False), guard_data="digits#3/4")


def test_images_of_two_roles_are_counted_among_those_that_are_learned_from(
    zoo: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    def prepare(val: str) -> None:
        prepare_spec(
            TransferSpec(student=zoo["vit"], teachers=(zoo["resnet"],), data="digits#1/4", val=val, config=CONFIG)
        )

    prepare("digits#1/4")
    samples = len(gainfinder.load_images("digits#1/4"))
    assert f"64 of the {samples} images measured on are also learned from" in caplog.messages
    caplog.clear()
    prepare("digits#2/4")
    assert not any("are also" in message for message in caplog.messages)


def numbered_images(path: Path, count: int) -> str:
    """Images whose labels are numbers, without names."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG")
    labels = [number % 10 for number in range(count)]
    pq.write_table(pa.table({"image": [buffer.getvalue()] * count, "label": labels}), path)
    return str(path)


@pytest.fixture
def numbered(tmp_path: Path) -> dict[str, Any]:
    return {name: numbered_images(tmp_path / f"{name}.parquet", 40) for name in ("data", "val")}


BACKWARDS = "?classes=9,8,7,6,5,4,3,2,1,0"


def test_numbers_that_a_teacher_would_read_otherwise_are_told(
    zoo: dict[str, str], numbered: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    other = zoo["resnet"] + BACKWARDS

    def told(student: str, *teachers: str) -> list[str]:
        caplog.clear()
        found = prepare_transfer(student, teachers, settings=CONFIG.replace(labels="use"), **numbered)
        assert found.val_images.labels is not None and found.val_images.labels.tolist() == [*range(10)] * 4
        return [text for text in caplog.messages if "at other positions" in text]

    (text,) = told(zoo["vit"], zoo["convnext"], other)
    assert text.startswith(f"{numbered['val']}: its labels are numbers without names")
    assert (
        f"positions among the classes of {zoo['vit']} (0, 1, …); {other} has them at other positions (9, 8, …)" in text
    )
    assert told(zoo["vit"], zoo["convnext"]) == []


def test_labels_with_names_are_read_alike(zoo: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    prepare_transfer(zoo["vit"], [zoo["resnet"] + BACKWARDS], "digits#2/4", val="digits#1/8", settings=CONFIG)
    assert not [text for text in caplog.messages if "at other positions" in text]


@pytest.mark.parametrize("both", ["frozen", "live"])
def test_both_ways_do_not_read_numbers_as_two_classes(
    both: Literal["frozen", "live"], zoo: dict[str, str], numbered: dict[str, Any]
) -> None:
    settings = TransferConfig(method="kl-dp-u", both=both, guard=False, device="cpu", workers=0, epochs=1)
    with pytest.raises(DataError, match=r"val\.parquet: .* give labels by name; the other way would read them so"):
        prepare_transfer(zoo["vit"], [zoo["resnet"] + BACKWARDS], settings=settings, **numbered)
    assert prepare_transfer(zoo["vit"], [zoo["resnet"]], settings=settings, **numbered).partner is not None
