"""Compiled models learn and teach as others do; here by a backend that needs no compiler."""

from typing import Any

import pytest
import torch
from torch import nn

import gainfinder
from gainfinder.data.images import Images
from gainfinder.errors import SettingsError
from killing import KillAtEpoch, Killed
from transfers import SHORT, Run, assert_close, same, weights

SETTINGS: Run = {**SHORT, "epochs": 2, "lr": 5e-2, "method": "kl-dp-u", "augment": "crop-flip"}
"""Views that change, so that frozen models are asked in each step."""


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Modules that were compiled."""
    seen: list[nn.Module] = []
    compile_ = torch.compile

    def eager(module: nn.Module, **_: Any) -> Any:
        seen.append(module)
        return compile_(module, backend="eager")

    monkeypatch.setattr(torch, "compile", eager)
    return seen


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")
def test_compiled_models_learn_the_same(
    zoo: dict[str, str], val: Images, tmp_path: Any, compiled: list[nn.Module]
) -> None:
    def transfer(**about: Any) -> Any:
        return gainfinder.transfer(zoo["convnext"], zoo["vit"], "digits#2/4", val=val, **{**SETTINGS, **about})

    usual = transfer()
    assert not compiled
    done = transfer(compile=True)
    assert len(compiled) == 3  # the student, its frozen copy and the teacher
    assert_close(weights(done), weights(usual))
    with pytest.raises(Killed):
        transfer(compile=True, out=tmp_path / "run", callbacks=[KillAtEpoch(2)])
    resumed = transfer(compile=True, out=tmp_path / "run")
    assert resumed.metrics.resumed_epochs == 1
    assert same(weights(resumed), weights(done))


def test_methods_that_look_into_models_are_refused(zoo: dict[str, str], val: Images) -> None:
    with pytest.raises(SettingsError, match="leave `compile` out"):
        gainfinder.transfer(
            zoo["convnext"], zoo["vit"], "digits#2/4", val=val, **{**SETTINGS, "method": "cd", "compile": True}
        )
