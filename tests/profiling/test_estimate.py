"""What a run costs follows from its recipe."""

from typing import Any

import pytest

from gainfinder.config import TransferConfig
from gainfinder.profiling import estimate
from gainfinder.runs import PreparedTransfer, prepare_transfer


def planned(zoo: dict[str, str], **about: Any) -> PreparedTransfer:
    asked = {"device": "cpu", "workers": 0, "guard": False, "preset": "gentle", "limit": 64, "epochs": 1, **about}
    settings = TransferConfig.model_validate(asked)
    return prepare_transfer(zoo["vit"], [zoo["resnet"]], "digits#2/4", val="digits#1/8", settings=settings)


def test_a_checkpoint_holds_what_the_optimiser_and_an_average_keep(zoo: dict[str, str]) -> None:
    """Two checkpoints at once, each of the weights, one moment by SGD or two by AdamW, and the average."""
    sgd, adamw, averaged = (
        estimate(planned(zoo, **about)).disk_mb
        for about in ({}, {"optimizer": "adamw"}, {"optimizer": "adamw", "ema_decay": 0.9})
    )
    weights = sum(value.numel() * 4 for value in planned(zoo).student.module.state_dict().values()) / 1e6
    assert adamw - sgd == pytest.approx(2 * weights)
    assert averaged - adamw == pytest.approx(2 * weights)
