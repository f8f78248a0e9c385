"""Modules as they are handed over: wrapped, scripted, lazy, on the meta device."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gainfinder.errors import ModelError
from gainfinder.models import load_copy, load_model
from gainfinder.models.modules import copy_module, unwrapped
from gainfinder.models.weights import load_into, load_weights

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))


def compiled(module: nn.Module) -> Any:
    return torch.compile(module, backend="eager")


class FullyShardedDataParallel(nn.Module):
    """Stands for torch's, which needs several processes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        AveragedModel,
        compiled,
        lambda module: nn.DataParallel(compiled(module)),
        lambda module: compiled(nn.DataParallel(module)),
    ],
)
def test_wrappers_are_taken_off(wrap: Any) -> None:
    plain = net().eval()
    for classifier in (load_model(wrap(plain), size=8), load_copy(load_model(wrap(plain), size=8))):
        assert list(classifier.module.state_dict()) == list(plain.state_dict())
        assert classifier.reference == "Sequential"
        classifier.offload()  # DataParallel moves what it is given to a GPU, `plain` too
        assert torch.equal(classifier.logits(X), plain.cpu()(X))


def test_distributed_data_parallel_is_taken_off(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        plain = net()
        wrapped = nn.parallel.DistributedDataParallel(plain)
        assert unwrapped(wrapped, reference="it") is plain
        assert torch.equal(load_copy(load_model(wrapped, size=8)).logits(X), plain(X))
    finally:
        torch.distributed.destroy_process_group()


def within(wrap: Any) -> nn.Sequential:
    """A net whose parts are wrapped, one of them twice and one that occurs twice."""
    plain = net()
    block = wrap(nn.Sequential(wrap(plain[0]), plain[1]))
    return nn.Sequential(block, nn.Flatten(), wrap(nn.Sequential(plain[3])), shared := wrap(nn.Linear(3, 3)), shared)


def test_inner_layers_are_taken_out_of_torch_compile(tmp_path: Path) -> None:
    wrapped, plain = within(compiled), within(lambda module: module)
    plain.load_state_dict({name.replace("_orig_mod.", ""): value for name, value in wrapped.state_dict().items()})
    plain.eval()
    own: Any = copy_module(wrapped, reference="it").eval()
    assert any("_orig_mod" in name for name in wrapped.state_dict())  # the owner's stays as it is
    assert list(own.state_dict()) == list(plain.state_dict()) and torch.equal(own(X), plain(X))
    assert own[3] is own[4]
    assert not {value.data_ptr() for value in own.parameters()} & {value.data_ptr() for value in wrapped.parameters()}
    classifier = load_model(wrapped, size=8)
    assert list(classifier.module.state_dict()) == list(plain.state_dict())
    assert torch.equal(classifier.logits(X), plain(X))
    classifier.save(classifier, tmp_path)
    for wrap in (compiled, lambda module: module, nn.DataParallel):
        module = within(wrap).eval().cpu()
        load_into(module, load_weights(tmp_path / "model.safetensors"), reference="it")
        loaded, expected = module.state_dict().values(), plain.state_dict().values()
        assert all(torch.equal(one, other) for one, other in zip(loaded, expected, strict=True))
        with torch.no_grad():  # a DataParallel runs on a GPU alone where there is one
            assert wrap is nn.DataParallel or torch.equal(module(X), plain(X))


def test_sharded_parameters_are_told() -> None:
    with pytest.raises(ModelError, match="has its parameters sharded over processes: give the module as it was before"):
        load_model(FullyShardedDataParallel(net()), size=8)


@pytest.mark.parametrize("wrap", [lambda module: module, nn.Sequential])
def test_a_copy_of_torchscript_can_be_trained(wrap: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        own = wrap(torch.jit.script(net()))
    next(own.parameters()).requires_grad_(False)
    before = copy.deepcopy(own.state_dict())
    copied = copy_module(own, reference="it")
    assert [p.requires_grad for p in copied.parameters()] == [p.requires_grad for p in own.parameters()]
    optimiser = torch.optim.SGD([p for p in copied.parameters() if p.requires_grad], lr=0.1)
    copied(X).square().sum().backward()
    optimiser.step()
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
    assert not torch.equal(list(copied.parameters())[-1], list(own.parameters())[-1])


def test_a_copy_keeps_what_is_tied_and_frozen() -> None:
    own = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    own[1].weight = own[0].weight
    own[0].bias.requires_grad_(False)
    copied: Any = copy_module(own, reference="it")
    assert copied[1].weight is copied[0].weight and copied[0].weight is not own[0].weight
    assert not copied[0].bias.requires_grad and copied[1].bias.requires_grad


def test_weight_norm_that_ran_with_gradients_is_copied() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in use
        own = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(192, 3)))
    expected = own(X)
    assert torch.equal(copy_module(own, reference="it")(X), expected)


