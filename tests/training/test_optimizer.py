"""The optimiser's steps and rates, held against loops written out here."""

from collections.abc import Sequence
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from gainfinder.config import TransferConfig
from gainfinder.config.resolution import ResolvedConfig, resolve_settings
from gainfinder.training.optimizer import cool_down, make_optimizer, rate_at

CPU = torch.device("cpu")


def resolved(**given: Any) -> ResolvedConfig:
    return resolve_settings(TransferConfig(**given), labelled=False, images=640, view_size=(32, 32), mirrorable=True)


def two_layers() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).double()


def trained(settings: ResolvedConfig, steps: int = 3) -> dict[str, Tensor]:
    module = two_layers()
    optimizer = make_optimizer(module, settings, device=CPU)
    for at in range(steps):
        optimizer.zero_grad()
        module(torch.full((1, 3), 0.5 + at, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
    return {name: value.detach() for name, value in module.named_parameters()}


def by_hand(settings: ResolvedConfig, steps: int = 3) -> dict[str, Tensor]:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) and SGD with momentum and L2, written out."""
    module = two_layers()
    first, second = ({name: torch.zeros_like(p) for name, p in module.named_parameters()} for _ in range(2))
    lr, decay = settings.lr, settings.weight_decay
    for at in range(steps):
        module.zero_grad()
        module(torch.full((1, 3), 0.5 + at, dtype=torch.float64)).square().sum().backward()
        with torch.no_grad():
            for name, p in module.named_parameters():
                assert p.grad is not None
                if settings.optimizer == "sgd":
                    first[name] = settings.momentum * first[name] + p.grad + decay * p
                    p.sub_(lr * first[name])
                    continue
                first[name] = 0.9 * first[name] + 0.1 * p.grad
                second[name] = 0.999 * second[name] + 0.001 * p.grad.square()
                mean, square = first[name] / (1 - 0.9 ** (at + 1)), second[name] / (1 - 0.999 ** (at + 1))
                p.mul_(1 - lr * (decay if p.ndim > 1 else 0.0))
                p.sub_(lr * mean / (square.sqrt() + 1e-8))
    return {name: value.detach() for name, value in module.named_parameters()}


@pytest.mark.parametrize(
    "given", [{"optimizer": "adamw", "lr": 0.01}, {"optimizer": "sgd", "lr": 0.01}, {"optimizer": "sgd", "momentum": 0}]
)
def test_a_step_is_the_textbooks(given: dict[str, Any]) -> None:
    settings = resolved(**given)
    for name, value in by_hand(settings).items():
        torch.testing.assert_close(trained(settings)[name], value, rtol=1e-9, atol=1e-12)


def test_with_layer_decay_the_classifier_learns_fastest() -> None:
    model = timm.create_model("test_vit", num_classes=3)
    optimizer = make_optimizer(model, resolved(optimizer="adamw", layer_decay=0.5), device=CPU)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    found = [scale[id(p)] for p in (model.patch_embed.proj.weight, model.blocks[0].mlp.fc1.weight, model.head.weight)]
    assert found == sorted(found) and found[0] < found[1] < found[2] == 1


def test_parameters_beside_the_students_learn_too() -> None:
    other = nn.Parameter(torch.ones(1))
    optimizer = make_optimizer(two_layers(), resolved(), others=[other], device=CPU)
    assert any(p is other for group in optimizer.param_groups for p in group["params"])


def test_the_rate_rises_and_falls() -> None:
    settings = resolved(lr=0.5, schedule="cosine", lr_warmup=0.2)
    rates = [rate_at(settings, step / 100) for step in range(100)]
    top = max(range(100), key=rates.__getitem__)
    assert 0 < rates[0] < 0.01 and 18 <= top <= 21 and rates[top] > 0.44 and rates[99] < 0.001
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rate_at(resolved(lr=0.5, schedule="linear"), 0.25) == 0.375


def test_the_paper_stays_the_papers() -> None:
    settings = resolved(preset="paper")
    found = (settings.optimizer, settings.schedule, settings.lr_warmup, settings.weight_decay, settings.mixup)
    assert found == ("sgd", "constant", 0.0, 1e-3, 0.0)


def ended(losses: Sequence[float | None], *, epochs: int, patience: int = 2) -> tuple[int, int]:
    """Epochs before the cool-down and in all, of a run that measures these losses one after the other."""
    for done in range(len(losses) + 1):
        found = cool_down(losses[:done], epochs=epochs, patience=patience)
        if found is not None and done >= found.start:
            return found.start, found.end
    raise AssertionError("it goes on")


@pytest.mark.parametrize(
    ("losses", "start"),
    [
        ([1.0, 0.9, 0.8, 0.8, 0.8], 5),  # an equal loss is no lower one
        ([1.0, 1.1, 1.2], 3),
        ([1.0, 0.9, 0.95, 0.8, 0.85, 0.84], 6),  # a lower one in between starts anew
    ],
)
def test_the_rate_falls_once_the_loss_no_longer_does(losses: list[float], start: int) -> None:
    assert ended(losses, epochs=100)[0] == start


@pytest.mark.parametrize("epochs", range(1, 60))
def test_a_run_that_gets_better_for_ever_ends_in_time_and_a_fifth_of_it_is_the_fall(epochs: int) -> None:
    falling: list[float | None] = [1 / (1 + i) for i in range(epochs)]
    start, end = ended(falling, epochs=epochs)
    assert end <= epochs and end - start == max(1, -(-start // 4)) and end >= epochs - 1
    # what has no loss to go by, such as a control, does the same in that many epochs
    assert ended([None] * end, epochs=end) == (start, end)


def test_losses_that_come_later_change_nothing() -> None:
    losses = [1.0, 0.9, 0.9, 0.9, 0.5, 0.4]
    assert cool_down(losses[:4], epochs=100, patience=2) == cool_down(losses, epochs=100, patience=2)
