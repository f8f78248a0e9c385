"""Convolutions run with channels last where the model allows it; files and users see the usual layout."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import gainfinder
from gainfinder.models import load_model

CPU = torch.device("cpu")


class Viewing(nn.Module):
    """Flattens by `view`, which only takes the usual layout."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.head = nn.Linear(8 * 12 * 12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolutions(x)
        logits: Tensor = self.head(x.view(len(x), -1))
        return logits


class Reshaping(Viewing):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.convolutions(x).flatten(1))
        return logits


def laid_out(module: nn.Module) -> bool:
    return any(p.ndim == 4 and not p.is_contiguous() for p in module.parameters())


def test_convolutions_get_channels_last_and_give_it_back(zoo: dict[str, str]) -> None:
    x = torch.randn(4, 3, 16, 16)
    for name, convolves in (("resnet", True), ("convnext", True), ("vit", False)):
        model = load_model(zoo[name])
        before, digest = model.logits(x), model.weights_digest()
        assert not laid_out(model.to(CPU, learns=True))
        assert laid_out(model.to(CPU)) == convolves
        torch.testing.assert_close(model.logits(x), before, rtol=1e-4, atol=1e-4)
        assert model.weights_digest() == digest
        assert not laid_out(model.offload())


def test_a_module_that_views_its_features_keeps_the_usual_layout() -> None:
    viewing = load_model(Viewing(), size=16)
    assert not laid_out(viewing.to(CPU))
    viewing.logits(torch.randn(2, 3, 16, 16)).sum().backward()
    assert laid_out(load_model(Reshaping(), size=16).to(CPU))


@pytest.mark.parametrize("name", ["resnet", "convnext"])
def test_students_come_back_in_the_usual_layout(zoo: dict[str, str], tmp_path: Path, name: str) -> None:
    for student in (zoo[name], timm.create_model(zoo[name], pretrained=True)):
        done = gainfinder.transfer(
            student, zoo["vit"], "digits#2/4", val="digits#1/4", limit=64, epochs=1, guard=False, device="cpu",
            out=tmp_path / type(student).__name__,
        )  # fmt: skip
        assert not laid_out(done.student.module)
        if isinstance(student, nn.Module):
            assert not laid_out(student)
    assert load_file(tmp_path / "str" / "student" / "model.safetensors")
