"""What a run costs follows from its recipe."""

import sys
from pathlib import Path
from typing import Any

import pytest

from digit_files import digit_folder
from gainfinder.config import TransferConfig
from gainfinder.profiling import estimate
from gainfinder.runs import PreparedTransfer, prepare_transfer


def planned(zoo: dict[str, str], data: str = "digits#2/4", val: str = "digits#1/8", **about: Any) -> PreparedTransfer:
    asked = {"device": "cpu", "workers": 0, "guard": False, "preset": "gentle", "limit": 64, "epochs": 1, **about}
    settings = TransferConfig.model_validate(asked)
    return prepare_transfer(zoo["vit"], [zoo["resnet"]], data, val=val, settings=settings)


def test_a_checkpoint_holds_what_the_optimiser_and_an_average_keep(zoo: dict[str, str]) -> None:
    """Two checkpoints at once, each of the weights, one moment by SGD or two by AdamW, and the average in float64."""
    sgd, adamw, averaged = (
        estimate(planned(zoo, **about)).disk_mb
        for about in ({}, {"optimizer": "adamw"}, {"optimizer": "adamw", "ema_decay": 0.9})
    )
    weights = sum(value.numel() * 4 for value in planned(zoo).student.module.state_dict().values()) / 1e6
    assert adamw - sgd == pytest.approx(2 * weights)
    assert averaged - adamw == pytest.approx(4 * weights)


@pytest.mark.parametrize(("about", "counted"), [({}, True), ({"augment": "rrc"}, False), ({"bank": None}, None)])
def test_decoded_images_that_a_bank_keeps_are_counted(
    zoo: dict[str, str], tmp_path: Path, about: dict[str, Any], counted: bool | None
) -> None:
    """Transfer images where their crops are the same in each epoch, and those measured on."""
    pictures = digit_folder(tmp_path / "pictures", 120, broken=0)
    prepared = planned(zoo, f"{pictures}#1/2", f"{pictures}#2/2", **{"bank": tmp_path / "bank", "limit": None, **about})
    height, width = prepared.student.image_preprocessing.view_size
    sizes = [len(prepared.train_images), len(prepared.val_images)]
    sizes = sizes if counted else sizes[1:] if counted is False else []
    expected = sum(count * 3 * height * width for count in sizes) / 1e6
    assert expected <= estimate(prepared).crops_mb <= expected + 0.02 * len(sizes)
    assert estimate(planned(zoo, bank=tmp_path / "bank")).crops_mb == 0, "digits come with the package"


def test_models_that_are_asked_once_are_counted_once(zoo: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["gainfinder.profiling.estimate"]  # not the function of that name
    monkeypatch.setattr(module, "_image_s", lambda *_: 1.0)
    monkeypatch.setattr(module, "_training_s", lambda *_, **__: 0.0)
    found = {augment: estimate(planned(zoo, augment=augment, epochs=2, mixup=0.0)) for augment in ("none", "crop-flip")}
    images = len(planned(zoo).train_images)
    assert found["none"].training_s - found["crop-flip"].training_s == pytest.approx(2 * images)  # student and teacher
