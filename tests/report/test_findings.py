"""Sentences of the report: each from predictions made by hand, so that what it says can be counted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gainfinder.metrics.transfer import measure_transfer
from gainfinder.predictions import Predictions
from gainfinder.report.findings import findings, next_steps
from gainfinder.report.records import TransferRecord
from gainfinder.results import RunConfig, TransferMetrics, validated


def predictions_that_are(right: str) -> Predictions:
    """A model that is right (`+`) or wrong (`-`) on each image."""
    target = torch.arange(len(right)) % 3
    wrong = torch.tensor([sign == "-" for sign in right])
    logits = torch.nn.functional.one_hot((target + wrong) % 3, 3).float()
    ids = tuple(str(i) for i in range(len(right)))
    return Predictions(model="m", ids=ids, logits=logits, target=target, class_names=("cat", "dog", "fox"))


def record(
    before: str, after: str, teacher: str, *, method: str = "kl-dp-u", labelled: bool = True, **told: Any
) -> TransferRecord:
    models = [predictions_that_are(right) for right in (before, after, teacher)]
    if not labelled:
        models = [replace(model, target=None) for model in models]
    one, two, three = models
    measured = measure_transfer(one, two, [three]).model_dump()
    result = {"student": "small", "teachers": ["big"], "method": method, **measured, **told}
    images = {"reference": "images", "samples": 100}
    config = {
        "student": {"reference": "small", "digest": "s"},
        "teachers": [{"reference": "big", "digest": "t"}],
        "data": images,
        "val": images,
        "settings": {"labels": "use"},
    }
    return TransferRecord(
        folder=Path("run"),
        metrics=validated(TransferMetrics, result, Path("result.json")),
        config=validated(RunConfig, config, Path("config.json")),
        epochs=(),
        before=one,
        after=two,
        teachers=(three,),
        thumbnails=(),
    )


def guarded(alpha: float, *, bn_reestimated: bool = False, labelled: bool = True, **told: Any) -> dict[str, Any]:
    """A guard's decision, as `result.json` holds it."""
    known = {"images": 300, "labelled": labelled, "held_out": True, "points": []}
    return {"alpha": alpha, "bn_reestimated": bn_reestimated, **known, **told}


def point(alpha: float, gain: float, *, bn_reestimated: bool = False) -> dict[str, Any]:
    known = {"measure": "accuracy", "error": 0.5, "sure_gain": gain - 1, "veto": None}
    return {"alpha": alpha, "bn_reestimated": bn_reestimated, "gain": gain, **known}


def told(found: TransferRecord) -> dict[str, str]:
    return {one.question: f"{one.answer} {one.text}" for one in findings(found)}


NOISE, KNOWLEDGE = "Is the change larger than its noise?", "Is it knowledge, or mere adaptation to the images?"
SIGNS = ("-" * 60 + "+" * 40, "+" * 30 + "-" * 30 + "+" * 40, "+" * 30 + "-" * 70)
BETTER = record(*SIGNS)


def test_a_sure_gain_where_the_teacher_was_right() -> None:
    answers = told(BETTER)
    assert answers[NOISE].startswith("Yes, the student is better. Accuracy went from 40.00% to 70.00%: +30.00 points")
    assert "30 images that were wrong are right now" in answers["What was learned?"]
    assert (
        "The teacher big had 30 images right that the student had wrong; of these, 30 are right now (100%)"
        in (answers["What was learned?"])
    )
    assert "the most in cat (10); dog (10); fox (10)" in answers["What was learned?"]
    assert answers["What was lost?"] == "Nothing. No image that was right is wrong now."
    assert answers[KNOWLEDGE].startswith(
        "It speaks for the teacher's knowledge. The student gained 100% of the 30 images that a teacher could show it, "
        "and 0% of the 30 that it had wrong as all teachers had. Of the former that is 30; 15.0 ± 2.0 would be expected"
    )
    assert any("another teacher" in step for step in next_steps(BETTER))
    assert any("--control" in step for step in next_steps(BETTER)), "the control is named"


def test_gains_of_both_kinds_may_be_adaptation() -> None:
    # Gained as much where the teacher is wrong as where it is right.
    found = record("-" * 60 + "+" * 40, ("+" * 15 + "-" * 15) * 2 + "+" * 40, "+" * 30 + "-" * 30 + "+" * 40)
    assert told(found)[KNOWLEDGE].startswith("It may be mere adaptation. The student gained 50% of the 30")


def test_a_sure_loss_by_plain_distillation() -> None:
    found = record("+" * 80 + "-" * 20, "-" * 30 + "+" * 50 + "-" * 20, "-" * 80 + "+" * 20, method="kl")
    answers = told(found)
    assert answers[NOISE].startswith("Yes, the student is worse.")
    assert answers["What was learned?"].startswith("Nothing.")
    assert "30 images that were right are wrong now" in answers["What was lost?"]
    steps = next_steps(found)
    assert steps[0].startswith("kl learns from the teacher everywhere") and "--method kl-dp" in steps[0]
    assert any("Keep the old student" in step for step in steps)


