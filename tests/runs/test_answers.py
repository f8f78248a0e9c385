"""Frozen models are asked once where all epochs show the same views, and what is learned from that is the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm

import gainfinder
from digit_files import digit_folder
from gainfinder.config import TransferConfig
from gainfinder.runs import PreparedTransfer, asked_once, prepare, prepare_transfer
from killing import KillAtEpoch, Killed
from masks import SHAPES, masked_folder, tiny_segmenter
from texts import text_file
from transfers import SHORT, Run, asked_in_each_step, assert_close, counted, same, weights

SETTINGS: Run = {**SHORT, "epochs": 3, "lr": 5e-2, "method": "kl-dp-u", "val": "digits#1/8"}
OF = 64
"""Images that are learned from."""


def transfer(zoo: dict[str, str], **about: Any) -> Any:
    models = {"student": zoo["convnext"], "teacher": zoo["resnet"]}
    return gainfinder.transfer(**{**models, "data": "digits#2/4", **SETTINGS, **about})


def of_samples(seen: list[int]) -> int:
    """How many samples a model was asked for: smaller passes try the model itself."""
    return sum(count for count in seen if count > 4)


@pytest.mark.parametrize("method", ["kl", "kl-dp", "kl-dp-u", "kl-dp-cal-u", "kl-prod-cal-u", "xe-kl"])
def test_answers_that_are_kept_teach_as_those_of_each_step(zoo: dict[str, str], method: str) -> None:
    kept = transfer(zoo, method=method, control=True)
    with asked_in_each_step():
        asked = transfer(zoo, method=method, control=True)
    assert_close(weights(kept), weights(asked))
    assert kept.metrics.teacher_share == asked.metrics.teacher_share
    assert [row.train_loss for row in kept.epochs] == pytest.approx([row.train_loss for row in asked.epochs], rel=1e-4)
    of_control = [result.metrics.control.transfer_delta_pp for result in (kept, asked)]
    assert of_control[0] == pytest.approx(of_control[1], abs=1.0)
    start = timm.create_model(zoo["convnext"], pretrained=True).state_dict()
    assert max(float((one - start[name]).abs().max()) for name, one in weights(kept).items()) > 0.03


def test_each_is_asked_for_each_image_once(zoo: dict[str, str]) -> None:
    teacher = timm.create_model(zoo["resnet"], pretrained=True)
    measured = len(gainfinder.load_images("digits#1/8"))
    with counted(teacher) as seen:
        transfer(zoo, teacher=teacher)
        assert of_samples(seen) == measured + OF
        seen.clear()
        with asked_in_each_step():
            transfer(zoo, teacher=teacher)
        assert of_samples(seen) == measured + 3 * OF


def test_trials_and_training_share_them(zoo: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gainfinder.runs.trials.SHARE", 1.0)
    teacher = timm.create_model(zoo["resnet"], pretrained=True)
    own: Run = {"guard": True, "guard_data": "digits#3/8", "preset": None, "lr": None, "batch_size": 8, "epochs": 10}
    with counted(teacher) as seen:
        done = transfer(zoo, teacher=teacher, **own)
    assert len(done.metrics.trials) > 2
    on_images = sum(len(gainfinder.load_images(name)) for name in ("digits#1/8", "digits#3/8"))
    assert of_samples(seen) == on_images + OF


@pytest.mark.parametrize("strategy", ["sequential", "parallel", "soup"])
def test_of_several_teachers_each_is_asked_once(zoo: dict[str, str], strategy: str) -> None:
    teachers = [timm.create_model(zoo[name], pretrained=True) for name in ("resnet", "vit")]
    measured = len(gainfinder.load_images("digits#1/8"))
    with counted(teachers[0]) as first, counted(teachers[1]) as second:
        transfer(zoo, teacher=teachers, strategy=strategy)
    ordered = OF if strategy == "sequential" else 0  # who comes first is found on the transfer images
    assert of_samples(first) == of_samples(second) == measured + ordered + OF


def test_a_killed_run_asks_again_and_ends_with_the_same_bits(zoo: dict[str, str], tmp_path: Path) -> None:
    whole = transfer(zoo, out=tmp_path / "whole")
    with pytest.raises(Killed):
        transfer(zoo, out=tmp_path / "broken", callbacks=[KillAtEpoch(2)])
    assert same(weights(transfer(zoo, out=tmp_path / "broken")), weights(whole))


def test_broken_images_are_left_out(zoo: dict[str, str], tmp_path: Path) -> None:
    about: Run = {"data": str(digit_folder(tmp_path / "images", 60, broken=2)), "max_broken": 0.1, "labels": "none"}
    kept = transfer(zoo, **about)
    with asked_in_each_step():
        asked = transfer(zoo, **about)
    assert len(kept.metrics.broken_images) == 2 and kept.metrics.broken_images == asked.metrics.broken_images
    assert_close(weights(kept), weights(asked))


def prepared(zoo: dict[str, str], **about: Any) -> PreparedTransfer:
    settings = {name: value for name, value in {**SETTINGS, **about}.items() if name not in ("val", "bank")}
    config = TransferConfig.model_validate({**settings, **({"bank": about["bank"]} if "bank" in about else {})})
    return prepare_transfer(zoo["convnext"], [zoo["resnet"]], "digits#2/4", val="digits#1/8", settings=config)


def test_views_that_change_and_what_a_bank_keeps_are_asked_as_before(zoo: dict[str, str], tmp_path: Path) -> None:
    usual = prepared(zoo)
    assert usual.asks_once and [model.reference for model in asked_once(usual)] == [zoo["convnext"], zoo["resnet"]]
    assert len(asked_once(prepared(zoo, method="kl"))) == 1
    for about in ({"augment": "crop-flip"}, {"mixup": 0.5}, {"epochs": 1}, {"method": "cd"}):
        assert not prepared(zoo, **about).asks_once, about
    assert not prepared(zoo, bank=tmp_path / "bank").asks_once
    live = prepared(zoo, both="live")
    assert [model.reference for model in asked_once(live)] == [zoo["convnext"]]  # its partner learns
    assert asked_once(replace(usual, settings=replace(usual.settings, epochs=1))) == ()


def test_what_they_take_is_bounded(zoo: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    usual = prepared(zoo)
    answers = 2 * OF * 10 * 4
    for most in (answers, answers - 1):
        monkeypatch.setattr(prepare, "MOST_ANSWERS_BYTES", most)
        assert usual.asks_once == (most == answers)


def test_texts_are_asked_once(text_zoo: dict[str, str], tmp_path: Path) -> None:
    config = TransferConfig.model_validate({**SHORT, "epochs": 3, "labels": "none"})
    data, val = (text_file(tmp_path / f"{name}.csv", 30, first=number) for number, name in ((0, "train"), (100, "val")))
    assert prepare_transfer(text_zoo["weak"], [text_zoo["good"]], data, val=val, settings=config).asks_once


def test_of_samples_in_places_all_places_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TransferConfig.model_validate({**SHORT, "epochs": 3, "labels": "none", "method": "kl", "augment": "none"})
    masked, segmenter = masked_folder(tmp_path / "masked", 8), f"{tiny_segmenter(tmp_path / 'segmenter')}?grid=4"
    usual = prepare_transfer(segmenter, [segmenter], masked, val=masked, settings=config.replace(mixup=0.0))
    answers = 8 * 4 * 4 * len(SHAPES) * 4
    for most in (answers, answers - 1):
        monkeypatch.setattr(prepare, "MOST_ANSWERS_BYTES", most)
        assert usual.asks_once == (most == answers)
