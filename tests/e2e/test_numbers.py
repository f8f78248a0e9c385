"""Hostile numbers: right results, checked naively, or an error that names the model; never a silent NaN."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import Tensor, nn
from typer.testing import CliRunner

import gainfinder
from gainfinder.cli import app
from gainfinder.data import Images
from gainfinder.errors import DataError, ModelError, NotFinite
from gainfinder.models import Classifier
from gainfinder.predictions import Predictions
from number_checks import answer, close, sure, wrong_numbers
from odd_models import PROBED, Hostile, few, of_classes
from transfers import Run, document

SETTINGS: Run = {
    "preset": "gentle", "method": "kl-dp", "epochs": 1, "batch_size": 16, "workers": 0, "device": "cpu", "guard": False,
}  # fmt: skip
UNUSABLE = {"nan": 40, "some-nan": 20, "inf": 40, "some-inf": 20, "all-masked": 20}
"""Of 40 images, how many have no probabilities."""


def data() -> Images:
    return few(64, start=100)


def odd(kind: str) -> Classifier:
    return replace(gainfinder.load_model(Hostile(kind)), reference="odd")


def transfer(student: Any, teacher: Any, out: Path, **asked: Any) -> dict[str, Any]:
    given = {**SETTINGS, "val": few(), **asked}
    gainfinder.transfer(student, teacher, given.pop("data", None) or data(), out=out, **given)
    assert [*wrong_numbers(out)] == []
    found: dict[str, Any] = document(out)
    return found


@pytest.mark.parametrize("kind", UNUSABLE)
@pytest.mark.parametrize("role", ["teacher", "student", "referee", "predicted"])
def test_a_model_without_probabilities_is_named_with_the_number_of_images(kind: str, role: str, tmp_path: Path) -> None:
    models: dict[str, Any] = {"student": Hostile(noise=0.3), "teacher": Hostile(count=100), role: odd(kind)}
    guard: Run = {"guard": True, "guard_data": few(), "labels": "none", "method": None} if role == "referee" else {}
    with pytest.raises(NotFinite, match=rf"^odd: its logits are NaN or infinite for {UNUSABLE[kind]} of 40 images"):
        if role == "predicted":
            gainfinder.predict(models[role], few(), device="cpu", workers=0)
        transfer(models["student"], models["teacher"], tmp_path / "a", referee=models.get("referee", ()), **guard)
    assert not (tmp_path / "a" / "result.json").exists()


def test_a_scan_leaves_such_a_model_out_and_says_why(tmp_path: Path) -> None:
    models: list[Any] = [Hostile(noise=0.5), odd("some-nan"), Hostile()]
    found = gainfinder.scan(models, few(), device="cpu", workers=0, out=tmp_path / "a")
    assert [one.model for one in found.models] == ["Hostile", "Hostile-2"]
    assert [(one.model, "for 20 of 40 images" in one.reason) for one in found.failed] == [("odd", True)]
    assert [*wrong_numbers(tmp_path / "a")] == []


@pytest.mark.parametrize("bank", [False, True])
def test_a_teacher_that_fails_on_views_alone_is_refused(bank: bool, tmp_path: Path) -> None:
    """It answers the three batches of images measured on, and then no more."""
    asked: Run = {"bank": tmp_path / "bank", "bank_storage": "top-3"} if bank else {}
    what = "of 64 images in view 1" if bank else "of 64 views by step 4 of epoch 1"
    with pytest.raises(NotFinite, match=rf"^Hostile: its logits are NaN or infinite for 32 {what}: expected"):
        transfer(Hostile(noise=0.3), Hostile("nan-later"), tmp_path / "a", **asked)
    kept = [np.load(path)[:, 0] for path in tmp_path.glob("bank/*/exact.npy")]
    assert bool(kept) == bank and all(np.isfinite(one).all() for one in kept)


class HiddenNaN(Hostile):
    """Features that are not finite for the darker half of many images, which its logits do not show."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.norm(x.mean(dim=1).flatten(1))
        if len(x) > PROBED:
            level = features.mean(dim=1, keepdim=True)
            features = torch.where(level <= level.median(), torch.inf, features)
        logits: Tensor = self.head(features)
        return logits.nan_to_num(0.0, 0.0, 0.0)


