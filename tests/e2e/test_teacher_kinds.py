"""Teachers that are no torch module of the student's classes: tables of predictions, label maps, ONNX files."""

import csv
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import gainfinder
from gainfinder.cli import app
from gainfinder.data.images import Images
from gainfinder.errors import DataError, SettingsError
from transfers import SHORT, Run, assert_close, weights

SETTINGS: Run = {**SHORT, "epochs": 2, "lr": 1e-2}
RUNNER = CliRunner()


# ---- tables ----


@pytest.fixture(scope="module")
def table(zoo: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The teacher's predictions of the transfer images, as the command line writes them."""
    path = tmp_path_factory.mktemp("tables") / "resnet.parquet"
    arguments = ["--model", zoo["resnet"], "--data", "digits#2/4", "--out", str(path), "--workers", "0"]
    done = RUNNER.invoke(app, ["predict", *arguments, "--device", "cpu"])
    assert done.exit_code == 0, done.stderr
    return f"table:{path}"


@pytest.mark.parametrize("method", ["kl", "kl-dp"])
def test_a_table_teaches_what_its_model_teaches(zoo: dict[str, str], val: Images, table: str, method: str) -> None:
    asked = {**SETTINGS, "method": method, "augment": "none"}
    live, read = (
        gainfinder.transfer(zoo["vit"], teacher, "digits#2/4", val=val, **asked) for teacher in (zoo["resnet"], table)
    )
    assert_close(weights(live), weights(read))
    start = timm.create_model(zoo["vit"], pretrained=True).state_dict()
    assert not torch.allclose(weights(read)["head.weight"], start["head.weight"], atol=1e-3)
    for one, other in zip(live.epochs, read.epochs, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.teacher_share == other.teacher_share
    assert read.metrics.unaugmented_teachers == (table,) and live.metrics.unaugmented_teachers == ()
    # The table lacks the images measured on: what depends on the teacher there is not known, the rest is.
    assert read.metrics.positive_flips is None and read.metrics.agreement_with_teachers == (None,)
    assert live.metrics.positive_flips is not None
    assert read.metrics.accuracy_before == live.metrics.accuracy_before


def test_a_table_that_holds_the_images_measured_on_tells_its_flips(zoo: dict[str, str], table: str) -> None:
    asked = {**SETTINGS, "epochs": 1, "method": "kl", "limit": 64}
    live, read = (gainfinder.transfer(zoo["vit"], teacher, "digits#2/4", **asked) for teacher in (zoo["resnet"], table))
    for key in ("positive_flips", "negative_flips", "agreement_with_teachers", "dropped_mass"):
        assert getattr(live.metrics, key) is not None and getattr(live.metrics, key) == getattr(read.metrics, key)


def test_views_that_a_table_does_not_know_are_warned_of(
    zoo: dict[str, str], val: Images, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {**SETTINGS, "epochs": 1, "method": "kl", "limit": 20}
    warning = "has predictions for unaugmented images, while the student sees them augmented"
    gainfinder.transfer(zoo["vit"], table, "digits#2/4", val=val, augment="none", **asked)
    assert warning not in caplog.text
    gainfinder.transfer(zoo["vit"], table, "digits#2/4", val=val, augment="crop-flip", **asked)
    assert warning in caplog.text


def test_images_that_a_table_lacks_are_one_line(zoo: dict[str, str], val: Images, table: str, run_folder: Path) -> None:
    with pytest.raises(DataError, match=r"has no predictions for 30 of 30 images: 'digits/\d{4}'"):
        gainfinder.transfer(zoo["vit"], table, "digits#3/4", val=val, out=run_folder, **{**SETTINGS, "limit": 30})
    done = RUNNER.invoke(
        app,
        ["transfer", "--student", zoo["vit"], "--teacher", table, "--data", "digits#1/2", "--val", "digits#4/4",
         "--workers", "0", "--no-guard", "--out", str(run_folder)],
    )  # fmt: skip
    assert done.exit_code == 2 and done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"gainfinder: {table} has no predictions for ") and "Traceback" not in done.stderr
    assert not run_folder.exists()


@pytest.mark.parametrize("method", ["cd", "crd"])
def test_a_table_has_no_features(zoo: dict[str, str], val: Images, table: str, method: str) -> None:
    with pytest.raises(SettingsError, match=rf"method '{method}' compares features, and table:.* predictions alone"):
        gainfinder.transfer(zoo["vit"], table, "digits#2/4", val=val, **{**SETTINGS, "method": method})


def test_a_table_and_a_model_teach_together(zoo: dict[str, str], val: Images, table: str) -> None:
    asked = {**SETTINGS, "epochs": 1, "strategy": "parallel", "method": "kl-dp-u"}
    live, read = (
        gainfinder.transfer(zoo["vit"], [zoo["convnext"], teacher], "digits#2/4", val=val, **asked)
        for teacher in (zoo["resnet"], table)
    )
    assert_close(weights(live), weights(read))
    assert read.metrics.teacher_share == live.metrics.teacher_share


# ---- label maps ----

NAMES = [*(f"digit {digit}" for digit in range(10)), "also three", "no digit"]


class More(nn.Module):
    """A teacher with twelve classes: the digits, threes of another kind, and none of the student's."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.pretrained_cfg = {**inner.pretrained_cfg, "label_names": NAMES, "num_classes": 12}

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return torch.cat([logits, logits[:, 3:4] + 0.5, logits[:, 7:8] - 1.0], dim=1)


class Mapped(nn.Module):
    """The same, mapped by hand: probabilities of one class added up, what is left out dropped, the rest scaled to 1."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = More(inner)
        self.pretrained_cfg = inner.pretrained_cfg

    def forward(self, x: Tensor) -> Tensor:
        probs = self.inner(x).softmax(-1)
        digits = probs[:, :10].clone()
        digits[:, 3] += probs[:, 10]
        return (digits / digits.sum(1, keepdim=True)).log()


@pytest.fixture
def label_map(tmp_path: Path) -> Path:
    """Eleven of the teacher's classes to the student's ten."""
    path = tmp_path / "map.csv"
    with path.open("w", newline="") as file:
        rows = [(name, str(digit)) for digit, name in enumerate(NAMES[:10])]
        csv.writer(file).writerows([("teacher", "student"), *rows, ("also three", "3")])
    return path


@pytest.mark.parametrize("method", ["kl", "kl-dp"])
def test_a_teacher_of_more_classes_teaches_through_a_label_map(
    zoo: dict[str, str], val: Images, label_map: Path, method: str
) -> None:
    inner = timm.create_model(zoo["resnet"], pretrained=True)
    asked = {**SETTINGS, "method": method}
    found = gainfinder.transfer(zoo["vit"], More(inner), "digits#2/4", val=val, label_map=label_map, **asked)
    by_hand = gainfinder.transfer(zoo["vit"], Mapped(inner), "digits#2/4", val=val, **asked)
    assert_close(weights(found), weights(by_hand))
    assert found.metrics.positive_flips == by_hand.metrics.positive_flips
    dropped = gainfinder.predict(More(inner), val, labels=False, device="cpu", workers=0)
    mean = dropped.logits.double().softmax(1)[:, 11].mean()
    assert found.metrics.dropped_mass == (pytest.approx(float(mean), rel=1e-4),) and mean > 1e-3
    assert by_hand.metrics.dropped_mass == (0.0,)


def test_without_a_map_the_classes_must_agree_and_a_wrong_map_is_one_line(
    zoo: dict[str, str], val: Images, tmp_path: Path
) -> None:
    teacher = More(timm.create_model(zoo["resnet"], pretrained=True))
    with pytest.raises(gainfinder.GainfinderError) as refused:
        gainfinder.transfer(zoo["vit"], teacher, "digits#2/4", val=val, **SETTINGS)
    assert "\n" not in str(refused.value)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("digit 1,1\ndigit 2,22\n")
    with pytest.raises(DataError, match="22") as refused:
        gainfinder.transfer(zoo["vit"], teacher, "digits#2/4", val=val, label_map=wrong, **SETTINGS)
    assert "\n" not in str(refused.value) and "wrong.csv" in str(refused.value)


def test_one_map_for_all_teachers_or_one_for_each(zoo: dict[str, str], val: Images, label_map: Path) -> None:
    inner = timm.create_model(zoo["resnet"], pretrained=True)
    asked = {**SETTINGS, "epochs": 1, "strategy": "parallel", "method": "kl-dp-u"}
    teachers = [More(inner), More(timm.create_model(zoo["convnext"], pretrained=True))]
    one, each = (
        gainfinder.transfer(zoo["vit"], teachers, "digits#2/4", val=val, label_map=maps, **asked)
        for maps in (label_map, [label_map, label_map])
    )
    assert all(torch.equal(weights(one)[name], weights(each)[name]) for name in weights(one))
    with pytest.raises(SettingsError, match="3 label maps are given for 2 teachers"):
        gainfinder.transfer(zoo["vit"], teachers, "digits#2/4", val=val, label_map=[label_map] * 3, **asked)


# ---- ONNX ----


class Linear(nn.Module):
    """What the ONNX file below holds."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 16 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.flatten(1))
        return logits


def test_an_onnx_file_teaches_what_its_module_teaches(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Linear().eval()
    helper, path = onnx.helper, tmp_path / "net.onnx"
    weight, bias = (
        onnx.numpy_helper.from_array(tensor.detach().numpy(), name) for name, tensor in net.head.named_parameters()
    )
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
        ],
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ("N", 3, 16, 16))],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ("N", 10))],
        [weight, bias],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    module = gainfinder.load_model(net, size=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    asked = {**SETTINGS, "method": "kl-dp-u"}
    live, read = (
        gainfinder.transfer(zoo["vit"], teacher, "digits#2/4", val=val, **asked)
        for teacher in (module, f"onnx:{path}?mean=0.5&std=0.5")
    )
    assert_close(weights(live), weights(read))
    assert read.metrics.teacher_share == live.metrics.teacher_share
    assert read.metrics.positive_flips == live.metrics.positive_flips
