"""Classifiers written as ONNX files and read again: the same answers, inputs and names."""

from pathlib import Path

import pytest
import torch

from gainfinder.errors import ModelError
from gainfinder.models import load_model
from gainfinder.models.to_onnx import PREPROCESSING, metadata_of, write_onnx, written_preprocessing
from onnx_files import Net

pytest.importorskip("onnxruntime")
NAMES = ("it's", 'a "b"', "c,d", "Ω é")
X = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Ending(torch.nn.Module):
    """A net that ends in a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).softmax(dim=1)


def test_inputs_names_and_answers_come_back(tmp_path: Path) -> None:
    given = load_model(
        Net(), size=16, mean=0.4, std=(0.2, 0.3, 0.1), interpolation="bilinear", crop_pct=0.8, crop_mode="squash",
        crop_rounding="down", class_names=NAMES,
    )  # fmt: skip
    write_onnx(given, tmp_path / "net.onnx")
    found = load_model(f"onnx:{tmp_path}/net.onnx")
    assert found.preprocessing == given.preprocessing and found.class_names == NAMES
    torch.testing.assert_close(found.logits(X), given.logits(X), rtol=1e-4, atol=1e-5)
    own = load_model(f"onnx:{tmp_path}/net.onnx?crop_pct=1.0&mean=0.5")
    assert (own.preprocessing.crop_pct, own.preprocessing.mean) == (1.0, (0.5, 0.5, 0.5)), "what is given comes first"


def test_probabilities_and_reordered_classes_become_logits(tmp_path: Path) -> None:
    given = load_model(Ending(), size=16, mean=0.5, std=0.5, output="probs")
    reordered = given.with_class_order((3, 1, 0, 2), NAMES)
    write_onnx(reordered, tmp_path / "net.onnx", opset=14)
    found = load_model(f"onnx:{tmp_path}/net.onnx?output=logits")
    assert found.class_names == NAMES
    torch.testing.assert_close(found.logits(X), reordered.logits(X), rtol=1e-3, atol=1e-4)


def failing(x: torch.Tensor) -> torch.Tensor:
    raise RuntimeError(f"not with {len(x)} images\nat once")


def test_a_module_that_cannot_be_traced(tmp_path: Path) -> None:
    net = Net()
    given = load_model(net, size=16, mean=0.5, std=0.5)
    net.forward = failing  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="cannot be written as ONNX of opset 17") as error:
        write_onnx(given, tmp_path / "net.onnx")
    assert "\n" not in str(error.value) and not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[1]", '{"crop_pct": 0.9}', '{"input_size": [3, 16, 16], "crop_pct": 9}']
)
def test_metadata_that_others_wrote_are_passed_over(text: str) -> None:
    assert written_preprocessing({PREPROCESSING: text}) == {}
    assert written_preprocessing(metadata_of(load_model(Net(), size=16, mean=0.5, std=0.5)))["mean"] == (0.5, 0.5, 0.5)
