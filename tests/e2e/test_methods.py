"""Every transfer method end to end, and what each must leave alone."""

import copy
import math
from functools import partial
from operator import add
from pathlib import Path
from typing import Any, ClassVar

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import gainfinder
from gainfinder.config.methods import METHODS, Method
from gainfinder.data.images import Images
from gainfinder.data.sampling import stratified
from gainfinder.errors import SettingsError
from gainfinder.models.features import find_classifier_layer
from gainfinder.views.spec import epoch_order
from killing import KillAfter, Killed
from transfers import SHORT, Run, State, reproducible, same

NEED_LABELS = [method for method in METHODS if method.needs_labels]


def transferred(student: Any, teacher: Any, val: Images, **asked: Any) -> State:
    result = gainfinder.transfer(student, teacher, "digits#2/4", val=val, **{**SHORT, **asked})
    return result.student.module.state_dict()


def initial(reference: str) -> State:
    return timm.create_model(reference, pretrained=True).state_dict()


def is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_trains_the_student(zoo: dict[str, str], val: Images, method: Method) -> None:
    # Teacher and student are about equally good: each teaches some samples, by label or by confidence. xe-kl-mcl gives
    # back slow weights: with the one interpolation that two steps allow, they still must have moved.
    result = gainfinder.transfer(zoo["vit"], zoo["convnext"], "digits#2/4", val=val, method=method.name, **SHORT)
    weights, before = result.student.module.state_dict(), initial(zoo["vit"])
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert any(not torch.equal(weights[name], before[name]) for name in weights)
    (row,) = result.epochs
    assert row.train_loss is not None
    numbers = [row.train_loss, *(value for value in result.account.values() if isinstance(value, float))]
    assert all(math.isfinite(number) for number in numbers)
    assert row.train_loss > 0
    share = result.metrics.teacher_share
    assert share is None if method.partition is None else 0 < share < 1


