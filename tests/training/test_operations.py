"""What a training step asks of the device besides the models: on a GPU each operation costs a launch."""

from collections import Counter
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import gainfinder
from gainfinder.config import TransferConfig, resolve_settings
from gainfinder.devices import make_accelerator
from gainfinder.inference import TargetSource
from gainfinder.training.trainer import Batch, StudentTrainer
from gainfinder.views import Views

N, SIZE = 4, 32
FEW, MANY = (1, 1, 1, 1), (3, 3, 3, 3)
"""Blocks of a ResNet."""


class Counted(TorchDispatchMode):
    """Counts the operations that are called within it."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations[str(func)] += 1
        return func(*args, **(kwargs or {}))


def resnet(layers: tuple[int, ...]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("resnet18", layers=layers, channels=(4, 4, 8, 8), stem_width=4, num_classes=10)
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, SIZE, SIZE), "crop_pct": 1.0}
    return model


def of_trainer(layers: tuple[int, ...], **settings: Any) -> int:
    """Operations of a step of a transfer from a teacher of one layer."""
    asked = {"preset": "gentle", "method": "kl", "lr": 1e-3, **settings}
    resolved = resolve_settings(
        TransferConfig.model_validate(asked), labelled=True, images=64, view_size=(SIZE, SIZE), mirrorable=False
    )
    accelerator = make_accelerator("cpu", "fp32")
    layer = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))
    teacher = gainfinder.load_model(layer.eval(), size=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3)
    source = TargetSource((teacher,), device=accelerator.device, autocast=accelerator.autocast)
    trainer = StudentTrainer(gainfinder.load_model(resnet(layers)), source, settings=resolved, accelerator=accelerator)
    pixels, y = torch.zeros(N, 3, SIZE, SIZE, dtype=torch.uint8), torch.arange(N)
    batch = Batch(views=Views(renderings=(pixels,)), positions_N=torch.arange(N), target_N=y, total=N)
    return _counted(lambda: trainer.step(batch))


def of_loop(layers: tuple[int, ...]) -> int:
    """Those of a step as in PyTorch's tutorials."""
    module = resnet(layers).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-3, fused=True)
    x, y = torch.zeros(N, 3, SIZE, SIZE), torch.arange(N)

    def step() -> None:
        loss: Tensor = F.cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return _counted(step)


def _counted(step: Any) -> int:
    for _ in range(2):  # what is made in the first step alone
        step()
    with Counted() as found:
        step()
    return found.operations.total()


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.99}, {"optimizer": "adamw"}], ids=["sgd", "average", "adamw"])
def test_a_step_costs_the_same_besides_the_model_however_deep_that_is(settings: dict[str, Any]) -> None:
    few, many = (of_trainer(layers, **settings) - of_loop(layers) for layers in (FEW, MANY))
    assert few == many <= 80  # the teacher's, the divergence from it and what is counted
