"""Never a worse student: the guard in whole runs."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import gainfinder
from gainfinder.cli.tables import transfer_table
from gainfinder.data.images import Images
from gainfinder.data.sampling import stratified
from gainfinder.errors import SettingsError
from gainfinder.metrics.selection import ALPHAS
from gainfinder.views.spec import epoch_order
from killing import KillAtStage, Killed
from transfers import SHORT, Run, State, reproducible, right, same, weights

SETTINGS: Run = {key: value for key, value in SHORT.items() if key != "guard"}


@pytest.fixture(scope="module")
def guards() -> Images:
    """Images that guard."""
    return gainfinder.load_images("digits#3/4").select(range(100))


def relabelled(images: Images) -> Images:
    """The same images with labels that are all wrong."""
    assert images.labels is not None
    return images.relabel((images.labels + 3) % 10, class_names=images.class_names, num_classes=10)


def spoiled(reference: str) -> nn.Module:
    """A model whose batch-norm statistics fit its images no more; its weights are as good as ever."""
    model: nn.Module = timm.create_model(reference, pretrained=True)
    draw = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            noise = torch.randn(2, len(layer.running_var), generator=draw)
            layer.running_mean += layer.running_var.sqrt() * noise[0]
            layer.running_var *= noise[1].exp()
    return model


def without_statistics(state: State) -> State:
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return {name: tensor for name, tensor in state.items() if not name.endswith(statistics)}


@pytest.mark.parametrize(
    ("student", "mode", "labels"),
    [("resnet", "frozen", "use"), ("resnet", "frozen", "none"), ("vit", "train", "use"), ("vit", "train", "none")],
)
def test_a_ruined_student_is_not_kept(
    zoo: dict[str, str], val: Images, guards: Images, *, student: str, mode: str, labels: str
) -> None:
    asked: Run = {**SETTINGS, "val": val, "guard_data": guards, "student_mode": mode, "labels": labels}
    asked = {**asked, "lr": 3.0, "precision": "fp32"}  # in half precision it would diverge
    result = gainfinder.transfer(zoo[student], zoo["convnext"], "digits#2/4", **asked)
    metrics = result.metrics
    guard = metrics.guard
    assert guard is not None and (guard.alpha, guard.bn_reestimated) == (0.0, False)
    assert same(weights(result), timm.create_model(zoo[student], pretrained=True).state_dict())
    assert metrics.accuracy_after == metrics.accuracy_before
    assert metrics.transfer_delta_pp == 0.0 and metrics.transfer_delta_ci_pp == (0.0, 0.0)
    assert metrics.knowledge_gain == metrics.knowledge_loss == 0.0 and metrics.agreement == 1.0
    # what would have been, the epochs tell: they are measured on the student that trains
    assert guard.unguarded_delta_pp == result.epochs[-1].transfer_delta_pp < -10.0


@pytest.mark.parametrize("labels", ["use", "none"])
@pytest.mark.parametrize("lr", [1e-9, 0.5], ids=["nothing-learned", "ruined"])
def test_a_student_that_only_needed_other_statistics_is_adapted(
    zoo: dict[str, str],
    val: Images,
    guards: Images,
    run_folder: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    labels: str,
    lr: float,
) -> None:
    """Nothing learned is kept: where the points on the way are as good, the guard takes none of them."""
    student = spoiled(zoo["resnet"])
    initial = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    asked = {**SETTINGS, "val": val, "guard_data": guards, "lr": lr, "labels": labels, "out": run_folder}
    result = gainfinder.transfer(student, zoo["vit"], "digits#2/4", **asked)
    guard = json.loads((run_folder / "result.json").read_text())["guard"]
    assert result.metrics.guard is not None and guard == result.metrics.guard.to_dict()
    assert (guard["alpha"], guard["bn_reestimated"], guard["labelled"]) == (0.0, True, labels == "use")
    adapted, *points = guard["points"]
    assert (adapted["alpha"], adapted["bn_reestimated"], adapted["veto"]) == (0.0, True, None)
    assert adapted["measure"] == ("accuracy" if labels == "use" else "information") and adapted["sure_gain"] > 0
    assert [(point["alpha"], point["bn_reestimated"]) for point in points] == [(share, False) for share in ALPHAS]
    assert {point["measure"] for point in points} == {"accuracy" if labels == "use" else "posterior"}
    assert {point["over_adapted"] for point in points} == {labels == "none"}
    assert guard["certificate"].startswith("By labels" if labels == "use" else "By information")
    # with labels the line and the student beside it are tests, each at half of the error
    assert guard["level"] == (0.025 if labels == "use" else 0.05)
    files = {path.name for path in (run_folder / "predictions").glob("guard-*")}
    assert files == {"guard-adapted.parquet", *(f"guard-{share:g}.parquet" for share in ALPHAS)}

    kept = weights(result)
    assert same(without_statistics(kept), without_statistics(initial))
    assert not torch.allclose(kept["bn1.running_var"], initial["bn1.running_var"], rtol=0.1)
    assert same(weights(gainfinder.transfer(student, zoo["vit"], "digits#2/4", **asked)), kept)  # read from the folder
    assert same(student.state_dict(), initial)
    metrics = result.metrics
    assert metrics.accuracy_after > metrics.accuracy_before + 0.5
    assert metrics.accuracy_after == gainfinder.predict(result.student, val, device="cpu", workers=0).accuracy
    assert guard["unguarded_delta_pp"] == result.epochs[-1].transfer_delta_pp < metrics.transfer_delta_pp
    transfer_table(metrics)
    assert "batch-norm statistics re-estimated" in " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize("mode", ["frozen", "train"])
def test_statistics_that_may_not_change_or_that_do_not_exist_are_not_re_estimated(
    zoo: dict[str, str], val: Images, guards: Images, run_folder: Path, mode: str
) -> None:
    student = spoiled(zoo["resnet"]) if mode == "frozen" else timm.create_model(zoo["vit"], pretrained=True)
    asked = {**SETTINGS, "val": val, "guard_data": guards, "lr": 1e-9, "student_mode": mode, "out": run_folder}
    result = gainfinder.transfer(student, zoo["resnet"], "digits#2/4", **asked)
    guard = result.metrics.guard
    assert guard is not None and (guard.alpha, guard.bn_reestimated) == (0.0, False)
    assert [(point.alpha, point.bn_reestimated) for point in guard.points] == [(share, False) for share in ALPHAS]
    assert same(weights(result), student.state_dict())
    files = {path.name for path in (run_folder / "predictions").glob("guard-*")}
    assert files == {f"guard-{share:g}.parquet" for share in ALPHAS}


@pytest.mark.parametrize(
    ("stage", "candidates_done"),
    [
        ("guard: statistics re-estimated", 0),
        ("guard: interpolation α = 0.25", 1),
        ("guard: interpolation α = 1", 4),
        ("measuring the student that", 5),
    ],
)
def test_a_run_killed_while_it_is_guarded_ends_bit_identical(
    zoo: dict[str, str], val: Images, guards: Images, tmp_path: Path, *, stage: str, candidates_done: int
) -> None:
    asked = {**SETTINGS, "val": val, "guard_data": guards, "lr": 0.05, "labels": "none"}
    student = spoiled(zoo["resnet"])
    whole = gainfinder.transfer(student, zoo["convnext"], "digits#2/4", **asked)
    assert whole.metrics.guard.bn_reestimated
    asked["out"] = tmp_path / "killed"
    with pytest.raises(Killed):
        gainfinder.transfer(student, zoo["convnext"], "digits#2/4", callbacks=[KillAtStage(stage)], **asked)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "predictions").glob("guard-*.parquet")}
    again = gainfinder.transfer(student, zoo["convnext"], "digits#2/4", **asked)
    assert again.metrics.resumed_epochs == 1
    assert reproducible(again.account) == reproducible(whole.account)
    assert same(weights(again), weights(whole))
    # what was asked before the kill is not asked again
    assert done == {path: path.stat().st_mtime_ns for path in done}
    assert len(done) == candidates_done


def test_one_guard_image_keeps_the_student_and_its_record_is_json(
    zoo: dict[str, str], val: Images, guards: Images, run_folder: Path
) -> None:
    """A single difference has no standard error, and JSON no infinity."""
    asked = {**SETTINGS, "val": val, "guard_data": guards.select([0]), "out": run_folder}
    result = gainfinder.transfer(spoiled(zoo["resnet"]), zoo["vit"], "digits#2/4", **asked)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    guard = json.loads((run_folder / "result.json").read_text(), parse_constant=refuse)["guard"]
    assert (guard["alpha"], guard["bn_reestimated"], guard["images"]) == (0.0, False, 1)
    assert {(point["error"], point["sure_gain"]) for point in guard["points"]} == {(None, None)}
    assert same(weights(result), spoiled(zoo["resnet"]).state_dict())


def test_the_point_that_is_kept_is_the_one_on_record(zoo: dict[str, str], val: Images, guards: Images) -> None:
    asked = {**SETTINGS, "val": val, "method": "kl", "limit": 200, "epochs": 2, "lr": 0.05}
    guarded = gainfinder.transfer(zoo["convnext"], zoo["resnet"], "digits#2/4", guard_data=guards, **asked)
    free = gainfinder.transfer(zoo["convnext"], zoo["resnet"], "digits#2/4", **{**asked, "guard": False})
    start, end = timm.create_model(zoo["convnext"], pretrained=True).state_dict(), weights(free)
    guard = guarded.metrics.guard
    assert guard is not None
    share = guard.alpha
    assert share > 0
    for name, tensor in weights(guarded).items():  # no batch-norm: between has no statistics of its own
        expected = start[name] + share * (end[name] - start[name])
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6)

    # the record of each point, and the decision, by hand
    assert (guard.images, guard.labelled, guard.held_out, guard.level) == (100, True, False, 0.05)
    module = timm.create_model(zoo["convnext"], pretrained=True)
    before = gainfinder.predict(module, guards, device="cpu", workers=0)
    sure = {0.0: 0.0}
    for point in guard.points:
        module.load_state_dict({name: start[name] + point.alpha * (end[name] - start[name]) for name in start})
        now = gainfinder.predict(module, guards, device="cpu", workers=0)
        gains = (right(now).double() - right(before).double()).tolist()
        mean = sum(gains) / len(gains)
        error = math.sqrt(sum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1) / len(gains))
        assert (point.measure, point.bn_reestimated, point.veto) == ("accuracy", False, None)
        assert point.gain == pytest.approx(100 * mean, abs=1e-9)
        assert (point.gained, point.lost) == (gains.count(1.0), gains.count(-1.0))
        assert point.error == pytest.approx(100 * error, abs=1e-9)
        assert point.sure_gain == pytest.approx(point.gain - 2 * point.error, abs=1e-9)
        assert point.sure_gain is not None
        sure[point.alpha] = point.sure_gain
    assert max(sure.values()) == sure[share] > 0
    assert [point.alpha for point in guard.points][-1] == 1.0
    assert guard.unguarded_delta_pp == free.metrics.transfer_delta_pp
    after = gainfinder.predict(guarded.student, val, device="cpu", workers=0)
    assert guarded.metrics.accuracy_after == after.accuracy


@pytest.mark.parametrize("mode", ["train", "frozen"])
def test_batch_norm_statistics_in_between_are_re_estimated(
    zoo: dict[str, str], val: Images, guards: Images, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Of weights half way between two networks; a student that learned with its statistics frozen keeps them."""
    monkeypatch.setattr("gainfinder.runs.guard.ALPHAS", (0.5,))
    student = timm.create_model(zoo["resnet"], pretrained=True)
    with torch.no_grad():
        student.fc.weight.zero_()  # it has all to gain
        student.fc.bias.zero_()
    asked = {**SETTINGS, "val": val, "method": "kl", "limit": 96, "epochs": 2, "lr": 0.05, "student_mode": mode}
    result = gainfinder.transfer(student, zoo["resnet"], "digits#2/4", guard_data=guards, **asked)
    assert result.metrics.guard.alpha == 0.5 and result.metrics.transfer_delta_pp > 10
    kept = result.student.module
    end = weights(gainfinder.transfer(student, zoo["resnet"], "digits#2/4", **{**asked, "guard": False}))
    half = (student.conv1.weight + end["conv1.weight"]) / 2
    torch.testing.assert_close(kept.conv1.weight, half, rtol=1e-5, atol=1e-6)
    if mode == "frozen":
        assert torch.equal(kept.bn1.running_var, student.bn1.running_var)  # type: ignore[arg-type]
        return
    config = timm.data.resolve_data_config(student.pretrained_cfg)
    transform = timm.data.create_transform(**config, is_training=False)
    images = gainfinder.load_images("digits#2/4")
    images = images.select(stratified(images, count=96, salt="transfer"))
    x = torch.stack([transform(images.read(i)) for i in range(len(images))])
    order = torch.from_numpy(epoch_order(images.ids, seed=0, epoch=0))
    with torch.inference_mode():
        outputs = [kept.conv1(x[batch]) for batch in order.split(32)]
    variance = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in outputs]).mean(0)
    torch.testing.assert_close(kept.bn1.running_var, variance, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(variance, (student.bn1.running_var + end["bn1.running_var"]) / 2, rtol=1e-3)


def test_the_images_measured_on_never_reach_the_guard(zoo: dict[str, str], val: Images, guards: Images) -> None:
    others = relabelled(gainfinder.load_images("digits#4/4").select(range(30)))
    asked = {**SETTINGS, "guard_data": guards, "method": "kl", "limit": 200, "lr": 0.05}
    one, other = (
        gainfinder.transfer(zoo["convnext"], zoo["resnet"], "digits#2/4", val=images, **asked)
        for images in (val, others)
    )
    assert one.metrics.accuracy_before != other.metrics.accuracy_before
    guard, same_guard = one.metrics.guard, other.metrics.guard
    assert guard is not None and same_guard is not None
    assert guard.alpha == same_guard.alpha > 0 and guard.points == same_guard.points
    assert same(weights(one), weights(other))


def test_the_guard_images_are_neither_learned_from_nor_measured_on(zoo: dict[str, str], run_folder: Path) -> None:
    asked = {key: value for key, value in SETTINGS.items() if key != "limit"}
    data = gainfinder.load_images("digits#2/4").select(range(150))
    assert data.labels is not None
    seen: list[str] = []

    class Read:
        """Notes which images are read."""

        def read(self, index: int) -> Any:
            seen.append(data.ids[index])
            return data.reader.read(int(data.positions[index]))

        def where(self, index: int) -> str:
            return data.ids[index]

    noted = Images.build(
        reference="noted", reader=Read(), ids=data.ids, labels=data.labels.tolist(), class_names=data.class_names,
        mirrorable=False,
    )  # fmt: skip
    gainfinder.transfer(zoo["vit"], zoo["resnet"], noted, out=run_folder, method="kl", **asked)
    config = json.loads((run_folder / "config.json").read_text())
    counts = {part: config[part]["samples"] for part in ("data", "val", "guard")}
    assert counts == {"data": 150 - 15 - 14, "val": 15, "guard": 14}  # a tenth, and a tenth of what is left
    assert config["guard"]["held_out"] and config["val"]["held_out"]
    # Decoded once, whoever learns from it, is measured on it or guarded by it: student and teacher crop alike. Sixteen
    # of each are read once more, by which the run knows them again.
    times = Counter(seen.count(sample) for sample in data.ids)
    assert times == {2: 16 + 15 + 14, 1: 150 - (16 + 15 + 14)}


def test_guard_images_and_no_guard_are_refused_together(
    zoo: dict[str, str], val: Images, guards: Images, run_folder: Path
) -> None:
    asked = {**SETTINGS, "val": val, "guard_data": guards, "guard": False, "out": run_folder}
    with pytest.raises(SettingsError, match="`guard_data` is given together with `guard=False`"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", **asked)
    assert not run_folder.exists()


def test_without_a_guard_nothing_is_set_apart_for_it(zoo: dict[str, str], val: Images, run_folder: Path) -> None:
    asked = {**SETTINGS, "val": val, "guard": False, "limit": None, "out": run_folder}
    data = gainfinder.load_images("digits#2/4").select(range(70))
    metrics = gainfinder.transfer(zoo["vit"], zoo["resnet"], data, **asked).metrics
    config = json.loads((run_folder / "config.json").read_text())
    assert metrics.guard is None and config["guard"] is None and config["data"]["samples"] == 70


@pytest.mark.parametrize("method", ["kl", "kl-dp-cal-u", "kl-prod-cal-u"])
def test_labels_of_guard_images_are_not_read_where_none_may_be(
    zoo: dict[str, str], val: Images, guards: Images, method: str
) -> None:
    unlabelled = guards.without_labels()
    asked = {**SETTINGS, "val": val, "labels": "none", "method": method, "lr": 0.05}
    runs = [
        gainfinder.transfer(zoo["convnext"], zoo["resnet"], "digits#2/4", guard_data=images, **asked)
        for images in (guards, relabelled(guards), unlabelled)
    ]
    for run in runs:
        guard = run.metrics.guard
        assert guard is not None and guard == runs[0].metrics.guard and not guard.labelled
        assert run.epochs == runs[0].epochs, "temperatures, too, are fitted on guard images"
        assert same(weights(run), weights(runs[0]))
    assert any(point.gain != 0 for point in guard.points)
    labelled = {**asked, "labels": "use"}
    wrong = gainfinder.transfer(zoo["convnext"], zoo["resnet"], "digits#2/4", guard_data=relabelled(guards), **labelled)
    assert wrong.metrics.guard is not None and wrong.metrics.guard.labelled
    assert wrong.metrics.guard.points != guard.points


class AlwaysWrong(nn.Module):
    """A digit classifier that names the next digit."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.pretrained_cfg = {**inner.pretrained_cfg, "label_names": None}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(x)
        return logits.roll(1, dims=1)


def test_every_step_of_a_sequence_is_guarded(
    zoo: dict[str, str], val: Images, guards: Images, run_folder: Path
) -> None:
    asked = {**SETTINGS, "val": val, "guard_data": guards, "lr": 0.1, "method": "kl", "out": run_folder}
    teachers = [AlwaysWrong(timm.create_model(zoo[name], pretrained=True)) for name in ("vit", "convnext")]
    result = gainfinder.transfer(zoo["resnet"], teachers, "digits#2/4", student_mode="frozen", **asked)
    guards_of_steps = [step.guard for step in result.metrics.steps]
    assert [guard and guard.alpha for guard in guards_of_steps] == [0.0, 0.0]
    assert all(guard and guard.unguarded_delta_pp and guard.unguarded_delta_pp < 0 for guard in guards_of_steps)
    initial = timm.create_model(zoo["resnet"], pretrained=True).state_dict()
    assert same(weights(result), initial)
    assert same(timm.create_model(f"local-dir:{run_folder / 'student'}", pretrained=True).state_dict(), initial)
    assert result.metrics.transfer_delta_pp == 0.0


def test_a_student_is_adapted_once_in_a_sequence(
    zoo: dict[str, str], val: Images, guards: Images, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its second teacher the statistics fit already: there is nothing left to gain."""
    asked = {**SETTINGS, "val": val, "guard_data": guards, "lr": 0.5, "method": "kl", "out": run_folder}
    teachers = [AlwaysWrong(timm.create_model(zoo[name], pretrained=True)) for name in ("vit", "convnext")]
    result = gainfinder.transfer(spoiled(zoo["resnet"]), teachers, "digits#2/4", **asked)
    first, second = (step.guard for step in result.metrics.steps)
    assert first is not None and second is not None
    assert [(one.alpha, one.bn_reestimated) for one in (first, second)] == [(0.0, True), (0.0, False)]
    assert (second.points[0].bn_reestimated, second.points[0].gain) == (True, 0.0)
    assert same(
        weights(result), timm.create_model(f"local-dir:{run_folder}/steps/1/student", pretrained=True).state_dict()
    )
    assert result.metrics.transfer_delta_pp == result.metrics.steps[0].transfer_delta_pp > 50
    transfer_table(result.metrics)
    assert "re-estimated" in capsys.readouterr().out


def test_a_soup_is_guarded_as_a_whole(zoo: dict[str, str], val: Images, guards: Images, run_folder: Path) -> None:
    asked = {
        **SETTINGS,
        "val": val,
        "guard_data": guards,
        "method": "kl",
        "lr": 0.05,
        "limit": 300,
        "epochs": 2,
        "strategy": "soup",
    }
    result = gainfinder.transfer(zoo["convnext"], [zoo["resnet"], zoo["vit"]], "digits#2/4", out=run_folder, **asked)
    share = result.metrics.guard.alpha
    start = timm.create_model(zoo["convnext"], pretrained=True).state_dict()
    steps = [
        timm.create_model(f"local-dir:{run_folder / 'steps' / step / 'student'}", pretrained=True).state_dict()
        for step in "12"
    ]
    for name, tensor in weights(result).items():
        soup = (steps[0][name] + steps[1][name]) / 2
        torch.testing.assert_close(tensor, start[name] + share * (soup - start[name]), rtol=1e-5, atol=1e-6)
    assert share > 0 and result.metrics.guard.level == 0.05 / 3  # both steps and the soup
    assert [step.guard.level for step in result.metrics.steps] == [0.05 / 3] * 2


def test_a_referee_judges_in_place_of_the_posterior(
    zoo: dict[str, str], val: Images, guards: Images, run_folder: Path
) -> None:
    """And never teaches: the student learns the same without it."""
    asked = {**SETTINGS, "val": val, "guard_data": guards, "method": "kl", "limit": 200, "epochs": 2, "lr": 0.05}
    student = timm.create_model(zoo["convnext"], pretrained=True)
    with torch.no_grad():
        student.head.fc.weight.zero_()  # it has all to gain
        student.head.fc.bias.zero_()
    asked |= {"labels": "none", "out": run_folder}
    result = gainfinder.transfer(student, zoo["resnet"], "digits#2/4", referee=zoo["vit"], **asked)
    guard = result.metrics.guard
    assert guard is not None and not guard.kept_initial
    assert {point.measure for point in guard.points} == {"votes"}
    assert guard.certificate is not None and guard.certificate.startswith("By referees")
    assert result.metrics.transfer_delta_pp is None or result.metrics.transfer_delta_pp > 10
    assert result.metrics.teachers == (zoo["resnet"],)
    config = json.loads((run_folder / "config.json").read_text())
    assert [one["reference"] for one in config["referees"]] == [zoo["vit"]]
    assert (run_folder / "predictions" / "probe-referee-1.parquet").exists()
    alone = gainfinder.transfer(student, zoo["resnet"], "digits#2/4", **{**asked, "out": None})
    assert alone.epochs == result.epochs


def test_a_student_that_learns_from_a_teacher_of_another_class_order_is_not_kept(
    zoo: dict[str, str], val: Images, guards: Images, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {**SETTINGS, "val": val, "guard_data": guards, "lr": 0.1, "labels": "none", "method": "kl"}
    teacher = AlwaysWrong(timm.create_model(zoo["vit"], pretrained=True))
    guard = gainfinder.transfer(zoo["convnext"], teacher, "digits#2/4", **asked).metrics.guard
    assert guard is not None and guard.kept_initial
    assert all("takes one class for another" in str(point.veto) for point in guard.points)
    assert "is its class order right?" in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"referee": "vit"}, "is a teacher itself"),
        ({"referee": "convnext"}, "is the student itself"),
        ({"referee": ["resnet", "resnet"]}, "is a referee already"),
        ({"referee": "resnet", "labels": "use"}, "the guard judges by labels"),
        ({"referee": "resnet", "guard": False}, "together with `guard=False`"),
    ],
)
def test_a_referee_that_cannot_judge_is_refused(
    zoo: dict[str, str], val: Images, run_folder: Path, changes: dict[str, Any], said: str
) -> None:
    named = [zoo[name] for name in changes["referee"]] if isinstance(changes["referee"], list) else None
    asked = {**SETTINGS, "val": val, "labels": "none", "out": run_folder, **changes}
    asked["referee"] = named or zoo[changes["referee"]]
    with pytest.raises(SettingsError, match=said):
        gainfinder.transfer(zoo["convnext"], zoo["vit"], "digits#2/4", **asked)
    assert not run_folder.exists()