@pytest.mark.parametrize("method", ["cd", "crd"])
def test_features_that_are_not_finite_are_told_of_their_model(method: str, tmp_path: Path) -> None:
    asked: Run = {"method": method, **({"negatives": 16} if method == "crd" else {})}
    told = "^HiddenNaN: its features are NaN or infinite for 32 of 64 views by step 4 of epoch 1: expected finite ones"
    with pytest.raises(NotFinite, match=told):
        transfer(Hostile(noise=0.3), HiddenNaN(), tmp_path / "a", **asked)
    transfer(Hostile(noise=0.3), Hostile(), tmp_path / "b", **asked)


def test_a_head_is_not_fitted_to_features_that_are_not_finite() -> None:
    with pytest.raises(NotFinite, match=r"^HiddenNaN: its features are NaN or infinite for \d+ of 36 images: expected"):
        gainfinder.fit_head(HiddenNaN(), few(), device="cpu", workers=0, weight_decay=1.0)


def test_predictions_in_a_file_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    for name, value in (("a", 0.0), ("b", torch.nan)):
        logits = torch.eye(10)[:, :10] + value
        ids = tuple(map(str, range(10)))
        Predictions(model=name, ids=ids, logits=logits, target=None).write(tmp_path / "p" / f"{name}.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: its logits are NaN or infinite for 10 of 10 images"):
        gainfinder.scan(tmp_path / "p")
    with pytest.raises(DataError, match=r"b\.parquet: the logits of 10 of 10 images are NaN or infinite"):
        Predictions.load(tmp_path / "p" / "b.parquet")
    with pytest.raises(DataError, match="a value is nan or missing: expected finite logits"):
        transfer(Hostile(), f"table:{tmp_path / 'p' / 'b.parquet'}", tmp_path / "a")


def test_masked_classes_are_impossible_and_nothing_else_changes(tmp_path: Path) -> None:
    """A teacher without the classes 7 to 9, live and as the table of what it predicts, against naive loops."""
    found = gainfinder.predict(Hostile("masked"), few(), device="cpu", workers=0)
    plain = gainfinder.predict(Hostile(), few(), device="cpu", workers=0)
    assert torch.equal(found.logits[:, :7], plain.logits[:, :7]) and bool((found.logits[:, 7:] == -torch.inf).all())
    assert found.target is not None
    expected = [answer(row[:7]) for row in plain.logits.tolist()]
    assert found.predicted.tolist() == expected
    for told, row in zip(found.confidence.tolist(), plain.logits.tolist(), strict=True):
        assert close(told, sure(row[:7]))
    scan = gainfinder.scan([Hostile("masked"), Hostile()], few(), device="cpu", workers=0, out=tmp_path / "scan")
    right = [one == int(label) for one, label in zip(expected, found.target, strict=True)]
    assert scan.models[0].accuracy == sum(right) / 40 and [*wrong_numbers(tmp_path / "scan")] == []
    table = gainfinder.predict(Hostile("masked"), few(164), device="cpu", workers=0)
    table.write(tmp_path / "t.parquet")
    live = transfer(Hostile(noise=0.3), Hostile("masked"), tmp_path / "live")
    looked_up = transfer(Hostile(noise=0.3), f"table:{tmp_path / 't.parquet'}", tmp_path / "table")
    for name in ("accuracy_after", "positive_flips", "mean_accuracy", "routed_accuracy", "teacher_share"):
        assert live[name] == looked_up[name]


METHODS = ("kl", "kl-dp-cal", "kl-dp-soft-u", "kl-prod-cal-u", "dist-dp", "dkd-dp", "std-dp-u")


