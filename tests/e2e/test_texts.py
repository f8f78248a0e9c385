"""Classifiers of texts are students and teachers as those of images are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import gainfinder
from gainfinder.errors import DataError, ModelError, SettingsError
from once import made_once
from texts import text_file, tiny_text_model
from tiny_models import tiny


@dataclass(frozen=True)
class TextZoo:
    """Two models that know different classes, and texts."""

    student: str
    teacher: str
    data: str
    val: str


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> TextZoo:
    folder = made_once(tmp_path_factory, "two-text-models", _make)
    return TextZoo(*(str(folder / name) for name in ("a", "b", "data.csv", "val.csv")))


def _make(folder: Path) -> None:
    tiny_text_model(folder / "a", knows=("birds", "fish"))
    tiny_text_model(folder / "b", knows=("trees", "fish"), classes=("trees", "fish", "birds"), seed=1)
    text_file(folder / "data.csv", 120)
    text_file(folder / "val.csv", 90, first=500)


def transferred(zoo: TextZoo, out: Path, **settings: Any) -> gainfinder.TransferResult:
    about = {"val": zoo.val, "labels": "none", "guard": False, "epochs": 3, "batch_size": 16, "lr": 3e-3, **settings}
    return gainfinder.transfer(f"hf:{zoo.student}", f"hf:{zoo.teacher}", zoo.data, out=out, **about)


def test_what_one_knows_is_moved_into_the_other(zoo: TextZoo, tmp_path: Path) -> None:
    result = transferred(zoo, tmp_path / "out")
    metrics = result.metrics
    assert metrics.accuracy_before is not None and metrics.accuracy_after is not None
    assert metrics.accuracy_after > metrics.accuracy_before + 0.1
    again = gainfinder.predict(f"hf:{tmp_path}/out/student", zoo.val)
    assert again.accuracy == metrics.accuracy_after
    assert (tmp_path / "out" / "student" / "tokenizer.json").is_file()


def test_the_bank_gives_what_the_models_would(zoo: TextZoo, tmp_path: Path) -> None:
    live = transferred(zoo, tmp_path / "live", epochs=2)
    banked = transferred(
        zoo, tmp_path / "banked", epochs=2, bank=tmp_path / "bank", bank_storage="exact", bank_check=20
    )
    assert banked.metrics.bank is not None and banked.metrics.bank.entries == 2  # a text is the same in every epoch
    assert banked.metrics.bank.largest_difference is not None and banked.metrics.bank.largest_difference < 1e-4
    for one, other in zip(weights(live), weights(banked), strict=True):
        assert torch.allclose(one, other, atol=1e-3)


def test_workers_change_nothing(zoo: TextZoo, tmp_path: Path) -> None:
    one = transferred(zoo, tmp_path / "one", epochs=1, guard=True)
    other = transferred(zoo, tmp_path / "other", epochs=1, guard=True, workers=2)
    assert all(map(torch.equal, weights(one), weights(other)))
    assert one.metrics.guard == other.metrics.guard


def weights(result: gainfinder.TransferResult) -> list[torch.Tensor]:
    return list(result.student.module.state_dict().values())


def test_a_scan_of_texts(zoo: TextZoo) -> None:
    found = gainfinder.scan([f"hf:{zoo.student}", f"hf:{zoo.teacher}"], zoo.val)
    assert {model.model for model in found.models} == {f"hf:{zoo.student}", f"hf:{zoo.teacher}"}
    assert max(pair.positive_flips or 0.0 for pair in found.pairs) > 0.1


def test_images_and_texts_do_not_mix(zoo: TextZoo, tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"digits holds images, and hf:\S+ classifies texts: give data of that kind, or a",
    ):
        gainfinder.transfer(f"hf:{zoo.student}", f"hf:{zoo.teacher}", "digits", out=tmp_path / "a")
    with pytest.raises(ModelError, match=r"classifies images, and hf:\S+ texts: both have to classify the same"):
        gainfinder.transfer(f"hf:{zoo.student}", tiny("resnet"), zoo.data, out=tmp_path / "b")
    with pytest.raises(DataError, match=r"data\.csv holds texts, and"):
        gainfinder.predict(tiny("resnet"), zoo.data)
    with pytest.raises(SettingsError, match="augment is 'paper', and texts are not augmented"):
        transferred(zoo, tmp_path / "c", augment="paper")
    with pytest.raises(SettingsError, match=r"mixup is 0\.5, and texts cannot be laid over each other"):
        transferred(zoo, tmp_path / "d", mixup=0.5)
    assert not any((tmp_path / name).exists() for name in "abcd")
