"""What is assumed of a model, or passed over in data, is told in one line; what can be settled is settled."""

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

import gainfinder
from gainfinder.errors import DataError, ModelError
from gainfinder.models.from_table import load_table
from gainfinder.models.reference import ModelRef
from gainfinder.models.weights import load_weights

NAMES = ("ant", "bee", "cat")
COLOURS = {"ant": (220, 20, 20), "bee": (20, 220, 20), "cat": (20, 20, 220)}


class Net(nn.Module):
    """Tells red, green and blue images apart; `change` is applied to its features, `answer` to its logits."""

    def __init__(
        self, change: Callable[[Tensor], Tensor] | None = None, answer: Callable[[Tensor], Any] | None = None
    ) -> None:
        super().__init__()
        self.change, self.answer = change, answer
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            self.head.weight.copy_(4 * torch.eye(3))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Any:
        features = x.mean((2, 3))
        logits = self.head(features if self.change is None else self.change(features))
        return logits if self.answer is None else self.answer(logits)


def png(name: str) -> Image.Image:
    return Image.fromarray(np.full((8, 8, 3), COLOURS[name], np.uint8))


def write(root: Path, folders: list[str]) -> str:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for i in range(2):
            png(folder.rpartition("/")[2]).save(root / folder / f"{i}.png")
    return str(root)


def encoded(name: str) -> bytes:
    stream = io.BytesIO()
    png(name).save(stream, "PNG")
    return stream.getvalue()


def parquet(path: Path, **columns: Any) -> str:
    pq.write_table(pa.table({"image": [encoded(name) for name in NAMES], **columns}), path)
    return str(path)


def load(module: nn.Module) -> Any:
    return gainfinder.load_model(module, size=8, mean=0.5, std=0.5, class_names=NAMES)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, logger="gainfinder")
    return caplog


@pytest.mark.parametrize(
    "answer",
    [lambda logits: {"logits": logits, "features": logits[:, :1]}, lambda logits: [logits], lambda logits: (logits,)],
)
def test_logits_in_a_dict_or_alone_in_a_list_are_found(answer: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "data", list(NAMES))
    assert gainfinder.predict(load(Net(answer=answer)), data, device="cpu", workers=0).accuracy == 1


def test_several_outputs_are_refused_and_shown() -> None:
    with pytest.raises(ModelError, match=r"got tuple of 2: \(1, 3\), \(1, 3\); .*wrap"):
        load(Net(answer=lambda logits: (logits, logits)))


def test_answers_that_change_from_call_to_call_are_told(told: pytest.LogCaptureFixture) -> None:
    load(Net(change=nn.functional.dropout))
    assert "answers the same image differently from call to call" in told.text


def test_answers_that_depend_on_the_batch_are_told(told: pytest.LogCaptureFixture) -> None:
    load(Net(change=lambda features: features - features.mean(0)))
    assert "depends on the other images of the batch" in told.text


def test_layers_of_torch_are_told_too_where_they_take_their_statistics_from_the_batch(
    told: pytest.LogCaptureFixture,
) -> None:
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    load(nn.Sequential(norm, nn.Flatten(), nn.Linear(3 * 8 * 8, 3)))
    assert "depends on the other images of the batch" in told.text


def test_a_hook_that_changes_answers_is_told(told: pytest.LogCaptureFixture) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    module[0].register_forward_hook(lambda layer, inputs, output: nn.functional.dropout(output))
    load(module)
    assert "answers the same image differently from call to call" in told.text


def test_what_is_built_of_known_layers_is_loaded_by_one_pass() -> None:
    last = nn.Linear(3 * 8 * 8, 3)
    nn.init.constant_(last.bias, -2.0)  # no probabilities, whatever the weights
    module = nn.Sequential(nn.Flatten(), last)
    passes: list[nn.Module] = []
    with nn.modules.module.register_module_forward_hook(lambda layer, inputs, output: passes.append(layer)):
        load(module)
    assert sum(isinstance(layer, nn.Flatten) for layer in passes) == 1


def test_steady_models_are_told_nothing_of(told: pytest.LogCaptureFixture) -> None:
    load(Net(change=nn.Dropout(0.5).eval()))
    assert not told.records


def with_names(names: Any) -> Any:
    module: Any = Net()
    module.pretrained_cfg = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3, "label_names": names}
    return gainfinder.load_model(module)


def test_names_of_a_configuration_that_do_not_fit_are_told(told: pytest.LogCaptureFixture) -> None:
    assert with_names(["ant", "bee"]).class_names is None
    assert "names 2 classes, it has 3 outputs" in told.text
    assert with_names({"1": "ant", "2": "bee", "3": "cat"}).class_names is None
    assert "indices in label_names are not 0 to 2" in told.text