def test_what_cannot_be_copied_is_told() -> None:
    own = net()
    own.handle = (number for number in range(3))  # type: ignore[assignment]
    with pytest.raises(
        ModelError, match=r"^Sequential: the module cannot be copied \(TypeError: .*file:PATH.py:FACTORY"
    ):
        load_copy(own)


FILE = """
import torch
from torch import nn

class Masked(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(192, 3))
        self.register_buffer("mask", torch.ones(3), persistent=False)

def net(conv=nn.Conv2d, linear=nn.Linear, **more):
    made = nn.Sequential(conv(3, 4, 3, **more), nn.BatchNorm2d(4), nn.Flatten(), linear(144, 3, **more))
    made.pretrained_cfg = {"input_size": (3, 8, 8)}
    return made

def lazy():
    made = net()
    made[0], made[1], made[3] = nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.LazyLinear(3)
    return made

def empty():
    with torch.device("meta"):
        made = net()
        made.append(nn.Linear(3, 3))
        made.append(nn.Linear(3, 3))
    made[5].weight = made[4].weight
    return made

def masked():
    with torch.device("meta"):
        made = Masked()
    made.pretrained_cfg = {"input_size": (3, 8, 8)}
    return made

def unreached():
    made = net()
    made.own = nn.LazyLinear(3)
    made.forward = lambda x: nn.Sequential.forward(made[:4], x)
    return made

def wrapped():
    return nn.DataParallel(net())
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "nets.py").write_text(FILE)
    return f"file:{tmp_path}/nets.py"


def test_a_lazy_network_takes_weights(file: str, tmp_path: Path) -> None:
    plain = net()
    save_file(plain.state_dict(), tmp_path / "w.safetensors")
    found = load_model(f"{file}:lazy@{tmp_path}/w.safetensors")
    assert torch.equal(found.logits(X), plain.eval()(X))
    with pytest.raises(ModelError, match=r"1 of another shape \(3.weight: expected \(3, 144\), got \(3, 1\)\)"):
        save_file({**plain.state_dict(), "3.weight": torch.zeros(3, 1)}, tmp_path / "other.safetensors")
        load_model(f"{file}:lazy@{tmp_path}/other.safetensors")


def test_a_network_on_the_meta_device_takes_weights(file: str, tmp_path: Path) -> None:
    plain = net().extend([nn.Linear(3, 3), nn.Linear(3, 3)])
    plain[5].weight = plain[4].weight
    weights = {name: value for name, value in plain.state_dict().items() if name != "5.weight"}
    save_file({**weights, "5.weight": weights["4.weight"].clone()}, tmp_path / "w.safetensors")
    found = load_model(f"{file}:empty@{tmp_path}/w.safetensors")
    assert torch.equal(found.logits(X), plain.eval()(X))
    inner: Any = found.module
    assert inner[5].weight is inner[4].weight


def test_weights_that_are_not_there_are_told(file: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'0\.weight' is on torch's meta device and has no values: load weights"):
        load_model(f"{file}:empty")
    save_file(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="'mask' is on torch's meta device and in no weights file: build the module"):
        load_model(f"{file}:masked@{tmp_path}/w.safetensors")
    with pytest.raises(ModelError, match=r"'own\.weight' belongs to a lazy layer that its forward pass does not reach"):
        load_model(f"{file}:unreached")


def test_a_factory_may_wrap_what_it_makes(file: str, tmp_path: Path) -> None:
    found = load_model(f"{file}:wrapped")
    saved = found.save(found, tmp_path / "out")
    assert saved is not None
    again = load_model(saved)
    for classifier in (found, again):  # a wrapper may have moved it to a GPU
        classifier.offload()
    assert torch.equal(again.logits(X), found.logits(X))


class NoModes(nn.Module):
    """As `torch.export` leaves modules."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def train(self, mode: bool = True) -> "NoModes":
        raise NotImplementedError("no")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.mean((2, 3)))
        return logits


def test_a_module_without_modes_is_told() -> None:
    with pytest.raises(
        ModelError, match=r"cannot be put into float32 and evaluation mode .*give the module that it was"
    ):
        load_model(NoModes(), size=8)
