"""Students as ONNX files: ONNX Runtime's answers against PyTorch's, and the file read again."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import gainfinder
from gainfinder.cli import app
from gainfinder.errors import DataError, ModelError, RunFolderError, SettingsError
from gainfinder.metrics import accuracy_change
from gainfinder.predictions import Predictions
from gainfinder.sharing import images as images_module
from gainfinder.sharing.bundle import read_result
from tiny_models import tiny

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
Told = Callable[..., None]


def change(folder: Path, name: str, edit: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((folder / name).read_text())
    edit(document)
    (folder / name).write_text(json.dumps(document))


def test_the_file_answers_as_the_student(result: Path, tmp_path: Path) -> None:
    file = tmp_path / "student.onnx"
    found = gainfinder.export(result, file)
    told = json.loads((result / "result.json").read_text())
    after = Predictions.load(result / "predictions" / "after.parquet")
    assert found.images == told["samples"] == 64 and found.accuracy_torch == told["accuracy_after"]
    assert found.disagreements == 0 and found.largest_difference < 1e-4
    assert found.accuracy_onnx == found.accuracy_torch and found.delta_ci_pp == (0.0, 0.0)
    assert found.bytes == file.stat().st_size and not found.int8 and found.calibrated_on == 0
    assert json.loads(json.dumps(found.to_dict()))["delta_pp"] == 0.0
    there = gainfinder.load_model(found.reference)
    ours = gainfinder.load_model(f"local-dir:{result}/student")
    assert there.preprocessing == ours.preprocessing and there.class_names == ours.class_names
    again = gainfinder.predict(there, gainfinder.load_images("digits#1/4").select(range(64)), device="cpu")
    torch.testing.assert_close(again.logits, after.logits, rtol=1e-4, atol=1e-4)
    session = runtime.InferenceSession(str(file))  # by others: any number of images, their inputs described
    (image,) = session.get_inputs()
    assert image.shape[1:] == [3, 16, 16] and isinstance(image.shape[0], str)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["mean"] == "0.5,0.5,0.5" and json.loads(metadata["gainfinder.preprocessing"])["crop_pct"] == 1.0
    for count in (1, 5):
        (rows,) = session.run(None, {image.name: np.zeros((count, 3, 16, 16), np.float32)})
        assert rows.shape == (count, 10)


def test_integers_are_calibrated_on_transfer_images_and_measured(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "student.onnx"
    monkeypatch.setattr(images_module, "CALIBRATION", 20)
    found = gainfinder.export(result, file, int8=True)
    assert found.int8 and found.calibrated_on == 20
    assert 0 < found.largest_difference < 2, "coarser, and yet the same network"
    images = gainfinder.load_images("digits#1/4").select(range(64))
    before, after = (
        gainfinder.predict(reference, images, device="cpu")
        for reference in (f"local-dir:{result}/student", found.reference)
    )
    change = accuracy_change(before, after)
    assert found.delta_pp == pytest.approx(change.delta_pp) and found.delta_ci_pp == pytest.approx(change.ci_pp)
    assert found.disagreements == int((before.predicted != after.predicted).sum())
    import onnx

    kinds = {node.op_type for node in onnx.load(str(file)).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_calibration_takes_the_same_images_and_none_measured_on(result: Path) -> None:
    first = images_module.calibration_images(read_result(result))
    assert len(first) == images_module.CALIBRATION
    assert first.ids == images_module.calibration_images(read_result(result)).ids != tuple(sorted(first.ids))
    change(result, "config.json", lambda one: one["data"].update(reference="digits#1/4"))
    measured = Predictions.load(result / "predictions" / "before.parquet").ids
    assert not {*measured} & {*images_module.calibration_images(read_result(result)).ids}


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_architectures_with_batch_norm_and_attention(
    name: str, result: Path, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm
    from timm.models import save_for_hf

    arguments = {"img_size": 32, "depth": 1} if name == "test_vit" else {}
    module: Any = timm.create_model(name, num_classes=10, **arguments).eval()
    own = {"num_classes": 10, "crop_pct": 0.9, "interpolation": "bilinear", "input_size": (3, 32, 32)}
    module.pretrained_cfg = {**module.pretrained_cfg, **own}
    student = result / "student"
    shutil.rmtree(student)
    save_for_hf(module, str(student), safe_serialization=True)
    told(student_reference=f"local-dir:{student}?crop_rounding=down")
    monkeypatch.setattr(images_module, "CALIBRATION", 8)
    data = gainfinder.load_images("digits#1/4").select(range(64))  # the result's answers are another network's
    plain = gainfinder.export(result, tmp_path / "plain.onnx", data=data, limit=8)
    assert plain.images == 8 and plain.disagreements == 0 and plain.largest_difference < 1e-3
    there = gainfinder.load_model(plain.reference)
    assert there.preprocessing == gainfinder.load_model(f"local-dir:{student}?crop_rounding=down").preprocessing
    if name == "test_resnet":  # one of the two will do
        return
    coarse = gainfinder.export(result, tmp_path / "coarse.onnx", data=data, limit=8, int8=True, opset=18)
    assert coarse.calibrated_on == 8 and coarse.largest_difference > plain.largest_difference


def test_images_that_are_not_those_measured_on(result: Path, tmp_path: Path) -> None:
    file = tmp_path / "student.onnx"
    change(result, "config.json", lambda one: one["val"].update(reference="digits#2/4"))
    with pytest.raises(DataError, match=r"has no image .* which the result was measured on; give images as `data`"):
        gainfinder.export(result, file)
    change(result, "config.json", lambda one: one["val"].update(reference=str(tmp_path / "gone")))
    with pytest.raises(DataError, match=r"gone.*give images as `data`"):
        gainfinder.export(result, file)
    change(result, "config.json", lambda one: one["val"].update(reference="digits#1/4", pixels="0" * 32))
    with pytest.raises(DataError, match="its images are others"):
        gainfinder.export(result, file)
    found = gainfinder.export(result, file, data="digits#2/4", limit=10)
    assert found.images == 10 and found.data == "digits#2/4" and found.accuracy_onnx is not None
    assert [path.name for path in tmp_path.glob("*.onnx")] == ["student.onnx"]


class Edited:
    """Images of which some were turned upside down in place."""

    def __init__(self, reader: Any, turned: set[int]) -> None:
        self.reader, self.turned = reader, turned

    def read(self, index: int) -> Any:
        image = self.reader.read(index)
        return image.rotate(180) if index in self.turned else image

    def where(self, index: int) -> str:
        return str(self.reader.where(index))


def test_images_that_no_digest_holds_are_told_by_the_answers(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 64 images the contents of 16 are in the digest, every fourth from the first on."""
    file = tmp_path / "student.onnx"
    ids = Predictions.load(result / "predictions" / "after.parquet").ids

    def load(reference: str, *, labels: bool) -> Any:
        images = gainfinder.load_images(reference, labels=labels)
        turned = {int(images.positions[images.ids.index(ids[row])]) for row in (1, 2, 5)}
        return replace(images, reader=Edited(images.reader, turned))

    monkeypatch.setattr(images_module, "load_samples", load)
    message = rf"answers 3 of 64 images \('{ids[1]}' and '{ids[2]}' …\) otherwise than .*; give images as `data`"
    with pytest.raises(DataError, match=message):
        gainfinder.export(result, file)
    assert not file.exists()


