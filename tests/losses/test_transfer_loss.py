"""The loss for a loop of one's own: against plain PyTorch, against the trainer, shapes, and what it refuses."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gainfinder
from gainfinder import TransferLoss
from gainfinder.config import METHODS, OBJECTIVES, Method, TransferConfig, find_method, resolve_settings
from gainfinder.devices import make_accelerator
from gainfinder.errors import SettingsError
from gainfinder.inference import TargetSource
from gainfinder.losses import OverlaidLabels, Temperatures
from gainfinder.losses.named import FUNCTIONS
from gainfinder.training import StudentTrainer, loss_of
from gainfinder.training.trainer import Batch
from gainfinder.views import Views
from tiny_models import SIZE, tiny

N, C = 16, 7
BY_SAMPLE = [method for method in METHODS if not method.compares_batch]
BY_BATCH = [method for method in METHODS if method.compares_batch and not method.needs_features]


def named(methods: list[Method]) -> Any:
    return pytest.mark.parametrize("method", methods, ids=lambda method: method.name)


def logits(*shape: int, seed: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(*shape: int) -> Tensor:
    return torch.randint(0, C, shape, generator=torch.Generator().manual_seed(9))


def make(method: Method | str, **settings: Any) -> TransferLoss:
    return TransferLoss(method, temperatures=temperatures_of(method), **settings)


def temperatures_of(method: Method | str, *, classes: int = C) -> Temperatures | None:
    row = find_method(method) if isinstance(method, str) else method
    if not row.calibrated:
        return None
    return (0.5, 3.0) if row.pooling is None else [[0.5] * classes, [3.0] * classes]


# ---- plain PyTorch ----


def plain(
    student: Tensor, initial: Tensor, teacher: Tensor, y: Tensor, *, by: str | None, t: float, xe: float, eps: float
) -> Tensor:
    """The loss as anybody would write it; nothing of gainfinder."""
    target = teacher
    if by is not None:
        p_initial, p_teacher = initial.softmax(-1), teacher.softmax(-1)
        if by == "label":
            surer = p_teacher.gather(1, y[:, None]) > p_initial.gather(1, y[:, None])
        else:
            surer = p_teacher.amax(1, keepdim=True) > p_initial.amax(1, keepdim=True)
        target = torch.where(surer, teacher, initial)
    kl = F.kl_div((student / t).log_softmax(-1), (target / t).softmax(-1), reduction="batchmean") * t**2
    return (1 - xe) * kl + xe * F.cross_entropy(student, y, label_smoothing=eps)


@pytest.mark.parametrize(
    ("method", "settings", "by", "numbers"),  # T, weight of the cross-entropy, ε
    [
        ("kl", {}, None, (1.0, 0.0, 0.0)),
        ("kl", {"temperature": 4.0}, None, (4.0, 0.0, 0.0)),
        ("kl-dp", {}, "label", (1.0, 0.0, 0.0)),
        ("kl-dp", {"temperature": 2.0, "distill_weight": 0.75}, "label", (2.0, 0.25, 0.0)),
        ("kl-dp-u", {}, "confidence", (1.0, 0.0, 0.0)),
        ("kl-dp-u", {"temperature": 0.5}, "confidence", (0.5, 0.0, 0.0)),
        ("xe-kl", {}, None, (1.0, 0.5, 0.0)),
        ("xe-kl", {"label_smoothing": 0.2, "temperature": 3.0}, None, (3.0, 0.5, 0.2)),
        ("xe-kl-ls", {}, None, (1.0, 0.5, 0.1)),
    ],
)
def test_it_is_a_plain_loop(
    method: str, settings: dict[str, Any], by: str | None, numbers: tuple[float, float, float]
) -> None:
    t, xe, eps = numbers
    student, initial, teacher = (logits(N, C, seed=seed) for seed in (1, 2, 3))
    # Ties: a teacher that says the same, and one that is as sure of the label and of another class.
    teacher[0], teacher[1] = initial[0], initial[1].flip(0)
    y = labels(N)
    y[1] = C // 2
    expected_of, found_of = student.clone().requires_grad_(), student.clone().requires_grad_()
    expected = plain(expected_of, initial, teacher, y, by=by, t=t, xe=xe, eps=eps)
    found = TransferLoss(method, **settings)(found_of, initial, teacher, y)
    expected.backward()
    found.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_of.grad, expected_of.grad)


@pytest.mark.parametrize("method", ["xe", "xe-kl-ls", "kl-dp"])
def test_a_mixed_image_has_both_labels_in_their_shares(method: str) -> None:
    settings: dict[str, Any] = {"distill_weight": 0.75} if method == "kl-dp" else {}
    student, initial, teacher = (logits(N, C, seed=seed) for seed in (1, 2, 3))
    y, z, share = labels(N), labels(N).flip(0), torch.rand(N, generator=torch.Generator().manual_seed(4))
    loss = TransferLoss(method, **settings)
    stacked = loss.stack(initial, teacher, shape=student.shape)
    overlaid = OverlaidLabels(target_N=z, shares_N=share)
    found = loss.losses(student, stacked, y, overlaid=overlaid).values
    soft = share[:, None] * F.one_hot(y, C) + (1 - share[:, None]) * F.one_hot(z, C)
    expected = F.cross_entropy(student, soft, label_smoothing=loss.label_smoothing, reduction="none")
    hard = F.cross_entropy(student, y, label_smoothing=loss.label_smoothing, reduction="none")
    unmixed = loss.losses(student, stacked, y)
    torch.testing.assert_close(found - unmixed.values, loss.label_weight * (expected - hard))
    parts = Batch(
        views=Views(renderings=(torch.zeros(N, 3, 2, 2),)), positions_N=torch.arange(N), target_N=y, total=N,
        overlaid=overlaid,
    ).parts(3)  # fmt: skip
    assert len(parts) > 1
    by_part = [
        loss.losses(student[p.positions_N], stacked[p.positions_N], p.target_N, overlaid=p.overlaid) for p in parts
    ]
    torch.testing.assert_close(torch.cat([part.values for part in by_part]), found)


# ---- the trainer ----

TRAINED = [
    "kl",
    "kl-dp",
    "kl-dp-u",
    "xe-kl-ls",
    "kl-dp-cal-u",
    "kl-dp-soft",
    "dist-dp-u",
    "dkd-dp",
    "kl-top-k",
    "kl-prod-cal-u",
]


def frozen(name: str, seed: int) -> gainfinder.models.Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return gainfinder.load_model(tiny(name).eval())


@pytest.mark.parametrize("method", TRAINED)
def test_a_loop_of_ones_own_gives_the_weights_of_the_trainer(method: str) -> None:
    initial, teacher = frozen("vit", 0), frozen("convnext", 1)
    settings = resolve_settings(
        TransferConfig.model_validate({"preset": "gentle", "method": method, "lr": 0.05, "student_mode": "frozen"}),
        labelled=True, images=64, view_size=(SIZE, SIZE), mirrorable=False,
    )  # fmt: skip
    temperatures = temperatures_of(method, classes=10)
    draw = torch.Generator().manual_seed(5)
    pixels = [torch.randint(0, 256, (N, 3, SIZE, SIZE), dtype=torch.uint8, generator=draw) for _ in range(3)]
    targets = [torch.randint(0, 10, (N,), generator=draw) for _ in pixels]

    accelerator = make_accelerator("cpu", "fp32")
    models = (initial, teacher) if settings.method.needs_initial_student else (teacher,)
    source = TargetSource(
        models, device=accelerator.device, autocast=accelerator.autocast, partition=settings.method.partition
    )
    trained = gainfinder.load_model(copy.deepcopy(initial.module))
    trainer = StudentTrainer(trained, source, settings=settings, accelerator=accelerator, temperatures=temperatures)
    for rendering, y in zip(pixels, targets, strict=True):
        batch = Batch(views=Views(renderings=(rendering,)), positions_N=torch.arange(N), target_N=y, total=N)
        trainer.step(batch)

    student = copy.deepcopy(initial.module)
    criterion = TransferLoss(method, temperatures=temperatures)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3, fused=True)
    for rendering, y in zip(pixels, targets, strict=True):
        x = Views(renderings=(rendering,)).inputs(initial.preprocessing)
        with torch.inference_mode():
            initial_logits, teacher_logits = initial.module(x), teacher.module(x)
        optimizer.zero_grad()
        criterion(student(x), initial_logits, teacher_logits, y).backward()
        optimizer.step()
    found = trainer.weights()
    for name, value in student.state_dict().items():
        assert torch.equal(found[name], value), name
    moved = [not torch.equal(value, initial.module.state_dict()[name]) for name, value in student.state_dict().items()]
    assert any(moved)


@named([method for method in METHODS if not method.needs_features])
def test_the_loss_of_a_run_is_the_one_by_name(method: Method) -> None:
    settings = resolve_settings(
        TransferConfig(method=method.name), labelled=True, images=640, view_size=(224, 224), mirrorable=True
    )
    temperatures = temperatures_of(method)
    of_run, by_name = loss_of(settings, temperatures=temperatures), TransferLoss(method.name, temperatures=temperatures)
    student, initial, teacher, y = *(logits(N, C, seed=seed) for seed in (1, 2, 3)), labels(N)
    assert torch.equal(of_run(student, initial, teacher, y), by_name(student, initial, teacher, y))
    assert by_name.needs_labels == method.needs_labels


# ---- shapes and dtypes ----


@named(BY_SAMPLE)
def test_leading_dimensions_are_positions(method: Method) -> None:
    loss, y = make(method), labels(3, 4)
    student, initial, teacher = (logits(3, 4, C, seed=seed) for seed in (1, 2, 3))
    flat = loss(student.reshape(12, C), initial.reshape(12, C), teacher.reshape(12, C), y.reshape(12))
    assert torch.equal(loss(student, initial, teacher, y), flat)
    found = loss.losses(student, loss.stack(initial, teacher, shape=student.shape), y)
    assert found.values.shape == (3, 4) and found.weights.shape == (3, 4, 2 if method.needs_initial_student else 1)
    one = loss(student[0, 0], initial[0, 0], teacher[0, 0], y[0, 0])
    torch.testing.assert_close(one, found.values[0, 0])


@named(BY_BATCH)
def test_methods_that_compare_samples_refuse_other_positions(method: Method) -> None:
    z = logits(3, 4, C, seed=1)
    with pytest.raises(ValueError, match=rf"'{method.name}' compares the samples of a batch .*\(N, classes\).*kl-dp"):
        make(method)(z, z, z, labels(3, 4))


@pytest.mark.parametrize("method", ["kl-dp", "kl-dp-u", "kl-dp-soft", "kl-mean-u", "kl-prod-u"])
def test_several_teachers_come_as_a_sequence_or_stacked(method: str) -> None:
    student, initial, *teachers = (logits(N, C, seed=seed) for seed in (1, 2, 3, 4))
    loss, y = TransferLoss(method), labels(N)
    one = loss(student, initial, teachers, y)
    assert torch.equal(one, loss(student, initial, torch.stack(teachers), y))
    assert torch.equal(one, loss(student, initial, tuple(teachers), y))
    assert not torch.equal(one, loss(student, initial, teachers[0], y))


def test_who_taught_is_told() -> None:
    initial = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    loss = TransferLoss("kl-dp-u")
    found = loss.losses(torch.zeros(3, 2), loss.stack(initial, teacher, shape=initial.shape))
    assert found.weights.tolist() == [[False, True], [True, False], [True, False]]
    assert found.taught == 1


@pytest.mark.parametrize("method", [m.name for m in METHODS if m.partition and not m.soft])
def test_where_it_is_decided_already_nobody_else_is_read(method: str) -> None:
    torch.manual_seed(0)
    student, models = torch.randn(6, 5), torch.randn(6, 3, 5)
    target, choice = torch.randint(5, (6,)), torch.tensor([0, 1, 2, 0, 1, 2])
    temperatures = [1.0, 2.0, 0.5] if find_method(method).calibrated else None
    criterion = TransferLoss(method, temperatures=temperatures)
    alone = models.clone()
    alone[torch.arange(3) != choice[:, None]] = torch.nan
    found = criterion.losses(student, alone, target, choice=choice)
    assert torch.equal(found.weights, choice[:, None] == torch.arange(3))
    sure = torch.full((6, 3), -9.0).scatter(1, choice[:, None], 0.0)
    if temperatures is None:
        expected = criterion.losses(student, models, target, log_confidence=sure).values
        torch.testing.assert_close(found.values, expected)
    assert found.values.isfinite().all()


def test_what_is_not_needed_may_be_missing() -> None:
    student, teacher = logits(N, C, seed=1), logits(N, C, seed=2)
    assert torch.equal(TransferLoss("kl")(student, None, teacher), TransferLoss("kl")(student, student, teacher))
    assert TransferLoss("xe-kl", distill_weight=1.0)(student, None, teacher).isfinite()
    empty = torch.zeros(0, C, requires_grad=True)
    value = TransferLoss("kl-dp-u")(empty, torch.zeros(0, C), torch.zeros(0, C))
    value.backward()
    assert value == 0 and empty.grad is not None and empty.grad.shape == (0, C)


def test_logits_of_half_precision_give_a_loss_in_float32() -> None:
    student, initial, teacher = (logits(N, C, seed=seed).bfloat16() for seed in (1, 2, 3))
    loss = TransferLoss("kl-dp-u")
    found = loss(student.requires_grad_(), initial, teacher)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(student.float(), initial.float(), teacher.float()))
    found.backward()
    assert student.grad is not None and student.grad.dtype == torch.bfloat16


def test_it_has_nothing_to_learn_or_to_save() -> None:
    loss = make("kl-dp-cal")
    assert not list(loss.parameters()) and not loss.state_dict()
    assert "'kl-dp-cal', temperature=1, distill_weight=1, label_weight=0" in repr(nn.Sequential(loss))
    assert copy.deepcopy(loss).to("meta").temperatures_M.device.type == "meta"


# ---- what it refuses ----


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("kl-pd", {}, r"method 'kl-pd' is unknown; near matches: .*kl-dp"),
        ("cd", {}, r"'cd' compares features, and TransferLoss sees logits alone: use gainfinder.transfer"),
        ("crd", {}, r"'crd' compares features"),
        ("kl-dp", {"top_k": 5}, r"^top-k is a setting of kl-top-k: method 'kl-dp' does not use it"),
        ("kl-dp", {"sharpness": 2.0}, r"^sharpness is a setting of the -soft methods: method 'kl-dp'"),
        ("kl-dp", {"label_smoothing": 0.1}, r"^label-smoothing needs a cross-entropy .*method 'kl-dp'"),
        ("kl-dp", {"temperatures": (1.0, 2.0)}, r"^temperatures is a setting of the -cal methods: method 'kl-dp'"),
        ("kl-dp-cal", {}, r"'kl-dp-cal' compares calibrated confidences: give `temperatures`"),
        ("kl-dp-cal", {"temperatures": (1.0, 0.0)}, r"temperatures is \[1.0, 0.0\]: expected numbers above 0"),
        ("kl-dp-cal", {"temperatures": (1.0,)}, r"temperatures is \[1.0\]"),
        ("kl-dp-cal", {"temperatures": ((1.0, 1.0), (2.0, 1.0))}, r"expected numbers above 0, the initial student's"),
        ("kl-prod-cal-u", {}, r"'kl-prod-cal-u' compares calibrated confidences: give `temperatures`"),
        ("kl-prod-cal-u", {"temperatures": (1.0, 2.0)}, r"expected a row for the initial student and each teacher"),
        ("kl-prod-cal-u", {"temperatures": ((1.0, 2.0), (1.0,))}, r"expected a row for the initial student and each"),
        ("kl", {"temperature": 0.0}, r"temperature is 0.0: expected more than 0"),
        ("kl", {"distill_weight": 1.5}, r"distill-weight is 1.5: expected from 0 to 1"),
        ("kl", {"label_weight": -1.0}, r"label-weight is -1.0: expected 0 or more"),
    ],
)
def test_settings_are_refused_as_transfer_refuses_them(method: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        TransferLoss(method, **settings)


def test_logits_and_labels_that_it_cannot_use() -> None:
    z, y = logits(N, C, seed=1), labels(N)
    with pytest.raises(ValueError, match=r"initial_logits: method 'kl-dp' compares the teacher with the initial"):
        TransferLoss("kl-dp")(z, None, z, y)
    with pytest.raises(ValueError, match=r"target: method 'kl-dp' needs labels, got None; .*'kl-dp-u'"):
        TransferLoss("kl-dp")(z, z, z)
    with pytest.raises(ValueError, match=r"target: expected torch.int64 \(16,\)"):
        TransferLoss("kl-dp")(z, z, z, y[:3])
    with pytest.raises(ValueError, match=r"teacher_logits: expected \(16, 7\) as the student's logits, got \(16, 5\)"):
        TransferLoss("kl-dp-u")(z, z, z[:, :5])
    with pytest.raises(ValueError, match=r"teacher_logits\[1\]: expected \(16, 7\)"):
        TransferLoss("kl-dp-u")(z, z, [z, z[:3]])
    with pytest.raises(ValueError, match=r"'kl' has no partition .* one teacher, got 2"):
        TransferLoss("kl")(z, None, [z, z])
    with pytest.raises(ValueError, match=r"teacher_logits: expected those of at least one teacher"):
        TransferLoss("kl")(z, None, [])
    with pytest.raises(ValueError, match=r"has temperatures of 2 models, got logits of 3"):
        make("kl-dp-cal-u")(z, z, [z, z])
    with pytest.raises(ValueError, match=r"has temperatures of 7 classes, got logits of 5"):
        make("kl-prod-cal-u")(z[:, :5], z[:, :5], z[:, :5])
    with pytest.raises(ValueError, match=r"student_logits: expected floating point"):
        TransferLoss("kl-dp-u")(z.long(), z.long(), z.long())


# ---- rows of one's own ----


def test_a_row_of_ones_own_can_be_given() -> None:
    row = Method(name="mine", partition="confidence", objective="soft-xe", temperature=2.0, summary="", source="")
    student, initial, teacher = (logits(N, C, seed=seed) for seed in (1, 2, 3))
    found = TransferLoss(row)(student, initial, teacher)
    by_kl = TransferLoss("kl-dp-u", temperature=2.0)(student, initial, teacher)
    taught = torch.where((teacher.softmax(1).amax(1) > initial.softmax(1).amax(1))[:, None], teacher, initial)
    entropy = torch.distributions.Categorical(logits=taught / 2).entropy().mean()
    torch.testing.assert_close(found, by_kl + 4 * entropy)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"objective": "kll"}, r"objective 'kll' is unknown; near matches: kl"),
        ({"soft": True}, r"method 'mine': .* of a partition"),
        ({"calibrated": True}, r"method 'mine': .* of a partition"),
        ({"partition": "label", "pooling": "mean"}, r"method 'mine': pooling is of logits without a partition"),
        ({"objective": "cd", "pooling": "product"}, r"method 'mine': pooling is of logits without a partition"),
        ({"partition": "label", "soft": True, "objective": "dkd"}, r"soft mixes by objective 'kl' alone, got 'dkd'"),
    ],
)
def test_rows_that_cannot_be_carried_out_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Method(name="mine", summary="", source="", **row)


def test_every_objective_on_logits_has_its_function() -> None:
    assert set(FUNCTIONS) == {name for name, needs in OBJECTIVES.items() if not needs.features}


def test_what_methods_need_stands_in_their_rows() -> None:
    def those(capability: str) -> set[str]:
        return {method.name for method in METHODS if getattr(method, capability)}

    assert those("needs_features") == {"cd", "crd"}
    assert those("compares_batch") == {"cd", "crd", "dist-dp", "dist-dp-u"}
    assert those("single_process") == those("keeps_memory") == {"crd"}
    read = {method.name: method.settings for method in METHODS}
    assert read["crd"] == {"negatives"} and read["cd"] == frozenset()
    assert read["kl-top-k"] == {"temperature", "top_k"} and read["kl-dp-soft-u"] == {"temperature", "sharpness"}
    assert read["xe-kl-mcl"] == {"temperature", "slow_momentum", "slow_every"} and read["kl-dp"] == {
        "temperature",
        "decide_on",
    }
