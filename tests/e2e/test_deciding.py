"""Who teaches an image, decided once: where views are the plain images nothing changes; one model answers a view."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import gainfinder
from gainfinder.data.images import Images
from gainfinder.errors import SettingsError
from gainfinder.models import load_model
from killing import KillAtEpoch, Killed
from transfers import GUARDED, SHORT, Run, assert_close, same, weights

SETTINGS: Run = {**SHORT, "epochs": 2, "limit": 96, "lr": 5e-2, "augment": "none"}
VIEWS: Run = {**SETTINGS, "augment": "crop-flip", "method": "kl-dp-u"}


def transfer(zoo: dict[str, str], val: Images, **about: Any) -> Any:
    models = {"student": zoo["convnext"], "teacher": zoo["resnet"]}
    return gainfinder.transfer(**{**models, "data": "digits#2/4", "val": val, **SETTINGS, **about})


@contextmanager
def counted(*modules: nn.Module) -> Iterator[list[int]]:
    """How many images the modules answered for, in training steps alone: measuring asks for other images."""
    seen = [0] * len(modules)

    def count(number: int, images: int) -> None:
        seen[number] += images

    with ExitStack() as stack:
        for number, module in enumerate(modules):
            hook = module.register_forward_hook(
                lambda _module, inputs, _output, number=number: count(number, len(inputs[0]))
            )
            stack.callback(hook.remove)
        yield seen


@pytest.mark.parametrize("method", ["kl-dp", "kl-dp-u", "dist-dp-u", "dkd-dp"])
def test_where_views_are_the_plain_images_both_ways_are_one(zoo: dict[str, str], val: Images, method: str) -> None:
    by_view, by_image = (transfer(zoo, val, method=method, decide_on=on) for on in ("view", "image"))
    assert 0 < by_image.metrics.teacher_share == by_view.metrics.teacher_share < 1
    assert_close(weights(by_image), weights(by_view))


def test_calibrated_confidences_and_several_teachers_decide_alike(zoo: dict[str, str], val: Images) -> None:
    asked = {**GUARDED, "epochs": 2, "lr": 5e-2, "augment": "none", "method": "kl-dp-cal-u", "val": val}
    for teacher in (zoo["resnet"], [zoo["resnet"], zoo["vit"]]):
        by_view, by_image = (
            transfer(zoo, **asked, teacher=teacher, strategy="parallel", decide_on=on) for on in ("view", "image")
        )
        assert by_image.metrics.teacher_share == by_view.metrics.teacher_share
        assert_close(weights(by_image), weights(by_view))


def test_one_model_answers_a_view(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    student, teacher = load_model(zoo["convnext"]), load_model(zoo["resnet"])

    def asked(**about: Any) -> tuple[list[int], Any]:
        with counted(teacher.module) as seen:
            found = gainfinder.transfer(student, teacher, "digits#2/4", val=val, **VIEWS, **about)
        return seen, found

    measured, n = len(val), VIEWS["limit"]
    ((by_view,), _), ((by_image,), done) = asked(), asked(decide_on="image", out=tmp_path / "run")
    partition = pq.read_table(tmp_path / "run" / "partition.parquet")
    taught = sum(partition.column("taught_by").to_pylist())
    assert partition.num_rows == n and 0 < taught < n
    assert by_view == measured + 2 * n
    assert by_image == measured + n + 2 * taught, "each image once as it is, then in each epoch the teacher's own alone"
    assert done.metrics.teacher_share == taught / n


def test_a_killed_run_ends_with_the_same_bits(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    about = {**VIEWS, "decide_on": "image"}
    whole = transfer(zoo, val, **about, out=tmp_path / "whole")
    with pytest.raises(Killed):
        transfer(zoo, val, **about, out=tmp_path / "run", callbacks=[KillAtEpoch(2)])
    decided = (tmp_path / "run" / "partition.parquet").read_bytes()
    again = transfer(zoo, val, **about, out=tmp_path / "run")
    assert again.metrics.resumed_epochs == 1 and same(weights(again), weights(whole))
    assert (tmp_path / "run" / "partition.parquet").read_bytes() == decided


def test_what_is_replayed_or_looked_up_teaches_the_same(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    about = {**VIEWS, "decide_on": "image"}
    asked = transfer(zoo, val, **about)
    replayed = transfer(zoo, val, **about, bank=tmp_path / "bank", bank_check=20)
    assert replayed.metrics.teacher_share == asked.metrics.teacher_share
    assert replayed.epochs[-1].train_loss == pytest.approx(asked.epochs[-1].train_loss, rel=1e-3)
    gainfinder.predict(zoo["resnet"], "digits#2/4", device="cpu").write(tmp_path / "table.parquet")
    table = transfer(
        zoo, val, **SETTINGS, method="kl-dp-u", decide_on="image", teacher=f"table:{tmp_path}/table.parquet"
    )
    live = transfer(zoo, val, **SETTINGS, method="kl-dp-u", decide_on="image")
    assert_close(weights(table), weights(live))


def test_its_own_copy_is_asked_once(zoo: dict[str, str], val: Images) -> None:
    done = transfer(zoo, val, teacher=zoo["convnext"], **{**VIEWS, "decide_on": "image"})
    assert done.metrics.teacher_share == 0, "ties go to the initial student"


def test_controls_and_teachers_one_after_the_other_go_with_it(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    about = {**VIEWS, "method": "kl-dp", "decide_on": "image"}
    done = transfer(zoo, val, **about, control=("copy", "labels"), out=tmp_path / "one")
    assert done.metrics.control is not None and done.metrics.control_labels is not None
    assert not (tmp_path / "one" / "control-labels" / "partition.parquet").exists(), "no model is asked there"
    transfer(zoo, val, **about, teacher=[zoo["resnet"], zoo["vit"]], out=tmp_path / "two")
    decided = sorted(path.parent.name for path in (tmp_path / "two").rglob("partition.parquet"))
    assert len(decided) == 2


@pytest.mark.parametrize("method", ["kl", "kl-dp-soft-u", "kl-prod-u", "xe-kl"])
def test_methods_that_ask_all_models_refuse_it(zoo: dict[str, str], val: Images, method: str) -> None:
    with pytest.raises(SettingsError, match="decide-on is a setting of methods that give each image to one model"):
        transfer(zoo, val, method=method, decide_on="image")


def test_broken_images_are_nobodys(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    from PIL import Image

    for number in range(24):
        Image.effect_noise((28, 28), 80).convert("RGB").save(tmp_path / f"{number:02}.png")
    (tmp_path / "05.png").write_bytes(b"broken")
    done = transfer(
        zoo, val, **{**VIEWS, "decide_on": "image", "data": str(tmp_path), "limit": None, "labels": "none",
                     "max_broken": 0.1, "batch_size": 8}
    )  # fmt: skip
    assert len(done.metrics.broken_images) == 1 and torch.isfinite(torch.tensor(done.epochs[-1].train_loss))