@pytest.mark.parametrize("method", NEED_LABELS, ids=lambda method: method.name)
def test_methods_that_need_labels_are_refused_without(
    zoo: dict[str, str], val: Images, run_folder: Path, method: Method
) -> None:
    asked = {**SHORT, "method": method.name, "labels": "none", "out": run_folder}
    with pytest.raises(SettingsError, match=rf"method '{method.name}' needs labels and `labels='none'` forbids"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", val=val, **asked)
    assert not run_folder.exists()


def test_which_methods_need_labels_is_what_the_paper_says() -> None:
    free = {"kl", "soft-xe", "kl-top-k", "kl-warmup"} | {m.name for m in METHODS if m.name.endswith("-u")}
    assert {method.name for method in METHODS if not method.needs_labels} == free


def test_a_cross_entropy_that_is_asked_for_needs_labels(zoo: dict[str, str], val: Images) -> None:
    asked = {**SHORT, "method": "kl-dp-u", "distill_weight": 0.9, "labels": "none"}
    with pytest.raises(SettingsError, match=r"distill-weight 0.9 needs labels"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", val=val, **asked)


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("kl", {"top_k": 5}),
        ("kl-dp", {"top_k": 5}),
        ("kl-dp", {"sharpness": 2.0}),
        ("xe-kl", {"slow_momentum": 0.9}),
        ("xe-kl", {"slow_every": 2}),
        ("cd", {"negatives": 16}),
        ("cd", {"temperature": 2.0}),
        ("crd", {"temperature": 2.0}),
        ("kl", {"label_smoothing": 0.1}),
        ("kl-dp", {"label_smoothing": 0.0}),
    ],
)
def test_settings_that_a_method_does_not_use_are_refused(
    zoo: dict[str, str], val: Images, run_folder: Path, method: str, setting: Run
) -> None:
    (name,) = setting
    asked = {**SHORT, **setting, "method": method, "out": run_folder}
    with pytest.raises(SettingsError, match=rf"^{name.replace('_', '-')} .*method '{method}'"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", val=val, **asked)
    assert not run_folder.exists()


# ---- plain PyTorch ----


def inputs(model: nn.Module, images: Images) -> Tensor:
    """The images as the zoo's models take them, by timm's own transform."""
    config = timm.data.resolve_data_config(model.pretrained_cfg)
    transform = timm.data.create_transform(**config, is_training=False, normalize=False)
    return (torch.stack([transform(images.read(i)) for i in range(len(images))]).float() / 255 - 0.5) / 0.5


def transfer_images(limit: int) -> Images:
    images = gainfinder.load_images("digits#2/4")
    return images.select(stratified(images, count=limit, salt="transfer"))


@pytest.mark.parametrize(
    ("size", "epochs", "every"),
    [
        ((70, 24), 2, 4),  # six steps: interpolated once, after the fourth
        ((60, 24), 3, 2),
        ((192, 96), 2, 2),  # four steps, two interpolations, whatever the batch size: 96/256 and 384/256 are fractions
        ((384, 384), 4, 2),
    ],
)
def test_momentum_interpolation_equals_a_plain_loop(
    zoo: dict[str, str], val: Images, size: tuple[int, int], epochs: int, every: int
) -> None:
    """Eq. 3, and no measuring in between disturbs it. Batch-norm: counts are no floats, and are copied."""
    limit, batch_size = size
    lr, momentum = 0.05, 0.8
    found = transferred(
        zoo["resnet"], zoo["vit"], val, method="xe-kl-mcl", limit=limit, batch_size=batch_size, epochs=epochs, lr=lr,
        slow_every=every, slow_momentum=momentum, schedule="constant",
    )  # fmt: skip

    student, teacher = (timm.create_model(zoo[name], pretrained=True).eval() for name in ("resnet", "vit"))
    slow = copy.deepcopy(student.state_dict())
    images = transfer_images(limit)
    x, y = inputs(student, images), torch.from_numpy(images.labels)
    optimizer = torch.optim.SGD(student.parameters(), lr=lr, momentum=0.9, weight_decay=1e-3)
    student.train()
    steps = 0
    for epoch in range(epochs):
        order = torch.from_numpy(epoch_order(images.ids, seed=0, epoch=epoch))
        for batch in torch.tensor_split(order, -(-limit // batch_size)):
            with torch.no_grad():
                target = teacher(x[batch]).softmax(-1)
            logits = student(x[batch])
            kl = nn.functional.kl_div(logits.log_softmax(-1), target, reduction="batchmean")
            loss = 0.7 * kl + 0.3 * nn.functional.cross_entropy(logits, y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            if steps % every == 0:
                for name, fast in student.state_dict().items():
                    if fast.is_floating_point():
                        slow[name] = momentum * slow[name] + (1 - momentum) * fast
                    else:
                        slow[name] = fast.clone()
    for name, tensor in slow.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=partial(add, name))
    moved = (slow["fc.weight"] - initial(zoo["resnet"])["fc.weight"]).abs().max()
    assert moved > 1e-3, "the comparison would not tell slow weights from initial ones"
    assert (slow["fc.weight"] - student.state_dict()["fc.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("asked", "weights", "smoothing"),
    [
        ({"method": "xe-kl"}, (0.5, 0.5), 0.0),
        ({"method": "xe-kl", "distill_weight": 0.2}, (0.2, 0.8), 0.0),
        ({"method": "xe-kl-ls"}, (0.5, 0.5), 0.1),
        ({"method": "kl", "distill_weight": 0.9}, (0.9, 0.1), 0.0),
        ({"method": "xe-kl", "temperature": 4.0}, (0.5, 0.5), 0.0),
    ],
)
def test_distillation_and_cross_entropy_are_weighted_as_in_eq_2(
    zoo: dict[str, str], val: Images, asked: Run, weights: tuple[float, float], smoothing: float
) -> None:
    result = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", val=val, lr=0.0, **SHORT, **asked)
    student, teacher = (timm.create_model(zoo[name], pretrained=True).eval() for name in ("vit", "resnet"))
    images = transfer_images(64)
    x, y = inputs(student, images), torch.from_numpy(images.labels)
    t = asked.get("temperature", 1.0)
    with torch.inference_mode():
        logits = student(x)
        p = (teacher(x) / t).softmax(-1)
        kl = t**2 * nn.functional.kl_div((logits / t).log_softmax(-1), p, reduction="batchmean")
        # the temperature is the teacher's lesson's; the labels have none
        cross_entropy = nn.functional.cross_entropy(logits, y, label_smoothing=smoothing)
    expected = weights[0] * kl + weights[1] * cross_entropy
    assert result.epochs[0].train_loss == pytest.approx(float(expected), rel=1e-5)


# ---- warm-up and modes ----


@pytest.mark.parametrize(("student", "layer"), [("resnet", "fc"), ("vit", "head")])
def test_warm_up_trains_the_classifier_layer_alone(zoo: dict[str, str], val: Images, student: str, layer: str) -> None:
    before = initial(zoo[student])
    first = transferred(zoo[student], zoo["convnext"], val, method="kl-warmup", lr=1e-2)
    changed = {name for name in before if not torch.equal(before[name], first[name])}
    assert changed == {f"{layer}.weight", f"{layer}.bias"}, "batch-norm statistics must stay, too"
    second = transferred(zoo[student], zoo["convnext"], val, method="kl-warmup", lr=1e-2, epochs=2)
    changed = {name for name in before if not torch.equal(before[name], second[name])}
    assert len(changed) > len(before) / 2
    # any method can be warmed up
    other = transferred(zoo[student], zoo["convnext"], val, method="kl-dp", warmup_epochs=1, lr=1e-2)
    assert {name for name in before if not torch.equal(before[name], other[name])} == {
        f"{layer}.weight", f"{layer}.bias",
    }  # fmt: skip


class Noisy(nn.Module):
    """A digit classifier with batch-norm and dropout, or one of the two."""

    def __init__(self, *, norm: bool = True, dropout: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(0.5 if dropout else 0.0)
        self.head = nn.Linear(8 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.norm(self.conv(x)).relu().flatten(1)))
        return logits


def noisy(**parts: bool) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Noisy(**parts)
    if parts.get("norm", True):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            module.get_buffer("norm.running_mean").normal_()
            module.get_buffer("norm.running_var").uniform_(0.5, 2.0)
    return gainfinder.load_model(module, size=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.mark.parametrize(("norm", "dropout"), [(True, False), (False, True), (True, True)])
def test_frozen_mode_starts_without_a_retention_loss_and_training_mode_does_not(
    val: Images, norm: bool, dropout: bool
) -> None:
    """A student that learns from its own copy: what it pays is the difference of the modes (PAPER section 7)."""
    losses = {}
    for mode in ("frozen", "train"):
        student = noisy(norm=norm, dropout=dropout)
        asked = {**SHORT, "method": "kl-dp-u", "lr": 0.0, "student_mode": mode}
        losses[mode] = gainfinder.transfer(student, student, "digits#2/4", val=val, **asked).epochs[0].train_loss
    assert losses["frozen"] == pytest.approx(0.0, abs=1e-9)
    assert losses["train"] > 1e-3


def test_frozen_mode_learns_and_keeps_batch_norm_statistics_bit_for_bit(zoo: dict[str, str], val: Images) -> None:
    before = initial(zoo["resnet"])
    for mode, kept in (("frozen", True), ("train", False)):
        after = transferred(zoo["resnet"], zoo["vit"], val, student_mode=mode, epochs=2, lr=1e-2)
        statistics = [name for name in before if is_statistic(name)]
        assert statistics
        assert all(torch.equal(before[name], after[name]) for name in statistics) == kept
        assert not torch.equal(before["conv1.weight"], after["conv1.weight"])


def test_frozen_mode_draws_no_dropout(val: Images) -> None:
    """Two seeds of dropout: the same batch in another order of steps would differ, so there is one step only."""
    runs = {
        (mode, seed): transferred(
            noisy(norm=False), noisy(norm=True), val, method="kl", student_mode=mode, seed=seed, batch_size=64, lr=0.1
        )
        for mode in ("frozen", "train")
        for seed in (0, 1)
    }
    # one batch of all images: its order alone depends on the seed, and the sum of gradients on that up to rounding
    for name, tensor in runs["frozen", 0].items():
        torch.testing.assert_close(tensor, runs["frozen", 1][name], rtol=1e-4, atol=1e-5)
    assert (runs["train", 0]["head.weight"] - runs["train", 1]["head.weight"]).abs().max() > 1e-3


def test_reestimated_statistics_are_those_of_the_views_and_then_stay(zoo: dict[str, str], val: Images) -> None:
    after = transferred(zoo["resnet"], zoo["vit"], val, student_mode="reestimate", lr=0.0, epochs=2)
    student = timm.create_model(zoo["resnet"], pretrained=True).eval()
    images = transfer_images(64)
    order = torch.from_numpy(epoch_order(images.ids, seed=0, epoch=0))
    with torch.inference_mode():
        batches = [student.conv1(inputs(student, images)[batch]) for batch in order.split(32)]
    mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    variance = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in batches]).mean(0)
    torch.testing.assert_close(after["bn1.running_mean"], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after["bn1.running_var"], variance, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mean, initial(zoo["resnet"])["bn1.running_mean"], atol=1e-3)


# ---- features ----


class Watched(nn.Module):
    """A teacher that notes, whenever it is asked, its mode and its batch-norm statistics."""

    notes: ClassVar[list[tuple[bool, Tensor]]] = []

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.pretrained_cfg = inner.pretrained_cfg

    def forward(self, x: Tensor) -> Tensor:
        statistics = [value.flatten().double() for name, value in self.state_dict().items() if is_statistic(name)]
        self.notes.append((any(layer.training for layer in self.modules()), torch.cat(statistics)))
        logits: Tensor = self.inner(x)
        return logits


@pytest.mark.parametrize("method", ["cd", "crd", "kl"])
def test_the_teacher_stays_in_evaluation_mode(zoo: dict[str, str], val: Images, method: str) -> None:
    teacher = Watched(timm.create_model(zoo["resnet"], pretrained=True)).train()
    before = copy.deepcopy(teacher.state_dict())
    Watched.notes.clear()
    transferred(zoo["vit"], teacher, val, method=method, lr=1e-2)
    assert len(Watched.notes) > 2, "it was asked for two training batches at least"
    assert not any(training for training, _ in Watched.notes)
    assert all(torch.equal(statistics, Watched.notes[0][1]) for _, statistics in Watched.notes)
    assert same(teacher.state_dict(), before)


@pytest.mark.parametrize("method", ["cd", "crd"])
def test_features_are_compared_and_labels_fitted(zoo: dict[str, str], val: Images, method: str) -> None:
    """The teacher has a say (its logits do not), and so have the labels."""
    teacher = timm.create_model(zoo["resnet"], pretrained=True)
    loaded = gainfinder.load_model(zoo["resnet"])
    other = copy.deepcopy(teacher)
    head = other.get_submodule(find_classifier_layer(loaded))
    with torch.no_grad():
        head.weight.mul_(-3.0)
    one, same_features = (transferred(zoo["vit"], module, val, method=method, lr=1e-2) for module in (teacher, other))
    assert same(one, same_features)
    assert not same(one, transferred(zoo["vit"], zoo["convnext"], val, method=method, lr=1e-2))
    images = gainfinder.load_images("digits#2/4")
    assert images.labels is not None
    poisoned = images.relabel((images.labels + 1) % 10, class_names=images.class_names, num_classes=10)
    result = gainfinder.transfer(zoo["vit"], zoo["resnet"], poisoned, val=val, method=method, **{**SHORT, "lr": 1e-2})
    assert not same(one, result.student.module.state_dict())


# ---- killed and resumed ----


@pytest.mark.parametrize("method", ["xe-kl-mcl", "crd", "kl-warmup"])
def test_a_killed_run_ends_bit_identical(zoo: dict[str, str], val: Images, tmp_path: Path, method: str) -> None:
    asked: Run = {**SHORT, "method": method, "epochs": 2, "batch_size": 16, "checkpoint_every": 1, "lr": 1e-2}
    if method == "xe-kl-mcl":
        asked |= {"slow_every": 3, "slow_momentum": 0.7}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    gainfinder.transfer(zoo["resnet"], zoo["vit"], "digits#2/4", val=val, out=whole, **asked)
    for images in (40, 60):  # in the first epoch, then in the second
        with pytest.raises(Killed):
            callback = KillAfter(images)
            gainfinder.transfer(
                zoo["resnet"], zoo["vit"], "digits#2/4", val=val, out=killed, callbacks=[callback], **asked
            )
        assert (killed / "checkpoint.pt").exists() and not (killed / "result.json").exists()
    result = gainfinder.transfer(zoo["resnet"], zoo["vit"], "digits#2/4", val=val, out=killed, **asked)
    assert result.metrics.resumed_epochs == 1
    one, other = (load_file(folder / "student" / "model.safetensors") for folder in (whole, killed))
    assert same(one, other)
    assert (whole / "epochs.jsonl").read_bytes() == (killed / "epochs.jsonl").read_bytes()
    assert reproducible(whole) == reproducible(killed)
