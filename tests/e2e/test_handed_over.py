"""Students as people hand them over: wrapped, scripted, lazy, with a softmax at their end."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gainfinder
from gainfinder.models import load_model
from transfers import SHORT, Run, same, weights

SETTINGS: Run = {**SHORT, "lr": 1e-2, "method": "kl"}
FILE = """
import torch
from torch import nn

def plain(last=()):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                        nn.Flatten(), nn.Linear(8, 10), *last)
    net.pretrained_cfg = {"input_size": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 1.0,
                          "label_names": [str(digit) for digit in range(10)]}
    return net

def wrapped():
    return nn.DataParallel(plain())

def lazy():
    torch.manual_seed(0)
    net = plain()
    net[5] = nn.LazyLinear(10)
    return net

def softmax():
    return plain([nn.Softmax(dim=1)])
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "nets.py").write_text(FILE)
    return f"file:{tmp_path}/nets.py"


def transfer(student: Any, zoo: dict[str, str], **about: Any) -> Any:
    return gainfinder.transfer(student, zoo["vit"], "digits#2/4", val="digits#1/8", **{**SETTINGS, **about})


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda module: torch.compile(module, backend="eager")])
def test_a_wrapped_student_learns_what_the_plain_one_does(file: str, zoo: dict[str, str], wrap: Any) -> None:
    plain = load_model(f"{file}:plain").module
    settings: Any = {"size": 16, "mean": 0.5, "std": 0.5}
    usual, other = (transfer(load_model(module, **settings), zoo) for module in (plain, wrap(plain)))
    assert same(weights(usual), weights(other))


def test_torchscript_learns_what_its_module_does(file: str, zoo: dict[str, str]) -> None:
    plain = load_model(f"{file}:plain").module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        scripted = torch.jit.script(plain)
    settings: Any = {"size": 16, "mean": 0.5, "std": 0.5, "interpolation": "bicubic", "crop_pct": 1.0}
    usual, other = (transfer(load_model(module, **settings), zoo) for module in (plain, scripted))
    assert list(weights(usual)) == list(weights(other))
    for name, value in weights(usual).items():
        torch.testing.assert_close(weights(other)[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factory", ["wrapped", "lazy", "softmax"])
def test_the_reference_that_a_run_gives_loads_the_same(
    file: str, zoo: dict[str, str], factory: str, run_folder: Path
) -> None:
    done = transfer(f"{file}:{factory}", zoo, out=run_folder)
    again = load_model(done.account["student_reference"])
    x = torch.randn(2, 3, 16, 16)
    for classifier in (again, done.student):  # a wrapper may have moved it to a GPU
        classifier.offload()
    done.student.module.eval()
    with torch.no_grad():
        assert torch.equal(again.logits(x), done.student.logits(x))
    assert transfer(f"{file}:{factory}", zoo, out=run_folder).metrics.accuracy_after == done.metrics.accuracy_after


def test_a_softmax_at_the_end_changes_neither_teacher_nor_student(file: str, zoo: dict[str, str]) -> None:
    plain, ends = f"{file}:plain", f"{file}:softmax"
    for student, teacher in ((zoo["resnet"], ends), (ends, zoo["vit"])):
        usual, other = (
            gainfinder.transfer(s, t, "digits#2/4", val="digits#1/8", **{**SETTINGS, "method": "kl-dp-u"})
            for s, t in ((student, teacher), (student.replace(ends, plain), teacher.replace(ends, plain)))
        )
        assert usual.epochs[0].train_loss == pytest.approx(other.epochs[0].train_loss, rel=1e-4)
        assert usual.epochs[0].teacher_share == other.epochs[0].teacher_share


def test_frozen_statistics_take_batches_of_one_image(zoo: dict[str, str]) -> None:
    done = transfer(zoo["resnet"], zoo, batch_size=1, limit=8, student_mode="frozen")
    assert len(done.epochs) == 1
