"""The main job through the Python API, on tiny models and digits."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import gainfinder
from gainfinder.data import Images
from gainfinder.data.sampling import stratified
from gainfinder.errors import DataError, GainfinderError, ModelError, RunFolderError, SettingsError
from gainfinder.predictions import Predictions
from gainfinder.runs import learning
from gainfinder.training import Progress, checkpoint
from gainfinder.views.spec import epoch_order
from killing import KillAfter, KillAtEpoch, Killed
from transfers import SHORT, Run, document, reproducible, right, same, weights

SETTINGS: Run = {**SHORT, "epochs": 2, "limit": 200, "val": "digits#1/4"}


@pytest.mark.parametrize("method", ["kl", "xe-kl", "kl-dp", "kl-dp-u"])
def test_each_method_changes_the_student_and_accounts_for_it(
    zoo: dict[str, str], run_folder: Path, method: str
) -> None:
    result = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=run_folder, method=method, **SETTINGS)
    found = result.metrics
    assert found.student == zoo["vit"] and found.teachers == (zoo["resnet"],) and found.method == method
    gain, loss = found.knowledge_gain, found.knowledge_loss
    assert found.transfer_delta_pp == pytest.approx(100 * (gain - loss), abs=1e-9)
    assert found.transfer_delta_pp == pytest.approx(100 * (found.accuracy_after - found.accuracy_before))
    assert found.transfer_delta_ci_pp is not None
    low, high = found.transfer_delta_ci_pp
    assert low <= found.transfer_delta_pp <= high
    assert (found.teacher_share is None) == (method in {"kl", "xe-kl"})
    before, after, teacher = (
        Predictions.load(run_folder / "predictions" / f"{name}.parquet") for name in ("before", "after", "teacher-1")
    )
    assert before.accuracy == found.accuracy_before and after.accuracy == found.accuracy_after
    flips = right(teacher) & ~right(before)
    assert found.positive_flips == int(flips.sum()) / len(before)
    assert not torch.equal(before.logits, after.logits)
    assert len(result.epochs) == 2
    assert [json.loads(line) for line in (run_folder / "epochs.jsonl").read_text().splitlines()] == [
        row.to_dict() for row in result.epochs
    ]
    assert result.epochs[-1].accuracy == found.accuracy_after
    assert not (run_folder / "checkpoint.pt").exists()


def test_plain_timm_loads_the_student_with_the_same_logits(zoo: dict[str, str], run_folder: Path) -> None:
    result = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=run_folder, **SETTINGS)
    model = timm.create_model(f"local-dir:{run_folder / 'student'}", pretrained=True).eval()
    x = torch.randn(5, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(model(x), result.student.logits(x))
    assert result.metrics.student_reference == f"local-dir:{run_folder / 'student'}"
    again = gainfinder.predict(result.metrics.student_reference, "digits#1/4", device="cpu", workers=0, batch_size=32)
    assert torch.equal(again.logits, Predictions.load(run_folder / "predictions" / "after.parquet").logits)


ADAM_AND_MIXUP: Run = {
    "method": "kl-dp-u",
    "optimizer": "adamw",
    "layer_decay": 0.8,
    "ema_decay": 0.9,
    "schedule": "cosine",
    "lr_warmup": 0.3,
    "mixup": 0.5,
}


@pytest.mark.parametrize(
    ("killed_after", "every", "resumed", "recipe"),
    [(100, None, 0, {}), (250, None, 1, {}), (250, 2, 1, {}), (90, 1, 0, {}), (250, 2, 1, ADAM_AND_MIXUP)],
)
def test_a_killed_run_ends_bit_identical(
    zoo: dict[str, str], tmp_path: Path, *, killed_after: int, every: int | None, resumed: int, recipe: Run
) -> None:
    student, teacher = zoo["resnet"], zoo["vit"]  # batch-norm statistics must survive, too
    settings = {**SETTINGS, **recipe}
    gainfinder.transfer(student, teacher, "digits#2/4", out=tmp_path / "whole", **settings)
    killed = {**settings, "out": tmp_path / "killed", "checkpoint_every": every}
    with pytest.raises(Killed):
        gainfinder.transfer(student, teacher, "digits#2/4", callbacks=[KillAfter(killed_after)], **killed)
    assert not (tmp_path / "killed" / "result.json").exists()
    assert document(tmp_path / "killed", "worked.json")["seconds"] > 0
    (tmp_path / "killed" / "worked.json").write_text('{"seconds": 1000}')
    began_s = time.monotonic()
    result = gainfinder.transfer(student, teacher, "digits#2/4", **killed)
    assert result.metrics.resumed_epochs == resumed
    took_s = document(tmp_path / "killed")["seconds"]
    assert 1000 < took_s < 1000 + time.monotonic() - began_s, "earlier work is added, and the time between is not"
    assert not (tmp_path / "killed" / "worked.json").exists()
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    assert reproducible(tmp_path / "whole") == reproducible(tmp_path / "killed")
    assert (tmp_path / "whole" / "epochs.jsonl").read_text() == (tmp_path / "killed" / "epochs.jsonl").read_text()


def test_checkpoints_that_take_long_are_written_seldom(
    zoo: dict[str, str], val: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "QUICK_S", -1.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e-9)
    written: list[tuple[int, int]] = []

    def save(path: Path, *, progress: Progress, trainer: Mapping[str, Any]) -> None:
        written.append((progress.epoch, progress.step))
        checkpoint.save_checkpoint(path, progress=progress, trainer=trainer)

    monkeypatch.setattr(learning, "save_checkpoint", save)
    settings = {**SETTINGS, "epochs": 3, "limit": 100, "val": val}
    models = (zoo["resnet"], zoo["vit"], "digits#2/4")
    gainfinder.transfer(*models, out=tmp_path / "whole", **settings)
    (first, steps), last = written
    assert (first, last) == (0, (3, 0)) and steps > 1, "the first that there is, and what the end leaves"
    with pytest.raises(Killed):
        gainfinder.transfer(*models, out=tmp_path / "killed", callbacks=[KillAtEpoch(3)], **settings)
    assert len((tmp_path / "killed" / "epochs.jsonl").read_text().splitlines()) == 2
    again = gainfinder.transfer(*models, out=tmp_path / "killed", **settings)
    assert again.metrics.resumed_epochs == 0, "the first epoch was learned from, and is measured now"
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    assert (tmp_path / "whole" / "epochs.jsonl").read_text() == (tmp_path / "killed" / "epochs.jsonl").read_text()
    written.clear()
    gainfinder.transfer(*models, out=tmp_path / "asked", **settings, checkpoint_every=2)
    all_of_them = [(epoch, step) for epoch in range(4) for step in (0, *range(2, steps, 2), steps)]
    assert written == all_of_them[1 : all_of_them.index((3, 0)) + 1]


def test_workers_and_worker_count_change_nothing(zoo: dict[str, str], tmp_path: Path) -> None:
    asked = {**SETTINGS, "epochs": 1, "augment": "crop-flip"}
    for workers in (0, 2):
        out = tmp_path / str(workers)
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=out, **{**asked, "workers": workers})
    assert same(weights(tmp_path / "0"), weights(tmp_path / "2"))


def test_a_finished_run_returns_its_result(zoo: dict[str, str], run_folder: Path) -> None:
    first = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=run_folder, **SETTINGS)
    stamps = {path: path.stat().st_mtime_ns for path in run_folder.rglob("[!.]*") if path.is_file()}
    (run_folder / "checkpoint.pt").write_text("left by a process killed after it wrote the result")
    second = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=run_folder, **SETTINGS)
    assert second.account == {**first.account, "resumed_epochs": 2}
    assert second.epochs == first.epochs
    assert same(first.student.module.state_dict(), second.student.module.state_dict())
    assert stamps == {path: path.stat().st_mtime_ns for path in run_folder.rglob("[!.]*") if path.is_file()}


def test_a_folder_with_another_run_is_refused_and_left_alone(zoo: dict[str, str], run_folder: Path) -> None:
    gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=run_folder, **SETTINGS)
    before = {path: path.read_bytes() for path in run_folder.rglob("[!.]*") if path.is_file()}
    with pytest.raises(RunFolderError, match=r"settings\.seed: 0 in the folder, 1 asked for"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=run_folder, seed=1, **SETTINGS)
    with pytest.raises(RunFolderError, match="holds a different run"):
        gainfinder.transfer(zoo["vit"], zoo["convnext"], "digits#2/4", out=run_folder, **SETTINGS)
    assert before == {path: path.read_bytes() for path in run_folder.rglob("[!.]*") if path.is_file()}


def test_a_folder_with_other_files_is_refused(zoo: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunFolderError, match=r"holds files but no run of gainfinder \(thesis.tex\)"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=tmp_path, **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_with_a_config_of_another_program_is_left_alone(zoo: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".partial-download").write_text("precious")
    with pytest.raises(RunFolderError, match=r"config.json: not as gainfinder wrote it \(it does not describe"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=tmp_path, **SETTINGS)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".partial-download", "config.json", "sub"]


@pytest.mark.parametrize(("name", "text"), [("result.json", "[]"), ("result.json", "{}"), ("epochs.jsonl", "{x")])
def test_a_damaged_finished_run_is_refused(zoo: dict[str, str], run_folder: Path, name: str, text: str) -> None:
    gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=run_folder, **SETTINGS)
    (run_folder / name).write_text(text)
    with pytest.raises(RunFolderError, match=f"{name}: not as gainfinder wrote it"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=run_folder, **SETTINGS)


def test_a_damaged_checkpoint_is_never_used(zoo: dict[str, str], run_folder: Path) -> None:
    asked = {**SETTINGS, "out": run_folder}
    with pytest.raises(Killed):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", callbacks=[KillAfter(250)], **asked)
    checkpoint = run_folder / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    ours = rf"{checkpoint}: this checkpoint cannot be read \(it is cut short, or no checkpoint at all\); remove it to"
    for cut in (whole[:-1000], whole[:5000]):
        checkpoint.write_bytes(cut)
        with pytest.raises(RunFolderError, match=ours):
            gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", **asked)


def test_labels_none_reads_no_label_for_training_and_measures_all_the_same(zoo: dict[str, str], tmp_path: Path) -> None:
    images = gainfinder.load_images("digits#2/4")
    assert images.labels is not None
    shuffled = images.relabel(images.labels[::-1].copy(), class_names=images.class_names, num_classes=10)
    asked = {**SETTINGS, "val": None, "labels": "none", "limit": 150}
    for name, data in (("true", images), ("shuffled", shuffled)):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], data, out=tmp_path / name, **asked)
    true, wrong = reproducible(tmp_path / "true"), reproducible(tmp_path / "shuffled")
    assert same(weights(tmp_path / "true"), weights(tmp_path / "shuffled"))
    assert true["method"] == "kl-prod-cal-u"
    assert wrong["accuracy_before"] < 0.4 < true["accuracy_before"]


@pytest.mark.parametrize("method", ["kl-dp-u", None])
def test_unlabelled_data_gives_agreement_in_place_of_accuracy(
    zoo: dict[str, str], run_folder: Path, method: str | None
) -> None:
    images = gainfinder.load_images("digits#2/4").without_labels()
    asked = {**SETTINGS, "val": None, "method": method}
    found = gainfinder.transfer(zoo["vit"], zoo["resnet"], images, out=run_folder, **asked).metrics
    assert found.method == (method or "kl-prod-cal-u")
    for key in ("accuracy_before", "transfer_delta_pp", "transfer_delta_ci_pp", "knowledge_gain", "transfer_rate"):
        assert getattr(found, key) is None
    assert 0 < found.agreement <= 1 and 0 < found.confidence_after <= 1
    if method is None:  # all models teach every image
        assert found.teacher_share is None
    else:
        assert 0 < found.teacher_share < 1


def test_the_held_out_tenth_is_stratified_and_not_trained_on(zoo: dict[str, str], run_folder: Path) -> None:
    asked = {key: value for key, value in SETTINGS.items() if key not in {"val", "limit"}}
    gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=run_folder, **asked)
    config = json.loads((run_folder / "config.json").read_text())
    total = len(gainfinder.load_images("digits#2/4"))
    assert config["val"]["samples"] == round(total / 10) and config["val"]["held_out"]
    assert config["data"]["samples"] == total - config["val"]["samples"]


def test_nothing_passed_in_is_changed(zoo: dict[str, str]) -> None:
    student = timm.create_model(zoo["resnet"], pretrained=True).train()
    teacher = timm.create_model(zoo["vit"], pretrained=True).train()
    before = {key: value.clone() for key, value in student.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    result = gainfinder.transfer(student, teacher, "digits#2/4", **SETTINGS)
    assert same(before, student.state_dict())
    assert student.training and teacher.training
    assert torch.equal(state, torch.get_rng_state())
    assert not same(before, result.student.module.state_dict())
    assert result.out is None and result.metrics.out is None


def test_any_module_and_any_dataset(zoo: dict[str, str]) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)

    class Squares(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
        def __len__(self) -> int:
            return 60

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            image = torch.zeros(3, 12, 12)
            image[:, index % 10] = 1.0
            return image, index % 10

    student = gainfinder.load_model(Own(), size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    found = gainfinder.transfer(student, zoo["vit"], Squares(), epochs=1, workers=0, device="cpu").metrics
    assert found.student == "Own" and found.samples == 6  # a tenth


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_kl_equals_a_plain_loop(zoo: dict[str, str], run_folder: Path, schedule: str) -> None:
    """One-teacher KL is ten lines of PyTorch: the same weights, step for step."""
    asked = {**SETTINGS, "method": "kl", "temperature": 2.0, "lr": 1e-2, "schedule": schedule}
    result = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=run_folder, **asked)

    student, teacher = (timm.create_model(zoo[name], pretrained=True).eval() for name in ("vit", "resnet"))
    images = gainfinder.load_images("digits#2/4")
    images = images.select(stratified(images, count=200, salt="transfer"))
    transform = timm.data.create_transform(
        **timm.data.resolve_data_config(student.pretrained_cfg), is_training=False, normalize=False
    )
    pixels = torch.stack([transform(images.read(i)) for i in range(len(images))])
    x = ((pixels.to(torch.float32) / 255) - 0.5) / 0.5
    student.train()
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-2, momentum=0.9, weight_decay=1e-3)
    steps = 0
    for epoch in range(2):
        order = torch.from_numpy(epoch_order(images.ids, seed=0, epoch=epoch))
        for batch in torch.tensor_split(order, 7):  # 200 images, at most 32 a batch
            with torch.no_grad():
                target = (teacher(x[batch]) / 2).softmax(-1)
            loss = 4 * nn.functional.kl_div((student(x[batch]) / 2).log_softmax(-1), target, reduction="batchmean")
            if schedule == "linear":
                optimizer.param_groups[0]["lr"] = 1e-2 * (1 - steps / 14)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    for name, tensor in student.state_dict().items():
        assert torch.allclose(tensor, result.student.module.state_dict()[name], atol=1e-5), name


def test_mixed_precision_trains_and_measures_in_float32(zoo: dict[str, str], run_folder: Path) -> None:
    result = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=run_folder, precision="bf16", **SETTINGS)
    assert {tensor.dtype for tensor in weights(run_folder).values()} == {torch.float32}
    again = gainfinder.predict(result.student, "digits#1/4", device="cpu", workers=0, batch_size=32)
    assert torch.equal(again.logits, Predictions.load(run_folder / "predictions" / "after.parquet").logits)
    exact = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", precision="fp32", **SETTINGS)
    assert not same(weights(run_folder), exact.student.module.state_dict())


def test_a_student_learning_from_itself_in_evaluation_stays_put(zoo: dict[str, str]) -> None:
    """Without dropout or batch statistics the retention loss is zero at the start, and so is its gradient."""
    found = gainfinder.transfer(
        zoo["vit"], zoo["vit"], "digits#2/4", method="kl-dp-u", weight_decay=0.0, lr=1e-2, **SETTINGS
    )
    assert found.metrics.agreement == 1.0 and found.metrics.teacher_share == 0.0
    assert all(row.train_loss < 1e-6 for row in found.epochs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "kl-pd"}, "method 'kl-pd' is unknown"),
        ({"device": "gpu"}, "device 'gpu' is unknown"),
        ({"precision": "fp16"}, "precision fp16 needs a GPU"),
        ({"epoch": 1}, "unknown setting 'epoch'"),
    ],
)
def test_what_is_refused(zoo: dict[str, str], run_folder: Path, change: Run, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=run_folder, **{**SETTINGS, **change})
    assert not run_folder.exists()


def test_different_class_counts_are_refused_with_both(zoo: dict[str, str]) -> None:
    other = timm.create_model("resnet18", num_classes=7, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    with pytest.raises(GainfinderError, match=r"7 classes.*10"):
        gainfinder.transfer(zoo["vit"], other, "digits#2/4", **SETTINGS)


class Difficult(nn.Module):
    """A model that gives logits for one image in evaluation mode, and trouble later."""

    def __init__(self, trouble: str) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
        self.body.requires_grad_(trouble != "frozen")
        self.trouble = trouble

    def forward(self, x: torch.Tensor) -> object:
        logits = self.body(x)
        if self.trouble == "batch" and len(x) > 1:
            raise RuntimeError("one at a time\nplease")
        if self.trouble == "rows":
            return logits[:1]
        if self.trouble == "detached":
            return logits.detach()
        return (logits, logits) if self.trouble == "auxiliary" and self.training else logits


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("frozen", "Difficult: the student has no weight that can be trained"),
        ("batch", r"Difficult: the model fails on 32 image\(s\) .* in evaluation mode: RuntimeError: one at a time$"),
        (
            "rows",
            r"Difficult: expected logits of shape \(32, classes\) for 32 images in evaluation mode, got \(1, 10\)",
        ),
        ("detached", "Difficult: no gradient leads from the logits to the weights"),
        (
            "auxiliary",
            r"Difficult: expected logits of shape \(\d+, classes\) for \d+ images in training mode, got tuple",
        ),
    ],
)
def test_a_student_that_cannot_be_trained_is_told(zoo: dict[str, str], trouble: str, message: str) -> None:
    student = gainfinder.load_model(Difficult(trouble), size=8)
    with pytest.raises(ModelError, match=message):
        gainfinder.transfer(student, zoo["vit"], "digits#2/4", **SETTINGS)


def test_labels_none_learns_from_labels_that_fit_no_model(
    zoo: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    images = gainfinder.load_images("digits#2/4")
    assert images.labels is not None
    other = images.relabel(images.labels + 90, class_names=None, num_classes=100)
    asked = {**SETTINGS, "val": None, "epochs": 1}
    with pytest.raises(GainfinderError, match="is out of range"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], other, **asked)
    found = gainfinder.transfer(zoo["vit"], zoo["resnet"], other, labels="none", **asked).metrics
    assert found.accuracy_after is None and found.agreement > 0
    assert "measuring without labels: " in caplog.text and "is out of range" in caplog.text


def test_no_image_that_can_be_decoded_is_an_error_whatever_is_allowed(zoo: dict[str, str], tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2 of 2 images \(100.00%\) cannot be decoded"):
        gainfinder.predict(zoo["vit"], tmp_path, workers=0, max_broken=1.0)
    with pytest.raises(SettingsError, match="max-broken is -1: expected a share from 0 to 1"):
        gainfinder.predict(zoo["vit"], "digits#1/4", workers=0, max_broken=-1)


def test_a_student_with_batch_norm_that_learned_from_mixed_views_is_measured_by_unmixed_ones(
    zoo: dict[str, str], tmp_path: Path
) -> None:
    asked = {**SETTINGS, "method": "kl-prod-u", "epochs": 1, "mixup": 1.0, "lr": 0.0}
    done = gainfinder.transfer(zoo["resnet"], zoo["vit"], "digits#2/4", out=tmp_path / "mixed", **asked)
    plain = gainfinder.transfer(
        zoo["resnet"], zoo["vit"], "digits#2/4", out=tmp_path / "plain", **{**asked, "student_mode": "reestimate"}
    )
    # at rate 0 nothing is learned: both are the initial student with statistics re-estimated on the same views
    one, other = (weights(run) for run in (done, plain))
    assert same({k: v for k, v in one.items() if "running" in k}, {k: v for k, v in other.items() if "running" in k})