def test_what_rounding_explains_is_no_other_image(result: Path, tmp_path: Path) -> None:
    path = result / "predictions" / "after.parquet"
    old = Predictions.load(path)
    noise = 1e-3 * old.logits.abs().max() * torch.linspace(-1, 1, old.logits.numel()).view_as(old.logits)
    replace(old, logits=old.logits + noise).write(path)
    assert gainfinder.export(result, tmp_path / "student.onnx", limit=8).images == 8


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "name", ["student/model.safetensors", "result.json", "config.json", "predictions/after.parquet", "report.html"]
)
def test_a_results_own_files_are_never_replaced(
    finished: Path, monkeypatch: pytest.MonkeyPatch, name: str, force: bool
) -> None:
    monkeypatch.setattr("gainfinder.sharing.export._student", None)  # refused before anything is loaded
    kept = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(
        RunFolderError, match=r"lies in the result folder .*a name that ends in \.onnx, or one elsewhere"
    ):
        gainfinder.export(finished, finished / name, force=force)
    assert kept == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


def test_a_link_to_a_results_own_file_is_refused_and_an_onnx_file_beside_them_is_not(
    result: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(result / "student" / "model.safetensors")
    with pytest.raises(RunFolderError, match="lies in the result folder"):
        gainfinder.export(result, link, force=True)
    beside = result / "student" / "model.onnx"
    gainfinder.export(result, beside, limit=4)
    assert gainfinder.export(result, beside, limit=8, force=True).images == 8


def test_labels_that_are_others_are_told(result: Path, tmp_path: Path) -> None:
    for path in (result / "predictions").glob("*.parquet"):
        old = Predictions.load(path)
        assert old.target is not None
        swapped = Predictions(**{**vars(old), "target": 9 - old.target})
        swapped.write(path)
    document = json.loads((result / "result.json").read_text())
    for name, one in (("before", "accuracy_before"), ("after", "accuracy_after")):
        document[one] = Predictions.load(result / "predictions" / f"{name}.parquet").accuracy
    (result / "result.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="its labels are others"):
        gainfinder.export(result, tmp_path / "student.onnx")


def test_python_code_runs_only_where_it_is_named(result: Path, told: Told, tmp_path: Path) -> None:
    source = (
        "import sys; sys.path.insert(0, {!r})\nfrom tiny_models import tiny\ndef net():\n    return tiny('convnext')\n"
    )
    helpers = str(Path(__file__).parents[1] / "helpers")
    (tmp_path / "nets.py").write_text(source.format(helpers))
    reference = f"file:{tmp_path}/nets.py:net"
    told(student_reference=f"{reference}@{result}/student/model.safetensors")
    with pytest.raises(ModelError, match="runs Python code: read it, and where you trust it give the student"):
        gainfinder.export(result, tmp_path / "student.onnx")
    found = gainfinder.export(result, tmp_path / "student.onnx", student=reference)
    assert found.disagreements == 0
    assert found.accuracy_torch == json.loads((result / "result.json").read_text())["accuracy_after"]
    told(student_reference=None)
    with pytest.raises(ModelError, match="no reference can load its student"):
        gainfinder.export(result, tmp_path / "other.onnx")


def test_what_is_refused(result: Path, tmp_path: Path) -> None:
    file = tmp_path / "student.onnx"
    with pytest.raises(SettingsError, match="`opset` is 9: expected 14 to 20"):
        gainfinder.export(result, file, opset=9)
    with pytest.raises(SettingsError, match="`limit` is 0"):
        gainfinder.export(result, file, limit=0)
    with pytest.raises(RunFolderError, match="no result of gainfinder"):
        gainfinder.export(tmp_path, file)
    file.write_bytes(b"mine")
    with pytest.raises(RunFolderError, match="choose another `onnx`"):
        gainfinder.export(result, file / "x.onnx")
    with pytest.raises(RunFolderError, match=r"exists already.*`force`"):
        gainfinder.export(result, file)
    with pytest.raises(ModelError, match="weights do not fit"):
        gainfinder.export(result, file, student=tiny("resnet"), force=True)
    assert file.read_bytes() == b"mine"


def test_the_command_states_the_difference(result: Path, tmp_path: Path) -> None:
    runner, file = CliRunner(), tmp_path / "student.onnx"
    done = runner.invoke(app, ["export", str(result), "--onnx", str(file), "--limit", "20"])
    assert done.exit_code == 0, done.stderr
    assert "in PyTorch" in done.stdout and "other answers on 0 of 20 images" in done.stdout
    assert f"load it as onnx:{file}" in done.stdout
    again = runner.invoke(app, ["export", str(result), "--onnx", str(file), "--limit", "20"])
    assert again.exit_code == 2 and "--force" in again.stderr
