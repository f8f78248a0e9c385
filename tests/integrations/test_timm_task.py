"""A transfer as a task of timm's loop: the trainer's numbers, timm's own machinery around it, and what it refuses."""

import copy
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.optim import create_optimizer_v2
from timm.task import ClassificationTask, load_task_ema_checkpoint, resume_task_checkpoint
from timm.utils import CheckpointSaver
from torch import Tensor, nn

import gainfinder
from gainfinder import TransferLoss, TransferTask
from gainfinder.config import METHODS, TransferConfig, resolve_settings
from gainfinder.devices import make_accelerator
from gainfinder.errors import ModelError, SettingsError
from gainfinder.inference import TargetSource
from gainfinder.training import StudentTrainer
from gainfinder.training.trainer import Batch
from gainfinder.views import Views
from tiny_models import SIZE, tiny
from transfers import assert_close, same

N, STEPS, RATE = 16, 3, 0.05
TRAINED = [("kl-dp", 1), ("kl-dp-u", 1), ("kl-dp", 2), ("kl-dp-u", 2), ("kl-prod-u", 2), ("kl", 1)]
State = dict[str, Tensor]
Steps = list[tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    """A student and two teachers, with weights that make each the most confident in some images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {name: tiny(name).eval() for name in ("resnet", "vit", "convnext")}
        with torch.no_grad():
            for module in made.values():
                module.get_classifier().weight.normal_(std=0.5)
    return made


@pytest.fixture(scope="module")
def small(models: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The same of three layers, for what does not depend on the architecture."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made: dict[str, nn.Module] = {}
        for name, module in models.items():
            made[name] = nn.Sequential(
                nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 12), nn.LayerNorm(12), nn.Linear(12, 10)
            )
            made[name].pretrained_cfg = module.pretrained_cfg
    return made


@pytest.fixture(scope="module")
def pixels() -> Steps:
    draw = torch.Generator().manual_seed(5)
    return [
        (
            torch.randint(0, 256, (N, 3, SIZE, SIZE), dtype=torch.uint8, generator=draw),
            torch.randint(0, 10, (N,), generator=draw),
        )
        for _ in range(STEPS)
    ]


@pytest.fixture(scope="module")
def batches(pixels: Steps) -> Steps:
    """The same as timm's loader gives them: normalised for the student."""
    return [(normalised(rendering), y) for rendering, y in pixels]


def normalised(rendering: Tensor) -> Tensor:
    return Views(renderings=(rendering,)).inputs(gainfinder.load_model(tiny("vit")).preprocessing)


def by_trainer(
    models: dict[str, nn.Module], pixels: Steps, *, method: str, teachers: int, precision: str, parts: int
) -> Iterator[tuple[float, State]]:
    """Loss and weights after each step of gainfinder's own trainer."""
    settings = resolve_settings(
        TransferConfig.model_validate(
            {"preset": "gentle", "method": method, "lr": RATE, "micro_batch": N // parts, "student_mode": "train"}
        ),
        labelled=True, images=64, view_size=(SIZE, SIZE), mirrorable=False,
    )  # fmt: skip
    accelerator = make_accelerator("cpu", precision)
    student, *others = (gainfinder.load_model(copy.deepcopy(module)) for module in models.values())
    frozen = others[:teachers]
    if settings.method.needs_initial_student:
        frozen = [student.copied(), *frozen]
    source = TargetSource(
        frozen, device=accelerator.device, autocast=accelerator.autocast, partition=settings.method.partition
    )
    trainer = StudentTrainer(student, source, settings=settings, accelerator=accelerator)
    for rendering, y in pixels:
        batch = Batch(views=Views(renderings=(rendering,)), positions_N=torch.arange(N), target_N=y, total=N)
        loss_sum, _ = trainer.step(batch)
        yield loss_sum.item() / N, {name: value.clone() for name, value in trainer.weights().items()}


def by_timm(
    task: TransferTask, batches: Steps, *, precision: str = "fp32", parts: int = 1
) -> list[tuple[float, State]]:
    """The same of a loop as timm's `train_one_epoch`, with gradients of several batches added up."""
    optimizer = create_optimizer_v2(task.get_trainable_module(), opt="momentum", lr=RATE, weight_decay=1e-3,
                                    filter_bias_and_bn=False, momentum=0.9, fused=True)  # fmt: skip
    task.train()
    found = []
    for x, y in batches:
        optimizer.zero_grad()
        losses = []
        for x_part, y_part in zip(x.chunk(parts), y.chunk(parts), strict=True):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = task(x_part, y_part)["loss"] / parts
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        task.update_ema()
        student: Any = task.get_trainable_module()
        found.append((sum(losses), {name: value.clone() for name, value in student.state_dict().items()}))
    return found


def make(models: dict[str, nn.Module], method: str | TransferLoss = "kl-dp", *, teachers: int = 1, **given: Any) -> Any:
    student, *others = models.values()
    return TransferTask(copy.deepcopy(student), others[:teachers], method, **given)


def reset(module: nn.Module) -> nn.Module:
    """A copy with other weights."""
    other = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    return other


# ---- the trainer's numbers ----


@pytest.mark.parametrize("case", [
    *(("small", method, teachers, "fp32", 1) for method, teachers in TRAINED),
    ("models", "kl-dp", 2, "fp32", 1), ("models", "kl-dp", 2, "bf16", 1), ("models", "kl-dp-u", 2, "fp32", 2),
], ids=str)  # fmt: skip
def test_each_step_is_that_of_the_trainer(
    case: tuple[str, str, int, str, int], pixels: Steps, batches: Steps, request: pytest.FixtureRequest
) -> None:
    """Weights to the bit, also in lower precision and where the gradients of parts of a batch add up."""
    fixture, method, teachers, precision, parts = case
    models = request.getfixturevalue(fixture)
    task = make(models, method, teachers=teachers)
    wanted = by_trainer(models, pixels, method=method, teachers=teachers, precision=precision, parts=parts)
    for found, expected in zip(by_timm(task, batches, precision=precision, parts=parts), wanted, strict=True):
        assert found[0] == pytest.approx(expected[0], rel=1e-6)
        assert same(found[1], expected[1])
    assert not same(found[1], models["resnet"].state_dict())


def test_who_taught_is_told(small: dict[str, nn.Module], batches: Steps) -> None:
    x, y = batches[0]
    task = make(small, teachers=2)
    told = task(x, y)
    with torch.no_grad():
        probs = torch.stack([module(x).softmax(dim=1) for module in small.values()], dim=1)
    choice = gainfinder.partition.most_confident(probs, y)
    assert told["teacher_shares"].tolist() == [float((choice == teacher).float().mean()) for teacher in (1, 2)]
    assert told["teacher_share"] == (choice > 0).float().mean() and 0 < told["teacher_share"] < 1
    assert told["output"].shape == (N, 10) and torch.equal(told["output"], task.get_eval_model()(x))
    assert make(small, "kl")(x, y).keys() == {"loss", "output"}


def test_a_loss_with_settings_of_its_own(small: dict[str, nn.Module], batches: Steps) -> None:
    x, y = batches[0]
    criterion = TransferLoss("kl-dp-cal", temperature=2.0, label_weight=0.5, temperatures=(0.5, 3.0))
    with torch.no_grad():
        logits = [module(x) for module in small.values()]
    assert torch.equal(make(small, criterion)(x, y)["loss"], criterion(logits[0], logits[0], logits[1], y))


# ---- what the student and the frozen models are ----


def test_frozen_models_stay_as_they_are(small: dict[str, nn.Module], batches: Steps) -> None:
    before = {name: copy.deepcopy(module.state_dict()) for name, module in small.items()}
    task = make(small, teachers=2)
    by_timm(task, batches)
    frozen = [task.initial, *task.teachers]
    for module, (name, state) in zip(frozen, before.items(), strict=True):
        assert not any(part.training for part in module.modules()) and same(module.module.state_dict(), state)
        assert same(small[name].state_dict(), state), "a copy teaches"
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in module.parameters())
    assert task.trainable_module.training


def test_teachers_are_references_classifiers_and_modules(zoo: dict[str, str], batches: Steps) -> None:
    x, y = batches[0]
    student = gainfinder.load_model(zoo["resnet"]).module
    teachers: list[Any] = [zoo["vit"], gainfinder.load_model(zoo["convnext"])]
    loaded = [gainfinder.load_model(zoo[name]).module for name in ("vit", "convnext")]
    expected = TransferTask(student, loaded)(x, y)["loss"]
    assert torch.equal(TransferTask(student, teachers)(x, y)["loss"], expected)
    shuffled = replace(gainfinder.load_model(zoo["vit"]).with_class_order((*range(1, 10), 0), None),
                       class_names=tuple("1234567890"))  # fmt: skip
    by_name = TransferTask(student, [shuffled, loaded[1]])
    assert torch.equal(by_name(x, y)["loss"], expected), "classes are matched by name"


def test_the_loaders_size_and_normalisation_can_be_others(small: dict[str, nn.Module]) -> None:
    student = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(3 * 64, 10))
    student[0].register_forward_pre_hook(_only_24)
    student.pretrained_cfg = small["vit"].pretrained_cfg
    x = torch.randn(4, 3, 24, 24)
    with pytest.raises(ModelError, match=r"size \(3, 16, 16\).* in Python as size="):
        TransferTask(student, small["vit"])
    task = TransferTask(student, small["vit"], size=24, mean=(0.25, 0.25, 0.25), std=(2.0, 2.0, 2.0))
    assert task(x, torch.arange(4))["loss"].isfinite()
    flat = torch.full((1, 3, 24, 24), 0.25)  # pixels of 0.25 + 2 · 0.25
    torch.testing.assert_close(task.teachers[0].renormalised(flat), torch.full((1, 3, SIZE, SIZE), 0.5))


