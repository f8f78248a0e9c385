"""A module's tensors as they are now, and buffers as they were saved, where a layer has replaced one, too."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gainfinder.training.tensors import LiveState, SavedBuffers


class Counting(nn.Module):
    """A layer that replaces its buffer in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("absent", None)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = self.mean + x.mean(0)
        out: Tensor = self.norm(x)
        return out


def scripted(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        script: nn.Module = torch.jit.script(module)
    return script


@pytest.mark.parametrize("wrap", [lambda module: module, scripted])
def test_buffers_come_back_as_they_were_saved_last(wrap: Callable[[nn.Module], Any]) -> None:
    module, x = wrap(Counting()).train(), torch.randn(4, 2)
    saved = SavedBuffers(module)
    saved.restore()  # nothing was saved
    for _ in range(2):
        saved.save()
        expected = {name: value.clone() for name, value in module.state_dict().items()}
        module(x)
        assert not torch.equal(module.mean, expected["mean"]) and module.norm.num_batches_tracked is not None
        saved.restore()
        assert all(torch.equal(value, expected[name]) for name, value in module.state_dict().items())
        module(x)
    assert module.norm.num_batches_tracked == 2


def scripted_first(module: nn.Sequential) -> nn.Module:
    return nn.Sequential(scripted(module[0]), module[1])


class Numbered(nn.Linear):
    """A layer whose state dict holds what is no tensor of its own."""

    def get_extra_state(self) -> Tensor:
        return torch.tensor(7)

    def set_extra_state(self, state: Tensor) -> None:
        assert state == 7


@pytest.mark.parametrize(
    "wrap", [lambda module: module, lambda module: nn.Sequential(module, Numbered(2, 2)), scripted_first]
)
def test_the_state_is_that_of_now(wrap: Callable[[nn.Module], nn.Module]) -> None:
    module = wrap(nn.Sequential(Counting(), nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))).train()
    live = LiveState(module)
    for _ in range(2):
        optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
        module(torch.randn(4, 2)).square().sum().backward()
        optimiser.step()
        expected, found = module.state_dict(), live()
        assert list(found) == list(expected)
        assert all(torch.equal(value, found[name]) for name, value in expected.items())