def test_learning_begins_with_statistics_that_the_guard_prefers(zoo: dict[str, str], tmp_path: Path) -> None:
    """A student whose statistics are of other images starts with new ones; at rate 0 it is that student."""
    stale = gainfinder.load_model(zoo["resnet"])
    for layer in stale.module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.add_(0.3)
            layer.running_var.mul_(2.0)
    asked = {**SHORT, "preset": None, "guard": True, "guard_data": "digits#3/4", "val": "digits#1/4", "limit": None}
    asked |= {"method": "kl-dp", "lr": 0.0, "epochs": 1, "batch_size": 64}
    done = gainfinder.transfer(stale, zoo["vit"], "digits#2/4", out=tmp_path / "a", **asked)
    assert done.metrics.start_reestimated
    found = done.metrics.guard
    assert found is not None and found.unguarded_delta_pp is not None and found.unguarded_delta_pp > 1
    off = gainfinder.transfer(stale, zoo["vit"], "digits#2/4", out=tmp_path / "b", **asked, adapt_start=False)
    assert not off.metrics.start_reestimated
    # a healthy student keeps its own
    healthy = gainfinder.transfer(zoo["resnet"], zoo["vit"], "digits#2/4", out=tmp_path / "c", **asked)
    assert not healthy.metrics.start_reestimated