def _only_24(_module: nn.Module, inputs: tuple[Tensor]) -> None:
    assert inputs[0].shape[-2:] == (24, 24), "as a model of fixed input size"


# ---- timm's machinery ----


def saved(task: Any, folder: Path) -> Path:
    optimizer = torch.optim.SGD(task.get_trainable_module().parameters(), lr=0.1)
    saver = CheckpointSaver(task.get_trainable_module(), optimizer, task=task, checkpoint_dir=str(folder))
    saver.save_checkpoint(0, metric=1.0)
    return folder / "last.pth.tar"


def test_a_resumed_run_keeps_the_initial_student(small: dict[str, nn.Module], batches: Steps, tmp_path: Path) -> None:
    first = make(small, "kl-dp-u")
    first.setup_ema(decay=0.5)
    by_timm(first, batches)
    checkpoint = saved(first, tmp_path)
    # timm's script builds student and task anew; with other weights it is plain what comes from the checkpoint
    again = TransferTask(reset(small["resnet"]), small["vit"], "kl-dp-u")
    again.setup_ema(decay=0.5)
    assert resume_task_checkpoint(again, str(checkpoint), log_info=False) == 1
    load_task_ema_checkpoint(again, str(checkpoint))
    assert same(again.initial.module.state_dict(), small["resnet"].state_dict())
    assert same(again.trainable_module_ema.module.state_dict(), first.trainable_module_ema.module.state_dict())
    assert not same(again.trainable_module_ema.module.state_dict(), again.trainable_module.state_dict())
    for found, expected in zip(by_timm(again, batches), by_timm(first, batches), strict=True):
        assert found[0] == expected[0] and same(found[1], expected[1])


