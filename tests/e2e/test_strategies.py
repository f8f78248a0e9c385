"""Several teachers: one after another, side by side, and averaged (section 4.3)."""

import json
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import gainfinder
from gainfinder.data.images import Images
from gainfinder.data.sampling import stratified
from gainfinder.errors import SettingsError
from gainfinder.metrics import class_temperatures
from gainfinder.predictions import Predictions
from gainfinder.runs.callbacks import Callback
from gainfinder.views.spec import epoch_order
from killing import Killed
from transfers import SHORT, Run, document, reproducible, right, same, weights

SETTINGS: Run = {**SHORT, "epochs": 2, "lr": 5e-2}
LONGER: Run = {**SETTINGS, "limit": 160}
"""Long enough for each of two teachers to change answers, on one thread or two."""


def predictions(folder: Path, name: str) -> Predictions:
    return Predictions.load(folder / "predictions" / f"{name}.parquet")


def teachers_of(metrics: Run) -> list[str]:
    return [step["teacher"] for step in metrics["steps"]]


@pytest.fixture(scope="module")
def sequence(zoo: dict[str, str], val: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sequence of two teachers, the better one given first."""
    out = tmp_path_factory.mktemp("sequence") / "run"
    teachers = [zoo["resnet"], zoo["vit"]]
    gainfinder.transfer(zoo["convnext"], teachers, "digits#2/4", val=val, out=out, **LONGER)
    return out


# ---- sequential ----


def test_the_weaker_teacher_comes_first(zoo: dict[str, str], sequence: Path) -> None:
    told = document(sequence, "result.json")
    assert teachers_of(told) == [zoo["vit"], zoo["resnet"]]
    assert told["teachers"] == [zoo["resnet"], zoo["vit"]]  # as they were given
    accuracy = [predictions(sequence, f"probe-teacher-{number}").accuracy for number in (1, 2)]
    assert accuracy[0] > accuracy[1]
    for step, teacher in enumerate(teachers_of(told), start=1):
        assert document(sequence / "steps" / str(step), "config.json")["teachers"][0]["reference"] == teacher


@pytest.mark.parametrize(
    ("order", "given", "expected"),
    [
        ("ascending", ["vit", "resnet"], ["resnet", "vit"]),
        ("descending", ["resnet", "vit"], ["vit", "resnet"]),
        ("given", ["vit", "resnet"], ["vit", "resnet"]),
    ],
)
def test_the_guard_images_decide_on_the_order(
    zoo: dict[str, str], val: Images, order: str, given: list[str], expected: list[str]
) -> None:
    """Images on which the model that is worse everywhere else is the better one."""
    pool = gainfinder.load_images("digits#3/4")
    vit, resnet = (gainfinder.predict(zoo[name], pool, device="cpu", workers=0) for name in ("vit", "resnet"))
    better = right(vit) & ~right(resnet)
    guards = pool.select([*better.nonzero().flatten().tolist(), *range(5)])
    asked = {**SETTINGS, "guard": True, "epochs": 1, "order": order, "guard_data": guards}
    result = gainfinder.transfer(zoo["convnext"], [zoo[name] for name in given], "digits#2/4", val=val, **asked)
    assert teachers_of(result.account) == [zoo[name] for name in expected]


def test_each_result_is_the_next_ones_student_and_frozen_initial_student(zoo: dict[str, str], sequence: Path) -> None:
    first, second = (sequence / "steps" / step for step in "12")
    digests = [document(folder, "config.json")["student"]["digest"] for folder in (sequence, first, second)]
    assert digests[0] == digests[1] == gainfinder.load_model(zoo["convnext"]).weights_digest()
    assert digests[2] == gainfinder.load_model(f"local-dir:{first / 'student'}").weights_digest() != digests[1]
    assert torch.equal(predictions(second, "before").logits, predictions(first, "after").logits)
    assert same(weights(sequence), weights(second))


def test_each_step_is_a_transfer_of_its_own(zoo: dict[str, str], val: Images, sequence: Path, run_folder: Path) -> None:
    """A fresh optimiser and a fresh schedule: the second step equals a run that begins with the first one's result."""
    student = f"local-dir:{sequence / 'steps' / '1' / 'student'}"
    gainfinder.transfer(student, zoo["resnet"], "digits#2/4", val=val, out=run_folder, **LONGER)
    assert same(weights(run_folder), weights(sequence / "steps" / "2"))
    alone, step = (document(folder, "result.json") for folder in (run_folder, sequence / "steps" / "2"))
    for key in ("accuracy_before", "accuracy_after", "knowledge_gain", "knowledge_loss", "teacher_share"):
        assert alone[key] == step[key]


def test_the_metrics_of_the_steps_add_up(sequence: Path) -> None:
    whole = document(sequence, "result.json")
    first, second = (document(sequence / "steps" / step, "result.json") for step in "12")
    assert whole["accuracy_before"] == first["accuracy_before"]
    assert first["accuracy_after"] == second["accuracy_before"]
    assert second["accuracy_after"] == whole["accuracy_after"]
    assert whole["transfer_delta_pp"] == pytest.approx(first["transfer_delta_pp"] + second["transfer_delta_pp"])
    assert whole["transfer_delta_pp"] == pytest.approx(100 * (whole["knowledge_gain"] - whole["knowledge_loss"]))
    for told, step in zip(whole["steps"], (first, second), strict=True):
        for key in ("transfer_delta_pp", "knowledge_gain", "knowledge_loss", "accuracy_after"):
            assert told[key] == step[key]


def test_the_rows_of_the_epochs_tell_the_change_since_the_very_first_student(
    zoo: dict[str, str], sequence: Path
) -> None:
    rows = [json.loads(line) for line in (sequence / "epochs.jsonl").read_text().splitlines()]
    assert [(row["step"], row["teacher"], row["epoch"]) for row in rows] == [
        (1, zoo["vit"], 1), (1, zoo["vit"], 2), (2, zoo["resnet"], 1), (2, zoo["resnet"], 2),
    ]  # fmt: skip
    origin = predictions(sequence, "before")
    for row, step in ((rows[1], "1"), (rows[3], "2")):
        now = predictions(sequence / "steps" / step, "after")
        start = predictions(sequence / "steps" / step, "before")
        for since, gain, loss in ((origin, "total_gain", "total_loss"), (start, "knowledge_gain", "knowledge_loss")):
            was, is_now = right(since), right(now)
            assert row[gain] == int((~was & is_now).sum()) / len(now)
            assert row[loss] == int((was & ~is_now).sum()) / len(now)
        assert row["total_delta_pp"] == pytest.approx(100 * (row["total_gain"] - row["total_loss"]))
    since_first, since_step = (
        [rows[3][f"{which}_{key}"] for key in ("gain", "loss")] for which in ("total", "knowledge")
    )
    assert since_first != since_step, "the rows would not tell the two apart"


class Counting(Callback):
    """Counts the training images of each teacher, and ends the run after so many in all."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.counts: dict[int, int] = {}
        self.number, self.training = 0, False

    def teacher(self, number: int, of: int, reference: str) -> None:
        self.number = number

    def stage(self, name: str, images: int) -> None:
        self.training = False

    def epoch_begins(self, epoch: int, of: int, images: int, done: int) -> None:
        self.training = True

    def advance(self, images: int) -> None:
        if self.training:
            self.counts[self.number] = self.counts.get(self.number, 0) + images
            if self.limit is not None and sum(self.counts.values()) >= self.limit:
                raise Killed


def test_a_sequence_killed_in_its_middle_goes_on_there(
    zoo: dict[str, str], val: Images, sequence: Path, run_folder: Path
) -> None:
    asked = {**LONGER, "val": val, "out": run_folder}
    teachers = [zoo["resnet"], zoo["vit"]]
    with pytest.raises(Killed):  # in the second epoch of the second step
        gainfinder.transfer(zoo["convnext"], teachers, "digits#2/4", callbacks=[Counting(3 * 160 + 10)], **asked)
    before = document(run_folder / "steps" / "1")
    (run_folder / "steps" / "1" / "result.json").write_text(json.dumps({**before, "seconds": 5_000.0}))
    for path, seconds in ((run_folder, 1_000), (run_folder / "steps" / "2", 20_000)):
        assert 0 < document(path, "worked.json")["seconds"] < 1_000
        (path / "worked.json").write_text(json.dumps({"seconds": seconds}))
    first = {path: path.stat().st_mtime_ns for path in (run_folder / "steps" / "1").rglob("[!.]*") if path.is_file()}
    assert run_folder / "steps" / "1" / "result.json" in first
    assert not (run_folder / "result.json").exists()
    callback = Counting()
    result = gainfinder.transfer(zoo["convnext"], teachers, "digits#2/4", callbacks=[callback], **asked)
    assert callback.counts == {2: 160}, "the first step and the first epoch of the second were done"
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert same(weights(run_folder), weights(sequence))
    assert same(weights(run_folder / "steps" / "2"), weights(sequence / "steps" / "2"))
    assert (run_folder / "epochs.jsonl").read_bytes() == (sequence / "epochs.jsonl").read_bytes()
    assert document(run_folder / "steps" / "2")["seconds"] > 20_000
    assert 26_000 < document(run_folder)["seconds"] < 26_600, "its own work and that of its steps, whoever did it"
    whole = reproducible(sequence)
    assert whole == reproducible(run_folder)
    assert result.metrics.resumed_epochs > 0
    again = Counting()
    finished = gainfinder.transfer(zoo["convnext"], teachers, "digits#2/4", callbacks=[again], **asked)
    assert again.counts == {} and finished.metrics.transfer_delta_pp == whole["transfer_delta_pp"]


def test_without_labels_the_order_is_by_agreement_and_no_label_is_read(zoo: dict[str, str], val: Images) -> None:
    images = gainfinder.load_images("digits#2/4")
    assert images.labels is not None
    poisoned = images.relabel(images.labels[::-1].copy(), class_names=images.class_names, num_classes=10)
    asked = {**SETTINGS, "labels": "none", "epochs": 1}
    given = [zoo["resnet"], zoo["vit"]]
    one, other = (gainfinder.transfer(zoo["convnext"], given, data, val=val, **asked) for data in (images, poisoned))
    assert one.metrics.method == "kl-prod-cal-u"
    assert teachers_of(one.account) == teachers_of(other.account)
    assert same(one.student.module.state_dict(), other.student.module.state_dict())
    chosen = images.without_labels()
    chosen = chosen.select(stratified(chosen, count=64, salt="transfer"))
    predicted = {
        name: gainfinder.predict(zoo[name], chosen, device="cpu", workers=0, batch_size=32).predicted for name in zoo
    }
    agreement = {
        zoo[name]: sum(float((predicted[name] == predicted[other]).double().mean()) for other in zoo if other != name)
        for name in ("vit", "resnet")
    }
    assert len(set(agreement.values())) == 2
    assert teachers_of(one.account) == sorted(agreement, key=lambda teacher: agreement[teacher])


# ---- parallel ----


def inputs(model: nn.Module, images: Images) -> Tensor:
    """The images as the zoo's models take them, by timm's own transform."""
    config = timm.data.resolve_data_config(model.pretrained_cfg)
    transform = timm.data.create_transform(**config, is_training=False, normalize=False)
    return (torch.stack([transform(images.read(i)) for i in range(len(images))]).float() / 255 - 0.5) / 0.5


@pytest.mark.parametrize("method", ["kl-dp", "kl-dp-u"])
def test_in_parallel_each_sample_goes_to_the_surest_of_all(
    zoo: dict[str, str], val: Images, run_folder: Path, method: str
) -> None:
    asked = {**SETTINGS, "strategy": "parallel", "method": method, "epochs": 1, "lr": 0.0, "out": run_folder}
    models = [timm.create_model(zoo[name], pretrained=True).eval() for name in ("convnext", "vit", "resnet")]
    with torch.no_grad():
        models[1].head.weight.mul_(5)  # as surely as the better one
    result = gainfinder.transfer(zoo["convnext"], models[1:], "digits#2/4", val=val, **asked)
    images = gainfinder.load_images("digits#2/4")
    images = images.select(stratified(images, count=64, salt="transfer"))
    x = inputs(models[0], images)
    with torch.inference_mode():
        probs = [model(x).softmax(-1) for model in models]
    losses, taught = [], [0, 0, 0]
    assert images.labels is not None
    for i, label in enumerate(images.labels.tolist()):
        confidences = [float(p[i, label] if method == "kl-dp" else p[i].max()) for p in probs]
        best = confidences.index(max(confidences))
        taught[best] += 1
        p, q = probs[best][i].double(), probs[0][i].double()
        losses.append(float((p * (p / q).log()).sum()))
    assert min(taught) > 0, "every model must teach something for this to tell"
    assert result.metrics.teacher_share == (taught[1] + taught[2]) / 64
    assert result.epochs[0].train_loss == pytest.approx(sum(losses) / 64, rel=1e-3)
    assert not (run_folder / "steps").exists()
    before, first, second = (right(predictions(run_folder, name)) for name in ("before", "teacher-1", "teacher-2"))
    flips = ~before & (first | second)
    assert result.metrics.positive_flips == int(flips.sum()) / len(flips)


@pytest.mark.parametrize("method", ["kl-mean-u", "kl-prod-cal-u"])
def test_in_parallel_all_models_teach_every_sample(
    zoo: dict[str, str], val: Images, run_folder: Path, method: str
) -> None:
    """A teacher with its digits shifted by one is cooled on the probe images, and then taught with."""
    asked = {**SETTINGS, "strategy": "parallel", "method": method, "epochs": 1, "lr": 0.0, "out": run_folder}
    models = [timm.create_model(zoo[name], pretrained=True).eval() for name in ("convnext", "vit", "resnet")]
    with torch.no_grad():
        models[1].head.weight.copy_(models[1].head.weight.roll(1, dims=0))
        models[1].head.bias.copy_(models[1].head.bias.roll(1, dims=0))
    result = gainfinder.transfer(zoo["convnext"], models[1:], "digits#2/4", val=val, **asked)
    images = gainfinder.load_images("digits#2/4")
    x = inputs(models[0], images.select(stratified(images, count=64, salt="transfer")))
    with torch.inference_mode():
        logits = [model(x).double() for model in models]
    if method == "kl-mean-u":
        target = sum(z.softmax(-1) for z in logits) / 3
        assert result.metrics.temperatures is None
    else:
        own = class_temperatures(logits)
        cooled = [(z / t[z.argmax(1)][:, None]).softmax(-1) for z, t in zip(logits, own, strict=True)]
        target = torch.stack([0.99 * p + 0.001 for p in cooled]).log().mean(dim=0).softmax(-1)
        means = [float(t[z.argmax(1)].mean()) for z, t in zip(logits, own, strict=True)]
        assert result.metrics.temperatures == pytest.approx(means)
        assert means[0] == 1 and means[1] > 2 and means[2] < means[1]
    loss = (target * (target / logits[0].softmax(-1)).log()).sum(dim=1).mean()
    assert result.epochs[0].train_loss == pytest.approx(float(loss), rel=1e-3)
    assert result.metrics.teacher_share is None, "nobody is given a sample alone"


@pytest.mark.parametrize("method", ["kl", "xe-kl", "cd"])
def test_parallel_needs_a_partition(zoo: dict[str, str], val: Images, run_folder: Path, method: str) -> None:
    asked = {**SETTINGS, "strategy": "parallel", "method": method, "out": run_folder}
    with pytest.raises(SettingsError, match=rf"strategy parallel .* method '{method}' has no partition"):
        gainfinder.transfer(zoo["vit"], [zoo["convnext"], zoo["resnet"]], "digits#2/4", val=val, **asked)
    assert not run_folder.exists()


# ---- soup ----


def test_a_soup_is_the_mean_of_independent_transfers(zoo: dict[str, str], val: Images, run_folder: Path) -> None:
    asked = {**SETTINGS, "strategy": "soup", "epochs": 1, "method": "kl", "lr": 0.05, "out": run_folder}
    gainfinder.transfer(zoo["vit"], [zoo["convnext"], zoo["resnet"]], "digits#2/4", val=val, **asked)
    parts = [weights(run_folder / "steps" / step) for step in "12"]
    for name, tensor in weights(run_folder).items():
        torch.testing.assert_close(tensor, (parts[0][name] + parts[1][name]) / 2, rtol=1e-6, atol=1e-7)
    assert not torch.equal(parts[0]["head.weight"], parts[1]["head.weight"])
    digests = {document(run_folder / "steps" / step, "config.json")["student"]["digest"] for step in "12"}
    assert digests == {gainfinder.load_model(zoo["vit"]).weights_digest()}, "each begins with the initial student"
    told = document(run_folder, "result.json")
    again = gainfinder.predict(told["student_reference"], val, device="cpu", workers=0, batch_size=32)
    assert torch.equal(again.logits, predictions(run_folder, "after").logits)
    assert told["accuracy_after"] == again.accuracy


@pytest.mark.parametrize("mode", ["train", "frozen"])
def test_a_soup_re_estimates_batch_norm_statistics(
    zoo: dict[str, str], val: Images, run_folder: Path, mode: str
) -> None:
    """Statistics of a mean of networks are not the mean of their statistics; frozen ones are all the same."""
    asked = {**SETTINGS, "strategy": "soup", "epochs": 1, "student_mode": mode, "out": run_folder}
    gainfinder.transfer(zoo["resnet"], [zoo["convnext"], zoo["vit"]], "digits#2/4", val=val, **asked)
    parts = [weights(run_folder / "steps" / step) for step in "12"]
    soup = weights(run_folder)
    for name, tensor in soup.items():
        if "running" not in name and tensor.is_floating_point():
            torch.testing.assert_close(tensor, (parts[0][name] + parts[1][name]) / 2, rtol=1e-6, atol=1e-7)
    student = timm.create_model(zoo["resnet"], pretrained=True).eval()
    if mode == "frozen":
        assert torch.equal(soup["bn1.running_var"], student.bn1.running_var)
        return
    images = gainfinder.load_images("digits#2/4")
    images = images.select(stratified(images, count=64, salt="transfer"))
    order = torch.from_numpy(epoch_order(images.ids, seed=0, epoch=0))
    x = inputs(student, images)
    student.load_state_dict(soup)
    with torch.inference_mode():
        outputs = [student.conv1(x[batch]) for batch in order.split(32)]
    variance = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in outputs]).mean(0)
    torch.testing.assert_close(soup["bn1.running_var"], variance, rtol=1e-4, atol=1e-6)
    mean_of_parts = (parts[0]["bn1.running_var"] + parts[1]["bn1.running_var"]) / 2
    assert not torch.allclose(soup["bn1.running_var"], mean_of_parts, rtol=1e-3)
