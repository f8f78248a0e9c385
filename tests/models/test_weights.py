"""Weights files: every common nesting and prefix loads, everything else is told in one line."""

import argparse
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from gainfinder.errors import ModelError
from gainfinder.models.pickles import read_pickle
from gainfinder.models.weights import load_into, load_weights, save_weights


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def prefixed(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


def loaded(path: Path) -> nn.Module:
    module = small()
    load_into(module, load_weights(path), reference="it")
    return module


def equal(module: nn.Module, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    "nest",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda w: {"model": w},
        lambda w: {"model": {"state_dict": w}},
        lambda w: {"net": w, "acc": 93.0},
        lambda w: {"module": w},
        lambda w: {"model_state_dict": w, "loss": torch.tensor(1.0)},
        lambda w: {"state_dict": prefixed("model.", w), "pytorch-lightning_version": "2.0"},
        lambda w: prefixed("module.", w),
        lambda w: prefixed("module._orig_mod.", w),
        lambda w: prefixed("_orig_mod.module.model.", w),
        lambda w: {**prefixed("module.", w), "n_averaged": torch.tensor(5)},
        lambda w: {name.replace("0.", "0._orig_mod."): value for name, value in w.items()},
        lambda w: {name.replace("0.", "0._checkpoint_wrapped_module."): value for name, value in w.items()},
        lambda w: prefixed("_fsdp_wrapped_module.", w),
        lambda w: {name.replace("0.", "0.module."): value for name, value in w.items()},
        lambda w: prefixed("model.", {name.replace("0.", "0.module._orig_mod."): value for name, value in w.items()}),
        lambda w: {name: value.half().float() if name == "x" else value for name, value in w.items()},
    ],
)
@pytest.mark.parametrize("ending", [".pt", ".pth.tar"])
def test_common_checkpoints_load(nest: Any, ending: str, tmp_path: Path) -> None:
    weights = small().state_dict()
    torch.save(nest(weights), tmp_path / f"w{ending}")
    assert equal(loaded(tmp_path / f"w{ending}"), weights)