def test_a_half_trained_student_is_not_taken_for_the_initial_one(
    small: dict[str, nn.Module], batches: Steps, tmp_path: Path
) -> None:
    other = ClassificationTask(copy.deepcopy(small["resnet"]), nn.CrossEntropyLoss(), verbose=False)
    checkpoint = str(saved(other, tmp_path))
    with pytest.raises(ModelError, match=r"holds no initial student .* give `initial_student`"):
        resume_task_checkpoint(make(small), checkpoint, log_info=False)
    told = TransferTask(reset(small["resnet"]), small["vit"], initial_student=small["resnet"])
    resume_task_checkpoint(told, checkpoint, log_info=False)
    assert same(told.initial.module.state_dict(), small["resnet"].state_dict())
    resume_task_checkpoint(make(small, "kl"), checkpoint, log_info=False)  # has no initial student

    checkpoint = str(saved(make(small), tmp_path))
    resume_task_checkpoint(told, checkpoint, log_info=False)
    wrong = TransferTask(reset(small["resnet"]), small["vit"], initial_student=reset(small["resnet"]))
    with pytest.raises(ModelError, match="other weights than the `initial_student`"):
        resume_task_checkpoint(wrong, checkpoint, log_info=False)


def test_a_compiled_task_computes_the_same(small: dict[str, nn.Module], batches: Steps, tmp_path: Path) -> None:
    plain, task = make(small), make(small)
    task.compile(backend="eager")
    assert task.get_eval_model() is task.trainable_module
    assert torch.equal(task(*batches[0])["loss"], plain(*batches[0])["loss"])
    checkpoint = torch.load(saved(task, tmp_path), weights_only=True)
    assert checkpoint["state_dict"].keys() == checkpoint["task_state"]["initial_student"].keys()