def test_chance_is_called_chance_and_more_images_are_asked_for() -> None:
    found = record("+-" * 50, "-+" + "+-" * 48 + "++", "+" * 100)
    assert told(found)[NOISE].startswith("No: it may be chance.")
    assert any(step == "Measure on more images (--val): 100 cannot show a small gain." for step in next_steps(found))


@pytest.mark.parametrize("labelled", [True, False])
def test_that_training_diverged_is_told_first(labelled: bool) -> None:
    diverged = {"epoch": 3, "step": 7, "reason": "the loss is not finite", "kept_epoch": 2}
    first = findings(record("+-" * 20, "+-" * 20, "-+" * 20, labelled=labelled, diverged=diverged))[0]
    assert (first.answer, first.tone) == ("No, it diverged", "bad")
    assert first.text.startswith(
        "The loss is not finite since step 7 of epoch 3. This result is about what was learned"
    )
    assert "in 2 epoch(s)" in first.text


def test_a_student_that_the_guard_kept() -> None:
    found = record("+-" * 50, "+-" * 50, "+" * 100, guard=guarded(0.0))
    answers = told(found)
    assert answers[NOISE].startswith("No answer changed.") and "The guard kept the student" in answers[NOISE]
    assert KNOWLEDGE not in answers
    assert any("300 images to judge by" in step for step in next_steps(found))


def test_adaptation_that_the_guard_measured() -> None:
    points = [point(0.0, 2.1, bn_reestimated=True), point(1.0, 3.4)]
    found = record(*SIGNS, guard=guarded(1.0, points=points))
    assert (
        "by +2.10 points without any learning; the student that is kept changes it by +3.40" in told(found)[KNOWLEDGE]
    )
    adapted = record(*SIGNS, guard=guarded(0.0, bn_reestimated=True, points=points))
    assert told(adapted)[KNOWLEDGE].startswith("Mere adaptation.")


def test_the_control_proves_nothing_but_adaptation() -> None:
    found = replace(BETTER, config=BETTER.config.model_copy(update={"teachers": (BETTER.config.student,)}))
    assert told(found)[KNOWLEDGE].startswith("Adaptation: this is the control.")
    assert not any("run the control" in step for step in next_steps(found))


def test_a_teacher_that_knows_nothing_new() -> None:
    found = record("+" * 90 + "-" * 10, "+" * 90 + "-" * 10, "+" * 90 + "-" * 10)
    assert "there was nothing to learn" in told(found)["What was learned?"]
    assert next_steps(found)[0].startswith(
        "Find a teacher that knows more that this student does not: here it is 0.00%"
    )


@pytest.mark.parametrize(
    ("alpha", "bn_reestimated", "answer"),
    [(0.0, False, "The guard was not sure."), (0.5, False, "The guard thinks so."), (0.0, True, "adaptation")],
)
def test_without_labels_only_movement_is_told(alpha: float, bn_reestimated: bool, answer: str) -> None:
    guard = guarded(alpha, bn_reestimated=bn_reestimated, labelled=False)
    found = record("-" * 50 + "+" * 50, "+" * 100, "+" * 100, labelled=False, guard=guard)
    answers = told(found)
    assert "50.0% of 100 images" in answers["What changed?"]
    assert "agreement with big went from 50.0% to 100.0%" in answers["What changed?"]
    assert answer in answers["Is it better?"]
    assert "--val" in next_steps(found)[0] and len(next_steps(found)) == 1


@pytest.mark.parametrize(
    ("beyond", "answer"),
    [
        ((2.0, [0.5, 3.5]), "Knowledge: +2.00 points more than adaptation gives."),
        ((0.5, [-1.0, 2.0]), "It cannot be told from adaptation."),
        ((-2.0, [-3.5, -0.5]), "Less than adaptation alone gives."),
    ],
)
def test_a_control_settles_what_is_adaptation(beyond: tuple[float, list[float]], answer: str) -> None:
    control = {
        "transfer_delta_pp": 1.0, "transfer_delta_ci_pp": [-0.5, 2.5], "beyond_pp": beyond[0],
        "beyond_ci_pp": beyond[1], "knowledge_gain": 0.04, "knowledge_loss": 0.03, "agreement": 0.93,
    }  # fmt: skip
    found = record(*SIGNS, control=control)
    assert told(found)[KNOWLEDGE].startswith(answer)
    assert "changed by +1.00 points (95 % interval -0.50 to +2.50): that much is adaptation" in told(found)[KNOWLEDGE]
    assert not any("run the control" in step for step in next_steps(found))
