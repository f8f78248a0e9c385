"""A batch that does not fit in memory is learned from in parts, and the result says where that matters."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import gainfinder
from gainfinder.data.images import Images
from gainfinder.errors import OutOfMemory, SettingsError
from transfers import SHORT, Run

SETTINGS: Run = {**SHORT, "lr": 5e-2, "method": "kl-dp-u"}


class Small(nn.Module):
    """A model on a device whose memory holds so many images, where it trains or where it answers."""

    def __init__(self, reference: str, *, holds: int, training: bool = True) -> None:
        super().__init__()
        self.model = timm.create_model(reference, pretrained=True)
        self.pretrained_cfg = self.model.pretrained_cfg
        self.holds = holds
        self.fails_in_training = training
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)  # batch-norm has taken in the images before memory runs out
        if self.fails_in_training == self.training:
            self.sizes.append(len(x))
            if len(x) > self.holds:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return y


def transfer(zoo: dict[str, str], val: Images, student: Any, teacher: Any = None, **about: Any) -> Any:
    return gainfinder.transfer(student, teacher or zoo["vit"], "digits#2/4", val=val, **{**SETTINGS, **about})


def state(result: Any) -> dict[str, Tensor]:
    return {name.removeprefix("model."): tensor for name, tensor in result.student.module.state_dict().items()}


def assert_close(one: Any, other: Any) -> None:
    for name, tensor in state(one).items():
        torch.testing.assert_close(tensor, state(other)[name], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def whole_by(zoo: dict[str, str], val: Images) -> Callable[[str], Any]:
    """The transfer into the convnext by a method, in whole batches; each is run once."""
    return functools.cache(lambda method: transfer(zoo, val, zoo["convnext"], method=method))


@pytest.mark.parametrize("method", ["kl", "kl-dp", "xe-kl", "kl-dp-u"])
@pytest.mark.parametrize("size", [32, 16, 10, 1])
def test_parts_add_up_to_the_batch(
    zoo: dict[str, str], val: Images, whole_by: Callable[[str], Any], size: int, method: str
) -> None:
    whole = whole_by(method)
    parts = transfer(zoo, val, zoo["convnext"], method=method, micro_batch=size)
    assert_close(parts, whole)
    assert parts.epochs[0].train_loss == pytest.approx(whole.epochs[0].train_loss, rel=1e-4)
    assert parts.metrics.teacher_share == whole.metrics.teacher_share


def test_out_of_memory_halves_the_parts_and_says_so(
    zoo: dict[str, str], val: Images, whole_by: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    student = Small(zoo["convnext"], holds=9)
    done = transfer(zoo, val, student)
    assert_close(done, whole_by(SETTINGS["method"]))
    notes = [record.getMessage() for record in caplog.records if "at once" in record.getMessage()]
    assert notes == [
        "the device's memory does not suffice for 32 image(s) at once; going on with 16 at once",
        "the device's memory does not suffice for 16 image(s) at once; going on with 8 at once",
    ]


def test_a_failed_pass_leaves_no_trace_in_batch_norm(
    zoo: dict[str, str], val: Images, caplog: pytest.LogCaptureFixture
) -> None:
    done = transfer(zoo, val, Small(zoo["resnet"], holds=20))
    asked = transfer(zoo, val, zoo["resnet"], micro_batch=16)
    assert all(torch.equal(tensor, state(asked)[name]) for name, tensor in state(done).items())
    assert any(
        "batch-norm takes the statistics of parts of 16 images" in record.getMessage() for record in caplog.records
    )


def test_a_teacher_that_does_not_fit_makes_the_parts_smaller_too(zoo: dict[str, str], val: Images) -> None:
    teacher = Small(zoo["vit"], holds=16, training=False)
    done = transfer(zoo, val, zoo["convnext"], teacher, batch_size=20)
    assert_close(done, transfer(zoo, val, zoo["convnext"], batch_size=20))


def test_auto_finds_what_fits_before_training(
    zoo: dict[str, str], val: Images, caplog: pytest.LogCaptureFixture
) -> None:
    for asked in ({"micro_batch": "auto"}, {"batch_size": "auto"}):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            done = transfer(zoo, val, Small(zoo["resnet"], holds=16), **asked)
        sizes = [record.getMessage().split()[-3] for record in caplog.records if "going on with" in record.getMessage()]
        assert sizes == (["16"] if "micro_batch" in asked else ["32", "16"])  # of 64 images by default
        expected = transfer(zoo, val, zoo["resnet"], micro_batch=16, batch_size=64 if "batch_size" in asked else 32)
        assert all(torch.equal(tensor, state(expected)[name]) for name, tensor in state(done).items())


def test_where_not_even_one_image_fits_it_ends_in_one_line(zoo: dict[str, str], val: Images) -> None:
    with pytest.raises(OutOfMemory, match=r"does not suffice for 1 image\(s\) at once"):
        transfer(zoo, val, Small(zoo["convnext"], holds=0))


@pytest.mark.parametrize("value", [0, "some", -1])
def test_a_size_is_a_count_or_auto(zoo: dict[str, str], val: Images, value: Any) -> None:
    for name in ("batch_size", "micro_batch"):
        with pytest.raises(SettingsError, match="1 or more, or auto"):
            transfer(zoo, val, zoo["convnext"], **{name: value})


def test_batch_norm_gets_no_part_of_one(zoo: dict[str, str], val: Images) -> None:
    with pytest.raises(SettingsError, match="two images or more at once"):
        transfer(zoo, val, zoo["resnet"], micro_batch=1)
    transfer(zoo, val, zoo["resnet"], micro_batch=2, batch_size=5)  # parts of two and three


def test_methods_that_compare_images_say_that_parts_matter(
    zoo: dict[str, str], val: Images, caplog: pytest.LogCaptureFixture
) -> None:
    transfer(zoo, val, zoo["convnext"], method="dist-dp-u", micro_batch=16)
    assert any("'dist-dp-u' compares the images of parts of 16" in record.getMessage() for record in caplog.records)
    caplog.clear()
    transfer(zoo, val, zoo["convnext"], method="kl", micro_batch=16)
    assert not any("parts of" in record.getMessage() for record in caplog.records)
