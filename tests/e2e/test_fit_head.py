"""A new head from end to end: fitted in a folder, loaded by its reference, moved to a student by a transfer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

import gainfinder
from gainfinder.cli import app
from gainfinder.data import Images, holdout
from gainfinder.errors import DataError, ModelError, RunFolderError, SettingsError
from gainfinder.heads import HeadResult, fit_softmax
from gainfinder.models import FeatureTap
from gainfinder.runs import Callback
from killing import Killed
from onnx_files import Net, write
from transfers import document, same, weights

RUNNER = CliRunner()
FACTORY = """
import sys
sys.path.insert(0, {helpers!r})
from tiny_models import tiny

def net():
    return tiny("resnet")
"""


def write_parity(folder: Path, numbers: range) -> str:
    """Digits in folders by parity, the classes in an order that is not the digits'."""
    images = gainfinder.load_images("digits")
    assert images.labels is not None
    for number in numbers:
        path = folder / ("odd" if images.labels[number] % 2 else "even") / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        images.read(number).save(path)
    return str(folder)


@pytest.fixture(scope="module")
def parity(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_parity(tmp_path_factory.mktemp("parity"), range(240))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_parity(tmp_path_factory.mktemp("measured"), range(400, 500))


def fitted(model: Any, data: Any, **settings: Any) -> HeadResult:
    return gainfinder.fit_head(model, data, **{"device": "cpu", "workers": 0, **settings})


def test_the_backbone_stays_and_the_head_is_that_of_its_features(
    zoo: dict[str, str], parity: str, measured: str, run_folder: Path
) -> None:
    found = fitted(zoo["resnet"], parity, val=measured, out=run_folder)
    before, after = load_file(Path(zoo["resnet"].removeprefix("local-dir:")) / "model.safetensors"), weights(run_folder)
    head = {"fc.weight", "fc.bias"}
    assert before.keys() == after.keys() and any("running_var" in name for name in before)
    assert same({k: before[k] for k in before.keys() - head}, {k: after[k] for k in after.keys() - head})
    assert after["fc.weight"].shape == (2, 32)

    student = gainfinder.load_model(f"local-dir:{run_folder}/student")
    assert student.class_names == ("even", "odd") and same(student.module.state_dict(), weights(found))
    images = gainfinder.load_images(parity)
    transform = student.preprocessing.evaluation_transform()
    x = torch.stack([transform(images.read(i)) for i in range(len(images))])
    with FeatureTap(student, layer="fc") as tap, torch.no_grad():
        student.logits(x)
        features = tap.take()
    metrics = found.metrics
    target = torch.from_numpy(images.labels)
    expected = fit_softmax(features, target, num_classes=2, weight_decay=metrics.weight_decay)
    torch.testing.assert_close(expected.weight_CD, after["fc.weight"], rtol=1e-3, atol=1e-3)

    told = gainfinder.predict(metrics.student_reference or "", measured, device="cpu", workers=0)
    assert metrics.accuracy_after == told.accuracy > 0.85
    assert told.target is not None
    assert metrics.log_loss_after == pytest.approx(float(nn.functional.cross_entropy(told.logits, told.target)))
    assert torch.equal(gainfinder.Predictions.load(run_folder / "predictions" / "after.parquet").logits, told.logits)
    assert (metrics.samples, metrics.val_samples, metrics.val_held_out) == (240, 100, False)
    assert metrics.accuracy_before is None, "it knows digits, and not their parity"
    assert metrics.digest == student.weights_digest() and metrics.epochs == 1 and metrics.folds == 5
    assert metrics.weight_decay in {one.weight_decay for one in metrics.tried}
    assert document(run_folder, "head.json") == metrics.to_dict()
    assert not (run_folder / "features").exists()


def test_two_fitted_models_teach_each_other(zoo: dict[str, str], parity: str, measured: str, tmp_path: Path) -> None:
    references = [str(fitted(zoo[n], parity, out=tmp_path / n).metrics.student_reference) for n in ("vit", "convnext")]
    found = gainfinder.transfer(
        references[0], references[1], parity, val=measured, out=tmp_path / "better", preset="gentle", epochs=1,
        guard=False, device="cpu", workers=0,
    )  # fmt: skip
    assert found.student.class_names == ("even", "odd") and found.metrics.student_reference is not None
    heads = [gainfinder.predict(one, measured, device="cpu", workers=0) for one in references]
    assert found.metrics.accuracy_before == heads[0].accuracy
    teacher = gainfinder.Predictions.load(tmp_path / "better" / "predictions" / "teacher-1.parquet")
    assert torch.equal(teacher.logits, heads[1].logits) and heads[1].accuracy > 0.8
    again = gainfinder.predict(found.metrics.student_reference, measured, device="cpu", workers=0)
    assert again.class_names == ("even", "odd") and again.accuracy == found.metrics.accuracy_after


def test_a_tenth_is_set_apart_as_in_a_transfer_and_known_classes_are_measured_before(
    zoo: dict[str, str], run_folder: Path
) -> None:
    digits = gainfinder.load_images("digits").select(range(600))
    metrics = fitted(zoo["convnext"], digits, out=run_folder).metrics
    rest, held_out = holdout(digits)
    assert (metrics.samples, metrics.val_samples, metrics.val_held_out) == (len(rest), len(held_out), True)
    as_it_was = gainfinder.predict(zoo["convnext"], held_out, device="cpu", workers=0)
    assert metrics.accuracy_before == as_it_was.accuracy < metrics.accuracy_after, "it had learned six digits well"
    assert gainfinder.Predictions.load(run_folder / "predictions" / "before.parquet").ids == held_out.ids


class Stopping(Callback):
    """Ends the run when a stage begins, or after so many images of it."""

    def __init__(self, stage: str, images: int = 0) -> None:
        self.name, self.left, self.now = stage, images, ""

    def stage(self, name: str, images: int) -> None:
        self.now = name
        self._check()

    def advance(self, images: int) -> None:
        if self.now.startswith(self.name):
            self.left -= images
        self._check()

    def _check(self) -> None:
        if self.now.startswith(self.name) and self.left <= 0:
            raise Killed


@pytest.fixture(scope="module")
def whole(zoo: dict[str, str], parity: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a head that is fitted without an interruption, and its digest."""
    out = tmp_path_factory.mktemp("heads") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gainfinder.heads.features.PART_IMAGES", 32)
        return out, fitted(zoo["resnet"], parity, out=out, batch_size=32).metrics.digest


@pytest.mark.parametrize(
    "stop", [lambda: Stopping("computing features", 100), lambda: Stopping("fitting"), lambda: Stopping("measuring")]
)
def test_killed_and_started_again_it_ends_with_the_same_head(
    zoo: dict[str, str],
    parity: str,
    whole: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    stop: Callable[[], Callback],
) -> None:
    monkeypatch.setattr("gainfinder.heads.features.PART_IMAGES", 32)
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        fitted(zoo["resnet"], parity, out=folder, batch_size=32, callbacks=[stop()])
    assert not (folder / "head.json").exists() and list((folder / "features").iterdir())
    (folder / ".partial-12345678-student").mkdir()
    again = fitted(zoo["resnet"], parity, out=folder, batch_size=32)
    assert same(weights(folder), weights(whole[0])) and again.metrics.digest == whole[1]
    assert {path.name for path in folder.iterdir()} - {".lock"} == {
        "config.json",
        "head.json",
        "predictions",
        "student",
    }


class Counting(Callback):
    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str, images: int) -> None:
        self.stages.append(name)


def test_a_finished_one_is_found_and_another_refused(
    zoo: dict[str, str], parity: str, run_folder: Path, measured: str
) -> None:
    first = fitted(zoo["resnet"], parity, out=run_folder)
    written = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*.json")}
    again = fitted(zoo["resnet"], parity, out=run_folder, callbacks=[counting := Counting()])
    assert again.metrics == first.metrics and not counting.stages
    assert same(weights(again), weights(first))
    for settings, named in (({"seed": 1}, "settings.seed"), ({"val": measured}, "val.reference")):
        with pytest.raises(RunFolderError, match=rf"holds a different run; nothing was changed.*{named}"):
            fitted(zoo["resnet"], parity, out=run_folder, **settings)
    with pytest.raises(RunFolderError, match=r"student\.reference"):
        fitted(zoo["vit"], parity, out=run_folder)
    with pytest.raises(RunFolderError, match="holds a different run"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits", out=run_folder, device="cpu", workers=0)
    assert {path: path.stat().st_mtime_ns for path in run_folder.rglob("*.json")} == written


def test_the_decay_that_was_chosen_gives_the_same_head_when_it_is_given(zoo: dict[str, str], parity: str) -> None:
    chosen = fitted(zoo["vit"], parity)
    given = fitted(zoo["vit"], parity, weight_decay=chosen.metrics.weight_decay)
    assert same(weights(chosen), weights(given)) and not given.metrics.tried and given.metrics.folds == 0
    other = fitted(zoo["vit"], parity, weight_decay=10.0)
    assert not same(weights(chosen), weights(other))
    assert other.metrics.student_reference is None and other.out is None


def test_a_module_is_copied_and_its_head_comes_back(parity: str, run_folder: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    classifier = gainfinder.load_model(module, size=8, mean=0.5, std=0.5)
    digest = classifier.weights_digest()
    module.train()
    found = fitted(classifier, parity, out=run_folder)
    assert classifier.weights_digest() == digest and module.training and module.get_submodule("4").out_features == 4
    assert found.metrics.student_reference is None and found.student.class_names == ("even", "odd")
    assert found.student.module.get_submodule("4").weight.shape == (2, 288)
    again = fitted(classifier, parity, out=run_folder)
    assert same(weights(again), weights(found)) and again.student.num_classes == 2


def test_other_sources_end_to_end(tmp_path: Path, parity: str) -> None:
    transformers = pytest.importorskip("transformers")
    helpers = Path(__file__).parents[1] / "helpers"
    (tmp_path / "net.py").write_text(FACTORY.format(helpers=str(helpers)))
    torch.manual_seed(0)
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.ViTConfig(**small, image_size=16, patch_size=4, num_labels=3)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "hf")
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "hf")
    for number, model in enumerate((f"hf:{tmp_path / 'hf'}", f"file:{tmp_path / 'net.py'}:net")):
        metrics = fitted(model, parity, out=tmp_path / f"head-{number}", weight_decay=0.01).metrics
        assert metrics.student_reference is not None and metrics.student_reference.startswith(model[:3])
        loaded = gainfinder.load_model(metrics.student_reference)
        assert loaded.class_names == ("even", "odd") and loaded.weights_digest() == metrics.digest
        assert metrics.train_accuracy > 0.7


def test_images_without_class_names_give_numbers_and_empty_classes_are_told(
    zoo: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    digits = gainfinder.load_images("digits").select(range(200))
    assert digits.labels is not None
    of_three = digits.relabel(np.where(digits.labels < 5, 0, 2), class_names=None, num_classes=3)
    found = fitted(zoo["vit"], of_three, weight_decay=0.1)
    assert found.student.class_names == ("0", "1", "2") and found.metrics.empty_classes == ("1",)
    assert "1 of the 3 classes have no image to fit to (1) and will never be predicted" in caplog.text
    assert not gainfinder.predict(found.student, of_three, device="cpu", workers=0).predicted.eq(1).any()


def of_one_each(images: Images) -> Images:
    assert images.labels is not None
    return images.select(np.unique(images.labels, return_index=True)[1])


def test_mistakes_are_told(zoo: dict[str, str], parity: str, tmp_path: Path) -> None:
    digits = gainfinder.load_images("digits").select(range(100))
    assert digits.labels is not None
    vit = zoo["vit"]

    def refuse(error: type[Exception], message: str, model: Any, data: Any, **settings: Any) -> None:
        with pytest.raises(error, match=message) as caught:
            fitted(model, data, out=tmp_path / "refused", **settings)
        assert "\n" not in str(caught.value) and not (tmp_path / "refused" / "head.json").exists()

    refuse(DataError, "digits: the images carry no labels, and a classifier", vit, digits.without_labels())
    refuse(DataError, "digits: the images carry no labels: give labelled", vit, parity, val=digits.without_labels())
    refuse(DataError, "all images are of one class", vit, digits.select(np.flatnonzero(digits.labels == 3)))
    twice = digits.relabel(digits.labels % 2, class_names=("crane", "crane"), num_classes=2)
    refuse(DataError, "two classes are named 'crane'", vit, twice)
    refuse(DataError, r"class", vit, parity, val=digits)
    refuse(SettingsError, "`weight_decay` is 0: expected a number above 0", vit, parity, weight_decay=0)
    lone = of_one_each(digits)
    refuse(SettingsError, "no class has two images, .* give `weight_decay`", vit, lone, val=digits)
    write(tmp_path / "net.onnx", Net())
    onnx = f"onnx:{tmp_path / 'net.onnx'}?mean=0.5&std=0.5"
    refuse(ModelError, "its classifier layer cannot be replaced, .*give the model itself", onnx, parity)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(RunFolderError, match="holds files but no run of gainfinder"):
        fitted(vit, parity, out=tmp_path / "other")


def test_broken_images_are_left_out_up_to_a_share(zoo: dict[str, str], tmp_path: Path) -> None:
    data = write_parity(tmp_path / "images", range(100))
    broken = sorted(Path(data).rglob("*.png"))[5]
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot be decoded, allowed are 0.00%"):
        fitted(zoo["vit"], data, val=data, max_broken=0)
    metrics = fitted(zoo["vit"], data, val=data, max_broken=0.02, weight_decay=0.1).metrics
    assert (metrics.samples, metrics.val_samples) == (99, 99) and str(broken) in metrics.broken_images[0]


def test_the_command(zoo: dict[str, str], parity: str, measured: str, tmp_path: Path) -> None:
    out = tmp_path / "head"
    asked = [
        "fit-head", "--model", zoo["resnet"], "--data", parity, "--val", measured, "--out", str(out),
        "--device", "cpu", "--workers", "0",
    ]  # fmt: skip
    done = RUNNER.invoke(app, asked)
    assert done.exit_code == 0, done.stderr
    assert f"{zoo['resnet']}: a head for 2 classes, fitted to 240 images of {parity}" in done.stdout
    assert f"load it as local-dir:{out}/student" in done.stdout
    told = RUNNER.invoke(app, [*asked, "--json"])
    assert json.loads(told.stdout) == document(out, "head.json")
    assert document(out, "config.json")["environment"]["command"].startswith("gainfinder")
    scan = RUNNER.invoke(
        app, ["predict", "--model", f"local-dir:{out}/student", "--data", measured, "--out", str(tmp_path / "p.csv")]
    )
    assert scan.exit_code == 0 and f"accuracy {document(out, 'head.json')['accuracy_after']:.4f}" in scan.stdout
    refused = RUNNER.invoke(app, [*asked, "--weight-decay", "-1"])
    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[-1] == "gainfinder: --weight-decay is -1: expected a number above 0"
    report = RUNNER.invoke(app, ["report", str(out)])
    assert report.exit_code == 2 and "holds a model with a new head, of which head.json tells all" in report.stderr
    other = RUNNER.invoke(app, [*asked, "--seed", "3"])
    assert other.exit_code == 2 and "settings.seed: 0 in the folder, 3 asked for" in other.stderr