@pytest.mark.parametrize(
    ("nest", "note"),
    [
        (lambda w: {"epoch": 1, "model_state": w, "optimizer_state": {}}, "taken from under the key 'model_state'"),
        (lambda w: {"backbone": prefixed("module.", w), "optim": w}, "taken from under the key 'backbone'"),
        (
            lambda w: {"state_dict": {**prefixed("model.", w), "criterion.weight": torch.ones(3)}},
            r"it: passed over in the weights file, as not the model's: 1 tensor\(s\) \(criterion\.weight\)",
        ),
        (
            lambda w: {**prefixed("student.", w), "teacher.0.weight": torch.ones(3), "train_acc.tp": torch.ones(1)},
            r"2 tensor\(s\) \(teacher\.0\.weight, train_acc\.tp\)",
        ),
        (lambda w: {**w, "train_acc.tp": torch.ones(3)}, r"1 tensor\(s\) \(train_acc\.tp\)"),
        (lambda w: {**prefixed("model.", w), **prefixed("own.", w)}, r"9 tensor\(s\) \(own\.0\.weight, "),
        (lambda w: prefixed("anything.at.all.", w), None),
        (lambda w: {"state_dict": w, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.5)}, None),
        (lambda w: {"model": w, "best": np.float32(0.5), "classes": np.int64(3), "done": np.bool_(True)}, None),
    ],
)
@pytest.mark.parametrize("legacy", [True, False])
def test_checkpoints_of_training_scripts_load(
    nest: Any, note: str | None, legacy: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = small().state_dict()
    torch.save(nest(weights), tmp_path / "w.PTH", _use_new_zipfile_serialization=not legacy)
    assert equal(loaded(tmp_path / "w.PTH"), weights)
    assert len(caplog.messages) == (note is not None)
    assert note is None or re.search(note, caplog.messages[0])


def test_numbers_of_numpy_are_read_as_plain_ones(tmp_path: Path) -> None:
    values = {"a": np.float64(0.1), "b": np.int16(-3), "c": np.bool_(True), "d": np.dtype(">f4").type(2.5)}
    torch.save({"model": small().state_dict(), **values}, tmp_path / "w.pt")
    found = read_pickle(tmp_path / "w.pt")
    assert {key: found[key] for key in values} == {"a": 0.1, "b": -3, "c": True, "d": 2.5}
    assert all(type(found[key]) in (float, int, bool) for key in values)


class Inner(nn.Module):
    """A part of which is called `module` by its own architecture."""

    def __init__(self, inside: Any = lambda layer: layer) -> None:
        super().__init__()
        self.module = inside(nn.Linear(3, 4))
        self.head = nn.Module()
        self.head.module = inside(nn.Linear(4, 2))


@pytest.mark.parametrize("inside", [lambda layer: layer, nn.DataParallel, lambda x: torch.compile(x, backend="eager")])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_a_part_that_is_called_module_keeps_its_name(inside: Any, prefix: str) -> None:
    weights = Inner(inside).cpu().state_dict()  # DataParallel moves what it is given to a GPU
    plain = Inner()
    load_into(plain, prefixed(prefix, weights), reference="it")
    assert list(plain.state_dict()) == ["module.weight", "module.bias", "head.module.weight", "head.module.bias"]
    assert all(torch.equal(*pair) for pair in zip(plain.state_dict().values(), weights.values(), strict=True))


def test_wrapped_parts_do_not_hide_what_is_missing() -> None:
    weights = {name.replace("0.", "0.module."): value for name, value in small().state_dict().items()}
    del weights["3.bias"]
    with pytest.raises(ModelError, match=r"do not fit Sequential: 1 missing \(3\.bias\)$"):
        load_into(small(), weights, reference="it")


def test_several_models_in_a_file_are_told(tmp_path: Path) -> None:
    weights = small().state_dict()
    torch.save({**prefixed("student.", weights), **prefixed("teacher.", weights)}, tmp_path / "w.pt")
    with pytest.raises(
        ModelError, match=r"weights of 2 such models \('student\.\*', 'teacher\.\*'\): save those of one"
    ):
        loaded(tmp_path / "w.pt")


@pytest.mark.parametrize("change", [lambda v: v.to("meta"), lambda v: v.to_sparse(), lambda v: v.to(torch.complex64)])
def test_tensors_that_are_no_plain_numbers_are_told(change: Any) -> None:
    weights = {**small().state_dict(), "3.bias": change(torch.ones(2))}
    with pytest.raises(ModelError, match=r"^it: the weights '3\.bias' are no plain numbers"):
        load_into(small(), weights, reference="it")


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema_state_dict", "ema"])
def test_averaged_weights_come_first(key: str, tmp_path: Path) -> None:
    raw, averaged = small().state_dict(), small().state_dict()
    torch.save({"state_dict": raw, "model": raw, key: prefixed("module.", averaged)}, tmp_path / "w.pth")
    assert equal(loaded(tmp_path / "w.pth"), averaged)
    torch.save({"state_dict": raw, key: {"module": averaged, "decay": 0.9}}, tmp_path / "w.pth")
    assert equal(loaded(tmp_path / "w.pth"), averaged)


def test_shared_and_strided_tensors_are_saved(tmp_path: Path) -> None:
    module = small().to(memory_format=torch.channels_last)
    module.append(nn.Linear(2, 2))
    module.append(nn.Linear(2, 2))
    module[5].weight = module[4].weight
    save_weights(module, tmp_path / "new" / "w.safetensors")
    weights = load_weights(tmp_path / "new" / "w.safetensors")
    assert equal(module, weights)
    del weights["5.weight"]
    load_into(module, weights, reference="it")  # as safetensors' own save_model leaves it


def test_a_counter_that_old_checkpoints_lack_is_not_missed() -> None:
    weights, module = small().state_dict(), small()
    assert not equal(module, weights)
    kept = module.state_dict()["1.num_batches_tracked"].fill_(7).clone()
    del weights["1.num_batches_tracked"]
    load_into(module, weights, reference="it")
    assert equal(module, {**weights, "1.num_batches_tracked": kept})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"3.weight": torch.ones(5, 16)}, r"^it: the weights do not fit Sequential: 1 of another shape "
                                          r"\(3\.weight: expected \(2, 16\), got \(5, 16\)\)$"),
        ({"4.a": torch.ones(1)}, r"1 unexpected \(4\.a\)$"),
        ({"3.weight": None, "3.bias": None, "0.bias": None, "1.bias": None}, r"4 missing \(0\.bias, 1\.bias, .*…\)$"),
        ({"3.bias": torch.tensor([1.0, torch.nan])}, r"^it: the weights '3\.bias' hold values that are not finite"),
        ({"1.running_var": torch.full((4,), torch.nan)}, r"^it: the buffer '1\.running_var' holds NaN"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    weights = {key: value for key, value in {**small().state_dict(), **change}.items() if value is not None}
    with pytest.raises(ModelError, match=message):
        load_into(small(), weights, reference="it")


class Command:
    """Runs a program where it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("false",)


class Custom:
    """Something that only unsafe loading accepts."""


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def refuse(name: str, message: str) -> None:
        with pytest.raises(ModelError, match=message) as caught:
            load_weights(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)

    torch.save({"state_dict": small().state_dict(), "args": Custom()}, tmp_path / "space.pt")
    refuse("space.pt", r"holds \S*Custom beside its tensors, which safe loading refuses.*safetensors")
    torch.save(small(), tmp_path / "module.pth")
    refuse("module.pth", "holds torch.nn.modules.container.Sequential beside")
    refuse("modul.pth", "does not exist; near matches: module.pth")
    torch.save({"state_dict": small().state_dict(), "x": Command()}, tmp_path / "command.pth")
    refuse("command.pth", r"holds \w+.system beside its tensors, which safe loading refuses")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>not found</html>")
    refuse("page.pth", r"page.pth' is no PyTorch checkpoint or is damaged: UnpicklingError; fetch or save it again")
    refuse("no/such.pt", "its folder .* does not exist")
    refuse(".", "is a folder")
    (tmp_path / "w.onnx").write_bytes(b"x")
    refuse("w.onnx", "ending that is not known: expected .safetensors")
    for name in ("empty.pt", "noise.pt", "cut.pt", "noise.safetensors", "empty.safetensors"):
        whole = (tmp_path / "module.pth").read_bytes()
        content = {"empty": b"", "noise": b"abcdef", "cut": whole[: len(whole) // 2]}[name.split(".", maxsplit=1)[0]]
        (tmp_path / name).write_bytes(content)
        refuse(name, "is damaged")
    torch.save({"epoch": 3, "loss": torch.ones(1), "lr": 0.1}, tmp_path / "none.pt")
    refuse("none.pt", "holds no weights: expected tensors by name, .*; its keys: 'epoch', 'loss', 'lr'$")
    torch.save({"one": small().state_dict(), "other": small().state_dict(), "epoch": 3}, tmp_path / "two.pt")
    refuse("two.pt", "holds weights under 'one' and 'other': expected .*; its keys: 'one', 'other', 'epoch'$")
    torch.save([small().state_dict()], tmp_path / "list.pt")
    refuse("list.pt", "holds no weights but a list: expected tensors by name")
    os.mkfifo(tmp_path / "pipe.pt")
    refuse("pipe.pt", "is a FIFO, not a regular file")
    refuse("x" * 300 + ".pt", "cannot be looked up")
    safetensors.torch.save_file({}, tmp_path / "none.safetensors")
    refuse("none.safetensors", "holds no weights")
