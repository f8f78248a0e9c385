"""The doctor names what holds a transfer up."""

import json
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from gainfinder.cli import app
from gainfinder.config.settings import TransferConfig
from gainfinder.models import Classifier
from gainfinder.profiling import doctor, timing
from gainfinder.profiling.doctor import diagnose
from gainfinder.runs.prepare import PreparedTransfer, prepare_transfer


def planned(student: Any, teacher: Any, **about: Any) -> PreparedTransfer:
    asked = {"device": "cpu", "workers": 0, "guard": False, "batch_size": 16, "method": "kl-dp-u", **about}
    return prepare_transfer(student, [teacher], "digits#2/4", val=None, settings=TransferConfig(**asked))


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds that each part is said to take; machines that run tests are too busy to be asked."""
    said = {"reading": 0.1, "rendering": 0.01, "learning": 0.3, "frozen student": 0.1, "teacher": 0.1, "bank": 0.001}
    reading = timing.reading
    monkeypatch.setattr(doctor, "reading", lambda prepared, workers=0: (reading(prepared)[0], said["reading"]))
    monkeypatch.setattr(doctor, "learning_s", lambda *_: said["learning"])
    monkeypatch.setattr(
        doctor,
        "_frozen_s",
        lambda prepared, model, _: said["frozen student" if model is prepared.student else "teacher"],
    )
    monkeypatch.setattr(doctor, "_rendering_s", lambda *_: said["rendering"])
    monkeypatch.setattr(doctor, "_bank_read_s", lambda *_: said["bank"])
    return said


def test_what_takes_longest_is_the_bottleneck(zoo: dict[str, str], times: dict[str, float]) -> None:
    prepared = planned(zoo["convnext"], zoo["resnet"])
    found = diagnose(prepared)
    assert found.bottleneck == "student learns"
    times["teacher"] = 0.5
    found = diagnose(prepared)
    assert found.bottleneck == f"teacher {zoo['resnet']}"
    assert any("share a `bank` take 0.34 of the time" in line for line in found.advice)
    times["rendering"] = 1.0
    assert diagnose(prepared).bottleneck == "views from memory"


def test_a_step_is_the_sum_of_what_this_process_does(zoo: dict[str, str], times: dict[str, float]) -> None:
    found = diagnose(planned(zoo["convnext"], zoo["resnet"]))
    assert found.live_s == pytest.approx(0.01 + 0.3 + 0.2)
    assert found.replayed_s == pytest.approx(0.01 + 0.3 + 0.002)
    streamed = diagnose(planned(zoo["convnext"], zoo["resnet"], augment="rrc"))  # other crops each epoch
    assert streamed.live_s == pytest.approx(0.1 + 0.3 + 0.2)
    times["reading"] = 0.7
    beside = diagnose(planned(zoo["convnext"], zoo["resnet"], augment="rrc", workers=2))
    assert beside.live_s == pytest.approx(0.7) and beside.bottleneck == "decoding and cropping"
    alone = diagnose(planned(zoo["convnext"], zoo["resnet"], method="kl"))  # no frozen student is asked
    assert alone.live_s == pytest.approx(0.01 + 0.3 + 0.1)


def test_models_that_are_asked_once_take_no_time_of_a_step(zoo: dict[str, str], times: dict[str, float]) -> None:
    times["teacher"] = 0.5
    found = diagnose(planned(zoo["convnext"], zoo["resnet"], augment="none", mixup=0.0))
    assert found.asked_once and found.bottleneck == "student learns"
    assert found.live_s == pytest.approx(0.01 + 0.3)
    assert f"teacher {zoo['resnet']} (once, then kept in memory)" in [part.name for part in found.parts]
    assert not any("bank" in line or "decid" in line for line in found.advice)
    assert not diagnose(planned(zoo["convnext"], zoo["resnet"])).asked_once


def test_decided_once_each_model_is_asked_for_its_share(zoo: dict[str, str], times: dict[str, float]) -> None:
    found = diagnose(planned(zoo["convnext"], zoo["resnet"], decide_on="image"))
    assert found.live_s == pytest.approx(0.01 + 0.3 + 0.1) and not any("decid" in line for line in found.advice)
    advice = diagnose(planned(zoo["convnext"], zoo["resnet"])).advice
    assert any("`decide_on='image'`) takes about 0.80 of the time a step, and gains less" in line for line in advice)
    assert not any("decid" in line for line in diagnose(planned(zoo["convnext"], zoo["resnet"], method="kl")).advice)


def test_models_and_images_stay_as_they_are(zoo: dict[str, str]) -> None:
    prepared = planned(zoo["resnet"], zoo["convnext"])
    (teacher,) = prepared.teachers
    assert isinstance(teacher, Classifier)
    models = [prepared.student.module, teacher.module]
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in models]
    state = torch.get_rng_state()
    diagnose(prepared)
    assert torch.equal(state, torch.get_rng_state())
    for model, kept in zip(models, before, strict=True):
        assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())


def test_the_command_shows_a_table_and_json(zoo: dict[str, str]) -> None:
    asked = ["doctor", "--student", zoo["vit"], "--teacher", zoo["resnet"], "--data", "digits#2/4", "--device", "cpu"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.stderr
    for text in ("student learns", "frozen student", "views from memory", "bottleneck: ", "a step with the bank: "):
        assert text in shown.stdout
    assert "a step with the frozen models: " in shown.stdout
    shown = CliRunner().invoke(app, [*asked, "--augment", "none", "--mixup", "0"])
    assert "a step, the frozen models asked once before: " in shown.stdout
    document = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert {"parts", "live_s", "replayed_s", "student_s", "bottleneck", "advice"} <= document.keys()
    refused = CliRunner().invoke(app, [*asked, "--method", "no-such"])
    assert refused.exit_code == 2 and "no-such" in refused.stderr