def test_which_of_several_weights_in_a_checkpoint_is_told(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    plain = Net().state_dict()
    averaged = {name: value + 1 for name, value in plain.items()}
    torch.save({"state_dict": plain, "state_dict_ema": averaged, "epoch": 3}, tmp_path / "two.pth")
    taken = load_weights(tmp_path / "two.pth")
    assert torch.equal(taken["head.bias"], averaged["head.bias"])
    assert "the weights under 'state_dict_ema' are taken, not those under 'state_dict'" in told.text
    told.clear()
    torch.save({"state_dict": plain, "model": plain}, tmp_path / "same.pth")
    load_weights(tmp_path / "same.pth")
    assert not told.records


def test_what_own_weights_of_torchvision_leave_open_is_told(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    with torch.random.fork_rng():
        module = torchvision.models.shufflenet_v2_x0_5(num_classes=3)
    torch.save(module.state_dict(), tmp_path / "own.pt")
    reference = f"torchvision:shufflenet_v2_x0_5@{tmp_path / 'own.pt'}"
    gainfinder.load_model(f"{reference}?size=32")
    assert "mean 0.485,0.456,0.406 and std" in told.text and "give ?mean=…&std=…" in told.text
    assert "size 224" not in told.text and "names 1000 classes" not in told.text
    told.clear()
    gainfinder.load_model(f"{reference}?size=32&mean=0.5&std=0.5")
    assert not told.records


def test_probabilities_called_logits_in_a_table_are_told(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    for kind, values in (("logit", "0.8,0.1,0.1"), ("prob", "0.8,0.1,0.1"), ("logit", "2,0.1,0.1")):
        header = ",".join(["id", *(f"{kind}:{name}" for name in NAMES)])
        (tmp_path / "table.csv").write_text(f"{header}\na.png,{values}\nb.png,{values}\n")
        told.clear()
        load_table(ModelRef(source="table", name=str(tmp_path / "table.csv")))
        assert ("are taken as logits" in told.text) == ((kind, values) == ("logit", "0.8,0.1,0.1"))


@pytest.mark.parametrize("labels", [[0.0, 1.0, 2.0], [b"ant", b"bee", b"cat"], ["ant", "bee", "cat"], [0, 1, 2]])
def test_labels_as_tables_store_them(labels: list[Any], tmp_path: Path) -> None:
    data = parquet(tmp_path / "data.parquet", label=labels)
    assert gainfinder.predict(load(Net()), data, device="cpu", workers=0).accuracy == 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, float("nan"), 1.0], r"1 of 3 labels are missing \(null\)"),
        ([-1, 0, 1], "label -1 .* is out of range: .*drop these rows"),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "got .*list.*one-hot labels store the position"),
        ([True, False, True], "got True .*store the class's name"),
    ],
)
def test_labels_that_cannot_be_used_say_what_to_do(labels: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        gainfinder.load_images(parquet(tmp_path / "data.parquet", label=labels))


@pytest.mark.parametrize(
    "column", [[1.0, 0.0, 0.0], [[0], [1], [2]], [True, False, False]], ids=["floats", "lists", "truth values"]
)
def test_columns_that_may_be_labels_are_not_passed_over_silently(
    column: list[Any], tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    assert gainfinder.load_images(parquet(tmp_path / "data.parquet", target=column)).labels is None
    assert "not read: target" in told.text


@pytest.mark.parametrize(
    ("images", "remedy"),
    [(["a.png", "b.png"], "read the files and store their bytes"), ([[0, 1], [2, 3]], "of pixels make .png files")],
)
def test_image_columns_without_bytes_say_what_to_do(images: list[Any], remedy: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": images}), tmp_path / "data.parquet")
    with pytest.raises(DataError, match=remedy):
        gainfinder.load_images(str(tmp_path / "data.parquet"))


def test_folders_within_class_folders_are_told(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    images = gainfinder.load_images(write(tmp_path / "pets", ["insects/ant", "insects/bee", "mammals/cat"]))
    assert images.class_names == ("insects", "mammals")
    assert "first level of folders (2: insects, mammals)" in told.text and "move them up" in told.text
    told.clear()
    for name in NAMES:
        for part in ("left", "right"):
            (tmp_path / "parts" / name / part).mkdir(parents=True)
            png(name).save(tmp_path / "parts" / name / part / "0.png")
    gainfinder.load_images(str(tmp_path / "parts"))
    assert not told.records


@pytest.mark.parametrize("beside", ["labels.txt", "0.cls", "classes.txt", "train.csv"])
def test_files_that_may_hold_labels_are_told_as_such(
    beside: str, tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    png("ant").save(data / "0.png")
    (data / beside).write_text("0\n")
    gainfinder.load_images(str(data))
    assert f"('{beside}'); if they hold labels" in told.text


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("notes.txt", "make a table, a row each"), ("photos.zip", "unpack it"), ("x.npz", "store their bytes")],
)
def test_other_files_say_what_to_do(name: str, remedy: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=remedy):
        gainfinder.load_images(str(tmp_path / name))


def test_parquet_in_a_folder_below_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    parquet(tmp_path / "data" / "train.parquet")
    with pytest.raises(DataError, match=r"mostly \.parquet \(give the folder in which they lie\)"):
        gainfinder.load_images(str(tmp_path))
