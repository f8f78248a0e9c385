"""Short transfers between tiny models, and what is compared of their results."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gainfinder.predictions import Predictions
from gainfinder.runs import prepare

Run = dict[str, Any]
State = dict[str, Tensor]
SHORT: Run = {
    "preset": "gentle",
    "epochs": 1,
    "limit": 64,
    "batch_size": 32,
    "workers": 0,
    "device": "cpu",
    "guard": False,
}
"""Settings of a transfer of two steps."""
GUARDED: Run = {
    **SHORT,
    "guard": True,
    "guard_data": "digits#3/4",
    "val": "digits#1/4",
    "method": "kl-dp-u",
    "labels": "none",
}
"""Those of a transfer without labels that a guard judges on images of its own."""


@contextmanager
def counted(module: nn.Module) -> Iterator[list[int]]:
    """How many samples each forward pass of the module had."""
    seen: list[int] = []
    hook = module.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    yield seen
    hook.remove()


@contextmanager
def asked_in_each_step() -> Iterator[None]:
    """There is no memory for what frozen models answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "MOST_ANSWERS_BYTES", 0)
        yield


def weights(of: Any) -> State:
    """The state dict of a result's student, or of the student in a result folder."""
    if isinstance(of, Path):
        return load_file(of / "student" / "model.safetensors")
    state: State = of.student.module.state_dict()
    return state


def same(one: State, other: State) -> bool:
    """Whether two state dicts agree in names, dtypes and every bit."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def assert_close(one: State, other: State) -> None:
    """Two state dicts agree up to what another order of float32 sums makes of them in a few steps."""
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def assert_taught_alike(one: Any, other: Any) -> None:
    """The shares of the teacher, the losses and the students of two results in places agree up to float error."""
    assert one.metrics.teacher_share == pytest.approx(other.metrics.teacher_share, abs=1e-3)
    assert [row.train_loss for row in one.epochs] == pytest.approx([row.train_loss for row in other.epochs], rel=1e-3)
    for ours, theirs in zip(*(run.student.module.state_dict().values() for run in (one, other)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def right(found: Predictions) -> Tensor:
    """Which images are predicted right, bool (N,)."""
    assert found.target is not None
    return found.predicted.eq(found.target)


def document(folder: Path, name: str = "result.json") -> Any:
    """A JSON file of a result folder."""
    return json.loads((folder / name).read_text())


OF_THE_RUN = ("out", "student_reference", "resumed_epochs", "seconds", "finished")
"""What a result says of where and when it was made, and how often it was killed; all else is the same bit for bit."""


def reproducible(of: Any) -> Run:
    """What the result of a folder, or one as a dictionary, says besides."""
    found = document(of) if isinstance(of, Path) else of
    return {key: value for key, value in found.items() if key not in OF_THE_RUN}


@contextmanager
def interruptible() -> Iterator[None]:
    """Processes started in here take Ctrl-C, though shells have background jobs, and so what these start, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