@pytest.mark.parametrize(
    ("kind", "method"),
    [*(("masked", method) for method in METHODS), ("flat", "dist-dp"), ("flat", "std-dp-u"), ("huge", "kl-dp-cal"),
     ("huge", "std-dp-u"), ("one-answer", "kl-prod-cal-u"), ("tiny", "std-dp-u")],
)  # fmt: skip
def test_teachers_at_the_edge_teach_by_every_kind_of_method(kind: str, method: str, tmp_path: Path) -> None:
    told = transfer(Hostile(noise=0.3), Hostile(kind), tmp_path / "a", method=method, lr=1e-4)
    assert told["diverged"] is None


@pytest.mark.parametrize(("classes", "images"), [(1, 40), (2, 40), (21841, 16), (10, 1)])
def test_few_and_many_classes_and_a_single_image(classes: int, images: int, tmp_path: Path) -> None:
    sets: Run = {"val": of_classes(classes, few(images)), "data": of_classes(classes, few(32, start=100))}
    guard: Run = {"guard": True, "guard_data": of_classes(classes, few(images, start=300))}
    told = transfer(Hostile(classes=classes, noise=0.3), Hostile(classes=classes), tmp_path / "a", **sets, **guard)
    assert told["samples"] == images and told["accuracy_before"] is not None


def test_a_student_all_wrong_and_one_all_right(tmp_path: Path) -> None:
    wrong, right = Hostile(count=40, shift=1), Hostile(count=40)
    told = transfer(wrong, right, tmp_path / "a", lr=1e-6)
    assert (told["accuracy_before"], told["positive_flips"], told["negative_flips"]) == (0, 1, 0)
    assert told["oracle_accuracy"] == 1 and told["knowledge_loss"] == 0
    told = transfer(right, wrong, tmp_path / "b", lr=1e-6)
    assert (told["accuracy_before"], told["positive_flips"], told["transfer_rate"]) == (1, 0, None)
    assert told["negative_flips"] == 1 and told["headroom_captured"] is None


def test_weights_that_overflow_end_a_command_with_one_line(zoo: dict[str, str], tmp_path: Path) -> None:
    big: Any = timm.create_model(zoo["vit"], pretrained=True)
    largest = float(gainfinder.predict(zoo["vit"], "digits#1/40", device="cpu", workers=0).logits.abs().max())
    with torch.no_grad():
        big.head.weight.mul_(1.2 * torch.finfo(torch.float32).max / largest)  # for the surest images alone
    nn.Module.eval(big)
    save_for_hf(big, str(tmp_path / "big"), safe_serialization=True)
    words = ["--data", "digits#1/40", "--device", "cpu", "--workers", "0"]
    reference = f"local-dir:{tmp_path / 'big'}"
    for command in (
        ["predict", "--model", reference, "--out", str(tmp_path / "p.parquet")],
        ["transfer", "--student", zoo["vit"], "--teacher", reference, "--no-guard", "--out", str(tmp_path / "t")],
    ):
        done = CliRunner().invoke(app, [*command, *words])
        last = done.stderr.splitlines()[-1]
        assert done.exit_code == 2 and last.startswith(f"gainfinder: {reference}: its logits are NaN or infinite for ")
        assert "Traceback" not in done.stderr


def test_an_onnx_file_whose_half_precision_overflows_is_named(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from onnx_files import FLOAT16, Net, write

    net = Net(classes=10)
    for name, parameter in net.named_parameters():
        if name in ("conv.bias", "head.weight"):
            nn.init.constant_(parameter, 300.0)  # 8 · 300 · 300 is beyond 65,504
    reference = f"onnx:{write(tmp_path / 'net.onnx', net, dtype=FLOAT16)}?mean=0.5&std=0.5"
    with pytest.raises(ModelError, match=r"^onnx:.*: its outputs are not finite, .* too large for its precision\?"):
        gainfinder.predict(reference, few(5), device="cpu", workers=0)
