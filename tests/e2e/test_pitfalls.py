"""Cases that went wrong once, or nearly did."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

import gainfinder
from gainfinder import load_model
from gainfinder.data.images import Images
from gainfinder.errors import SettingsError
from killing import KillAtStage, Killed
from transfers import SHORT, Run, reproducible

SETTINGS: Run = {**SHORT, "epochs": 2, "limit": 100}


class Permuted(nn.Module):
    """A digit classifier whose outputs stand in another order, and say so."""

    def __init__(self, inner: Any, order: list[int]) -> None:
        super().__init__()
        self.inner, self.order = inner, order
        self.pretrained_cfg = {**inner.pretrained_cfg, "label_names": [str(digit) for digit in order]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)[:, self.order]


def module(zoo: dict[str, str], name: str, *, named: bool = True) -> nn.Module:
    loaded: Any = timm.create_model(zoo[name], pretrained=True)
    if not named:
        loaded.pretrained_cfg = {k: v for k, v in loaded.pretrained_cfg.items() if k != "label_names"}
    found: nn.Module = loaded
    return found


@pytest.mark.parametrize("unnamed_first", [True, False])
def test_classes_are_matched_by_name_where_the_first_model_has_none(zoo: dict[str, str], unnamed_first: bool) -> None:
    plain, permuted = module(zoo, "vit", named=False), Permuted(module(zoo, "resnet"), [3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    models: list[Any] = [plain, permuted] if unnamed_first else [permuted, zoo["vit"]]
    found = gainfinder.scan(models, "digits#1/4", device="cpu", workers=0)
    expected = gainfinder.scan([zoo["vit"], zoo["resnet"]], "digits#1/4", device="cpu", workers=0)
    assert {m.accuracy for m in found.models} == {m.accuracy for m in expected.models}
    assert {p.positive_flips for p in found.pairs} == {p.positive_flips for p in expected.pairs}


def test_a_permuted_teacher_teaches_the_same(zoo: dict[str, str]) -> None:
    permuted = Permuted(module(zoo, "resnet"), [3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    one, other = (
        reproducible(gainfinder.transfer(zoo["vit"], teacher, "digits#2/4", val="digits#1/4", **SETTINGS).account)
        for teacher in (zoo["resnet"], permuted)
    )
    assert {**one, "teachers": None} == {**other, "teachers": None}


@pytest.mark.parametrize("epoch", [1, 2])
def test_killed_while_measuring_the_epoch_is_not_trained_again(zoo: dict[str, str], tmp_path: Path, epoch: int) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", val="digits#1/4", out=whole, **SETTINGS)
    asked = {**SETTINGS, "val": "digits#1/4", "out": killed}
    with pytest.raises(Killed):
        callback = KillAtStage(f"measuring after epoch {epoch}")
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", callbacks=[callback], **asked)
    (killed / "epochs.jsonl").unlink(missing_ok=True)  # the other write of a checkpoint may not have happened
    with pytest.raises(Killed):  # no training is left of that epoch: the same stage comes first
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", callbacks=[callback], **asked)
    gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", **asked)
    again = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", **asked)
    assert (whole / "epochs.jsonl").read_bytes() == (killed / "epochs.jsonl").read_bytes()
    assert again.metrics.transfer_delta_pp == json.loads((whole / "result.json").read_text())["transfer_delta_pp"]
    assert not (killed / "checkpoint.pt").exists()


def test_a_finished_transformers_run_is_returned_again(zoo: dict[str, str], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=10,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "hf")
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "hf")
    asked = {**SETTINGS, "val": "digits#1/4", "out": tmp_path / "run"}
    first = gainfinder.transfer(f"hf:{tmp_path / 'hf'}", zoo["vit"], "digits#2/4", **asked)
    again = gainfinder.transfer(f"hf:{tmp_path / 'hf'}", zoo["vit"], "digits#2/4", **asked)
    assert again.account == {**first.account, "resumed_epochs": 2}
    assert first.metrics.student_reference.startswith(f"hf:{tmp_path / 'run' / 'student'}")
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(first.student.logits(x), again.student.logits(x))


def write_folders(images: Images, folder: Path, names: list[str]) -> Path:
    for i in range(len(images)):
        path = folder / names[i % len(names)] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        images.read(i).save(path)
    return folder


def test_label_free_transfer_takes_images_of_any_classes(
    zoo: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_folders(gainfinder.load_images("digits").select(range(60)), tmp_path / "data", ["cats", "dogs"])
    with pytest.raises(gainfinder.GainfinderError):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], str(data), **SETTINGS)
    metrics = gainfinder.transfer(zoo["vit"], zoo["resnet"], str(data), labels="none", **SETTINGS).metrics
    assert metrics.accuracy_after is None and 0 < metrics.agreement <= 1
    assert "measuring without labels" in caplog.text
    assert len(gainfinder.predict(zoo["vit"], str(data), labels=False, device="cpu", workers=0)) == 60


def test_data_with_some_of_the_classes_in_another_order(zoo: dict[str, str], tmp_path: Path) -> None:
    digits = gainfinder.load_images("digits#1/4")
    assert digits.labels is not None
    sevens_and_twos = digits.select(np.flatnonzero(np.isin(digits.labels, [2, 7])))
    assert sevens_and_twos.labels is not None
    for i in range(len(sevens_and_twos)):
        path = tmp_path / str(sevens_and_twos.labels[i]) / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        sevens_and_twos.read(i).save(path)
    expected = gainfinder.predict(zoo["vit"], sevens_and_twos, device="cpu", workers=0)
    assert gainfinder.predict(zoo["vit"], str(tmp_path), device="cpu", workers=0).accuracy == expected.accuracy


def test_a_scan_has_no_self_pairs(zoo: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="is given twice"):
        gainfinder.scan([zoo["vit"], zoo["vit"]], "digits#1/4", device="cpu", workers=0)
    modules = [module(zoo, "vit"), module(zoo, "vit")]
    found = gainfinder.scan(modules, "digits#1/20", device="cpu", workers=0)
    assert [one.model for one in found.models] == ["VisionTransformer", "VisionTransformer-2"]
    assert [pair.positive_flips for pair in found.pairs] == [0.0, 0.0]
    assert [pair.flip_entropy for pair in found.pairs] == [None, None]


def test_scan_and_predict_leave_modules_as_they_are(zoo: dict[str, str]) -> None:
    own = module(zoo, "resnet").half().train()
    gainfinder.predict(own, "digits#1/20", device="cpu", workers=0)
    gainfinder.scan([own, zoo["vit"]], "digits#1/20", device="cpu", workers=0)
    assert own.training and next(own.parameters()).dtype == torch.float16


def test_batch_norm_with_batches_of_one_image_is_refused(zoo: dict[str, str], run_folder: Path) -> None:
    with pytest.raises(SettingsError, match="batch-norm layers, which need two images or more"):
        gainfinder.transfer(zoo["resnet"], zoo["vit"], "digits#2/4", out=run_folder, **{**SETTINGS, "batch_size": 1})
    assert not run_folder.exists()


def test_a_larger_teacher_does_not_change_what_the_student_sees(zoo: dict[str, str]) -> None:
    """A student with batch-norm adapts to whatever resampling it is shown; the teacher's size must have no say."""
    asked = {**SETTINGS, "epochs": 1, "method": "kl-dp", "lr": 0.0}
    beside = [
        gainfinder.transfer(zoo["resnet"], zoo["convnext"] + size, "digits#2/4", **asked) for size in ("", "?size=24")
    ]
    weights = [run.student.module.state_dict() for run in beside]
    assert weights[0]["bn1.running_mean"].ne(load_model(zoo["resnet"]).module.state_dict()["bn1.running_mean"]).any()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
