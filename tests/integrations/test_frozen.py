"""What a frozen model sees of inputs that are normalised, cropped and sized for the student."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from gainfinder import load_model
from gainfinder.integrations.frozen import FrozenModel
from gainfinder.models import Preprocessing, prepare

STUDENT = Preprocessing(input_size=(3, 12, 16))


class Kept(nn.Module):
    """Answers the mean of each row and keeps what it saw."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.channels = channels
        self.seen = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.channels
        self.seen = x
        return self.scale * x.mean(dim=(1, 2))[:, :2]


def frozen(preprocessing: Preprocessing, inputs: Preprocessing | None) -> FrozenModel:
    classifier = load_model(Kept(3), size=(12, 16), mean=0.0, std=1.0)
    object.__setattr__(classifier, "preprocessing", preprocessing)
    object.__setattr__(classifier.module, "channels", preprocessing.input_size[0])
    return FrozenModel(classifier, inputs=inputs, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def views() -> Tensor:
    """Smooth views: a filter of one library then gives what another one's gives."""
    draw = torch.Generator().manual_seed(3)
    coarse = torch.randint(0, 256, (4, 3, 3, 4), dtype=torch.uint8, generator=draw)
    smooth: Tensor = v2.functional.resize(coarse, [12, 16], interpolation=v2.InterpolationMode.BICUBIC)
    return smooth


@pytest.mark.parametrize("own", [
    Preprocessing(input_size=(3, 12, 16), mean=(0.5,) * 3, std=(0.5,) * 3),
    Preprocessing(input_size=(1, 12, 16), mean=(0.1,), std=(0.3,)),
    Preprocessing(input_size=(3, 24, 24), mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear"),
    Preprocessing(input_size=(3, 6, 8)),
    Preprocessing(input_size=(3, 12, 16), std=(0.5,) * 3),
    Preprocessing(input_size=(3, 24, 32), interpolation="nearest"),
])  # fmt: skip
def test_it_sees_what_its_own_preprocessing_would_make(own: Preprocessing, views: Tensor) -> None:
    """Against the uint8 view resized by torchvision and prepared as in gainfinder's own loop: up to its rounding
    to a level of 256."""
    model = frozen(own, STUDENT)
    logits = model(prepare(views, STUDENT))
    mode = v2.InterpolationMode(own.interpolation)
    expected = prepare(v2.functional.resize(views, list(own.view_size), interpolation=mode, antialias=True), own)
    rounding = 1e-5 if own.view_size == STUDENT.view_size else 1.01 / 255 / min(own.std)
    seen = model.classifier.module.seen
    torch.testing.assert_close(seen, expected, rtol=0, atol=rounding)
    assert logits.dtype == torch.float32 and not logits.requires_grad


def test_inputs_that_fit_are_passed_on(views: Tensor) -> None:
    x = prepare(views, STUDENT)
    assert frozen(STUDENT, STUDENT).renormalised(x) is x
    resized = x[..., :8]
    other = Preprocessing(input_size=(3, 24, 24), mean=(0.5,) * 3)
    assert frozen(other, None).renormalised(resized) is resized, "the initial student sees the student's inputs"


def test_a_bicubic_filter_leaves_no_colour_that_there_is_not() -> None:
    edge = torch.zeros(1, 3, 12, 16, dtype=torch.uint8)
    edge[..., 8:] = 255
    own = Preprocessing(input_size=(3, 24, 32), mean=(0.0,) * 3, std=(1.0,) * 3)
    seen = frozen(own, STUDENT).renormalised(prepare(edge, STUDENT))
    assert seen.min() >= 0 and seen.max() <= 1


def test_a_student_of_grey_images_has_teachers_of_colour() -> None:
    grey = Preprocessing(input_size=(1, 12, 16), mean=(0.0,), std=(1.0,))
    own = Preprocessing(input_size=(3, 12, 16), mean=(0.0, 0.5, 1.0), std=(1.0,) * 3)
    seen = frozen(own, grey).renormalised(torch.full((2, 1, 12, 16), 0.5))
    assert seen[0, :, 0, 0].tolist() == [0.5, 0.0, -0.5]
