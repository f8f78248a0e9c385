"""A fused network answers as the network does, and fuses no more than it may."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from batch_norms import lived, norms
from gainfinder.models.fusing import FusedConvolution, fused

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MIXED = torch.bfloat16


def fused_layers(module: nn.Module) -> int:
    return sum(isinstance(layer, FusedConvolution) for layer in module.modules())


def answers(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = module(x)
    return found


class Net(nn.Module):
    """A convolution with batch-norm, and what a test does with both."""

    def __init__(self, after: Callable[["Net", Tensor], Tensor], **arguments: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, **arguments)  # type: ignore[arg-type]
        self.other, self.norm, self.act = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.relu = nn.SiLU()
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self, x)


def in_place(net: Net, x: Tensor) -> Tensor:
    found: Tensor = net.norm(net.conv(x))
    found += x
    return F.relu(found)


def second_in_place(net: Net, x: Tensor) -> Tensor:
    shortcut: Tensor = net.other(x)
    shortcut += net.norm(net.conv(x))
    return F.relu(shortcut) + shortcut


def scaled(net: Net, x: Tensor) -> Tensor:
    return torch.relu(torch.add(net.norm(net.conv(x)), x, alpha=2))


def summed(net: Net, x: Tensor) -> Tensor:
    return (x + net.norm(net.conv(x))).relu()


def doubled(net: Net, x: Tensor) -> Tensor:
    found = net.norm(net.conv(x))
    return torch.relu(found + found)


def read_twice(net: Net, x: Tensor) -> Tensor:
    found = net.conv(x)
    out: Tensor = net.norm(found) + found
    return out


def called_twice(net: Net, x: Tensor) -> Tensor:
    out: Tensor = net.conv(net.norm(net.conv(x)))
    return out


def shown_before(net: Net, x: Tensor) -> Tensor:
    found = net.norm(net.conv(x))
    return torch.cat([found, F.relu(found)])


def by_a_layer_of_that_name(net: Net, x: Tensor) -> Tensor:
    out: Tensor = net.relu(net.norm(net.conv(x)))
    return out


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (lambda: timm.create_model("resnet10t", num_classes=4), 11),
        (lambda: timm.create_model("test_resnet", num_classes=4), 12),
        (lambda: timm.create_model("regnety_002", num_classes=4), 40),
        (lambda: timm.create_model("mobilenetv3_small_050", num_classes=4), 11),
        (lambda: timm.create_model("efficientnet_b0", num_classes=4), 0),
        (lambda: torchvision.models.resnet18(num_classes=4), 17),
    ],
    ids=["resnet10t", "test_resnet", "regnety_002", "mobilenetv3_small_050", "efficientnet_b0", "torchvision"],
)
def test_no_batch_norm_is_left_and_the_answers_stay(make: Callable[[], nn.Module], layers: int) -> None:
    torch.manual_seed(0)
    module = lived(make())
    x = torch.randn(2, 3, 64, 64)
    expected = answers(module, x)
    found = fused(module)
    assert norms(found) == 0 and fused_layers(found) == layers
    assert torch.allclose(answers(found, x), expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("after", "left", "layers"),
    [
        (in_place, 0, 1),
        (summed, 0, 1),
        (second_in_place, 0, 0),
        (scaled, 0, 0),
        (doubled, 0, 0),
        (by_a_layer_of_that_name, 0, 0),
        (shown_before, 0, 0),
        (read_twice, 1, 0),
        (called_twice, 1, 0),
    ],
)
def test_what_is_read_by_something_else_is_left_alone(
    after: Callable[[Net, Tensor], Tensor], left: int, layers: int
) -> None:
    torch.manual_seed(0)
    module = lived(Net(after))
    x = torch.randn(2, 4, 8, 8)
    expected = answers(module, x.clone())
    found = fused(module)
    assert norms(found) == left and fused_layers(found) == layers
    assert torch.allclose(answers(found, x), expected, atol=1e-5)


@pytest.mark.parametrize("arguments", [{"groups": 2}, {"padding_mode": "reflect"}])
def test_only_convolutions_that_have_a_kernel_take_a_relu(arguments: dict[str, object]) -> None:
    torch.manual_seed(0)
    module = lived(Net(summed, **arguments))
    x = torch.randn(2, 4, 8, 8)
    expected = answers(module, x)
    found = fused(module)
    assert fused_layers(found) == 0
    assert torch.allclose(answers(found, x), expected, atol=1e-5)


def test_what_is_added_has_the_shape_of_the_outputs() -> None:
    layer = FusedConvolution(nn.Conv2d(4, 4, 1))
    with pytest.raises(ValueError, match=r"expected \(2, 4, 8, 8\) to be added, got \(1, 4, 1, 1\)"):
        layer(torch.ones(2, 4, 8, 8), torch.ones(1, 4, 1, 1))


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("channels", [3, 8, 64])
def test_one_kernel_agrees_with_its_parts(channels: int, adds: bool) -> None:
    """On a GPU the kernel of cuDNN; where that cannot be used, as on a CPU, the parts."""
    torch.manual_seed(0)
    layer = FusedConvolution(nn.Conv2d(channels, 16, 3, padding=1)).to(DEVICE, MIXED, memory_format=torch.channels_last)  # type: ignore[call-overload]
    sizes = (2, 5, 2)
    with torch.inference_mode():
        for images in sizes:
            x = torch.randn(images, channels, 9, 9, device=DEVICE, dtype=MIXED)
            z = torch.randn(images, 16, 9, 9, device=DEVICE, dtype=MIXED) if adds else None
            expected = layer.convolution.float()(x.float()) + (0 if z is None else z.float())
            layer.to(MIXED)
            assert (layer(x, z).float() - expected.relu()).abs().max() < 0.05 * expected.abs().max()
    assert layer.fuses is None if DEVICE == "cpu" else layer.fuses is not None


def wrong(*_: object) -> Tensor:
    return torch.full((2, 16, 9, 9), torch.nan)


def missing(*_: object) -> Tensor:
    raise RuntimeError("no engine")


@pytest.mark.parametrize(("kernel", "fuses"), [(None, True), (wrong, False), (missing, False)])
def test_a_kernel_is_used_where_it_agrees(
    monkeypatch: pytest.MonkeyPatch, kernel: Callable[..., Tensor] | None, fuses: bool
) -> None:
    """Of a kernel that stands for cuDNN's, on any device."""
    calls: list[object] = []

    def agreeing(x: Tensor, weight: Tensor, bias: Tensor, *sizes: Any) -> Tensor:
        calls.append(sizes)
        return F.relu(F.conv2d(x, weight, bias, *sizes))

    monkeypatch.setattr(torch, "cudnn_convolution_relu", kernel or agreeing)
    monkeypatch.setattr(FusedConvolution, "_may_fuse", lambda *_: True)
    layer, x = FusedConvolution(nn.Conv2d(4, 16, 3, padding=1)), torch.randn(2, 4, 9, 9)
    with torch.no_grad():
        expected = F.relu(layer.convolution(x))
        assert torch.equal(layer(x), expected) and torch.equal(layer(x), expected)
    assert layer.fuses is fuses
    assert len(calls) == (3 if fuses else 0), "tried once, and used twice"


def test_a_kernel_that_fails_at_another_size_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FusedConvolution, "_may_fuse", lambda *_: True)
    monkeypatch.setattr(torch, "cudnn_convolution_relu", missing)
    layer, x = FusedConvolution(nn.Conv2d(4, 16, 3)), torch.randn(2, 4, 9, 9)
    layer.fuses = True
    with torch.no_grad():
        assert torch.equal(layer(x), F.relu(layer.convolution(x)))
    assert layer.fuses is False


def test_too_little_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(FusedConvolution, "_may_fuse", lambda *_: True)
    monkeypatch.setattr(torch, "cudnn_convolution_relu", full)
    layer = FusedConvolution(nn.Conv2d(4, 16, 3))
    with torch.no_grad(), pytest.raises(torch.OutOfMemoryError):
        layer(torch.randn(2, 4, 9, 9))