def test_several_processes_learn_as_one(small: dict[str, nn.Module], batches: Steps, tmp_path: Path) -> None:
    (*_, (_, alone)) = by_timm(make(small), batches)  # with batch-norm each process would see half a batch
    start = multiprocessing.get_context("fork").Process
    processes = [start(target=_one_of_two, args=(small, batches, tmp_path, rank)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert same(found[0], found[1])
    assert_close(found[0], alone)


def _one_of_two(models: dict[str, nn.Module], batches: Steps, folder: Path, rank: int) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    task = make(models).prepare_distributed()
    assert isinstance(task.trainable_module, nn.parallel.DistributedDataParallel)
    by_timm(task, [(x.chunk(2)[rank], y.chunk(2)[rank]) for x, y in batches])
    torch.save(task.get_checkpoint_state()["state_dict"], folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_another_precision(small: dict[str, nn.Module], batches: Steps) -> None:
    x, y = batches[0]
    student = copy.deepcopy(small["resnet"]).bfloat16()
    task = TransferTask(student, small["vit"], mean=(0.4, 0.4, 0.4))
    told = task(x.bfloat16(), y)
    assert told["output"].dtype == torch.bfloat16 and told["loss"].dtype == torch.float32
    torch.testing.assert_close(told["loss"], make(small, mean=(0.4, 0.4, 0.4))(x, y)["loss"], rtol=0.1, atol=0.05)
    task.to(torch.float64)
    assert task(x.double(), y)["output"].dtype == torch.float64


# ---- what it refuses ----


def test_mixed_images_are_for_methods_without_labels(small: dict[str, nn.Module], batches: Steps) -> None:
    x, y = batches[0]
    mixed = nn.functional.one_hot(y, 10).float()
    for method in ("kl-dp", "xe-kl"):
        with pytest.raises(SettingsError, match=r"reads labels, and got torch.float32 \(16, 10\), as mixup"):
            make(small, method)(x, mixed)
    task = make(small, "kl-dp-u")
    assert torch.equal(task(x, mixed)["loss"], task(x)["loss"])
    assert torch.equal(make(small)(x, y.int())["loss"], make(small)(x, y)["loss"])
    with pytest.raises(ValueError, match="needs labels, got None"):
        make(small)(x)


REFUSED: dict[str, tuple[str | Callable[[], TransferLoss], int, str]] = {
    "features": ("cd", 1, "compares features"),
    "warm-up": ("kl-warmup", 1, "trains the classifier layer alone"),
    "slow": ("xe-kl-mcl", 1, r"task.setup_ema\(\)"),
    "labels alone": ("xe", 1, "ClassificationTask"),
    "labels alone by weight": (lambda: TransferLoss("xe-kl", distill_weight=0.0), 1, "ClassificationTask"),
    "several": ("kl", 2, "learns from one teacher, got 2"),
    "none": ("kl-dp", 0, "at least one teacher, got 0"),
    "temperatures": (lambda: TransferLoss("kl-dp-cal", temperatures=(1, 2)), 2, "of 2 teacher"),
    "uncalibrated": ("kl-dp-cal", 1, "give `temperatures`"),
    "unknown": ("kl-pd", 1, "method 'kl-pd' is unknown"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_task_cannot_do(small: dict[str, nn.Module], case: str) -> None:
    method, teachers, message = REFUSED[case]
    with pytest.raises(SettingsError, match=message):
        make(small, method if isinstance(method, str) else method(), teachers=teachers)


def test_models_that_cannot_be_used(small: dict[str, nn.Module], batches: Steps, tmp_path: Path) -> None:
    other = gainfinder.load_model(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 7)), size=SIZE)
    student = small["resnet"]
    with pytest.raises(ModelError, match="7 classes"):
        TransferTask(student, other)
    with pytest.raises(ModelError, match="expected 10 classes as the student's, got 7"):
        TransferTask(student, small["vit"], initial_student=other)
    with pytest.raises(ModelError, match="the module that is trained"):
        TransferTask("resnet18", small["vit"])  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="learns from the teacher alone"):
        TransferTask(student, small["vit"], "kl", initial_student=student)
    with pytest.raises(ModelError, match="pretrained_cfg"):
        TransferTask(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 10)), small["vit"])
    table = tmp_path / "table.csv"
    table.write_text("id,logit:a,logit:b\na,0,1\n")
    with pytest.raises(ModelError, match="table of predictions, and a batch of timm's loop"):
        TransferTask(student, f"table:{table}")
    with pytest.raises(ModelError, match=r"expected a model: .* got int"):
        TransferTask(student, 3)  # type: ignore[arg-type]
    x, y = batches[0]
    for labels in (y + 5, y - 10):
        with pytest.raises(SettingsError, match=r"expected labels from 0 to 9, the classes of .*, got "):
            make(small)(x, labels)
    with pytest.raises(SettingsError, match="naflex"):
        make(small)({"patches": batches[0][0]})


def test_the_methods_that_it_takes(small: dict[str, nn.Module], batches: Steps) -> None:
    """Every row of the table is either trained by or refused as one that needs more than a loss."""
    taken: Sequence[str] = [
        row.name for row in METHODS
        if not (row.needs_features or row.interpolated or row.warmup_epochs or row.calibrated or not row.needs_teachers)
    ]  # fmt: skip
    assert len(taken) > 12
    for method in taken:
        told = make(small, method)(*batches[0])
        assert told["loss"].isfinite() and told["loss"].requires_grad
