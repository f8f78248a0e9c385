"""Two results of one transfer compared, whatever their folders have kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gainfinder.errors import RunFolderError
from gainfinder.predictions import Predictions
from gainfinder.results import Repetition, RunFolder, check_comparable, compare_results
from result_folders import ANSWERED, GUARD, put

LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
WEIGHTS = {"weight": torch.arange(4.0), "count": torch.tensor(3)}


def fill(folder: Path, weights: dict[str, Tensor] | None, logits: Tensor | None, **changes: Any) -> Path:
    """A finished result with a student and its predictions."""
    put(folder, **changes)
    put_student(folder, weights, logits, answers=folder / "predictions")
    return folder


def put_student(folder: Path, weights: dict[str, Tensor] | None, logits: Tensor | None, *, answers: Path) -> None:
    if weights is not None:
        (folder / "student").mkdir(parents=True)
        save_file(weights, folder / "student" / "model.safetensors")
    if logits is not None:
        answers.mkdir(parents=True, exist_ok=True)
        ids = tuple(f"{number}" for number in range(len(logits)))
        Predictions(model="net", ids=ids, logits=logits, target=None).write(answers / "after.parquet")


def compared(first: Path, second: Path) -> Repetition:
    return compare_results(RunFolder(first), RunFolder(second))


def test_the_same_is_repeated(tmp_path: Path) -> None:
    found = compared(fill(tmp_path / "a", WEIGHTS, LOGITS), fill(tmp_path / "b", WEIGHTS, LOGITS))
    assert found.repeated and found.to_dict()["repeated"] is True
    assert (found.weights_differ, found.images, found.answers_differ) == (0, 3, 0)
    assert found.settings == () and found.environment == ()


def test_one_bit_of_one_weight_or_answer_is_not_the_same(tmp_path: Path) -> None:
    first = fill(tmp_path / "a", WEIGHTS, LOGITS)
    nudged = torch.nextafter(WEIGHTS["weight"], torch.tensor(9.0))
    found = compared(first, fill(tmp_path / "b", {**WEIGHTS, "weight": nudged}, LOGITS))
    assert not found.repeated and found.weights_differ == 1 and 0 < (found.largest_weight_difference or 0) < 1e-6
    found = compared(first, fill(tmp_path / "c", WEIGHTS, torch.nextafter(LOGITS, torch.tensor(9.0))))
    assert not found.repeated and found.answers_differ == 0 and 0 < (found.largest_logit_difference or 0) < 1e-6
    swapped = compared(first, fill(tmp_path / "d", WEIGHTS, LOGITS.flip(1)))
    assert swapped.answers_differ == 3 and swapped.largest_logit_difference == 3


def test_other_tensors_count_as_different(tmp_path: Path) -> None:
    first = fill(tmp_path / "a", WEIGHTS, LOGITS)
    other = {"weight": torch.arange(5.0), "more": torch.zeros(1)}  # another shape, one more, one less
    found = compared(first, fill(tmp_path / "b", other, LOGITS))
    assert found.weights_differ == 3 and found.largest_weight_difference is None and not found.repeated


def test_what_a_folder_does_not_keep_is_not_compared(tmp_path: Path) -> None:
    first = fill(tmp_path / "a", None, LOGITS)
    found = compared(first, fill(tmp_path / "b", WEIGHTS, LOGITS))
    assert found.weights_differ is None and found.repeated
    found = compared(fill(tmp_path / "c", None, None), fill(tmp_path / "d", None, None))
    assert not found.repeated, "nothing was there to compare"


def test_another_delta_is_told_though_all_else_is_the_same(tmp_path: Path) -> None:
    second = fill(tmp_path / "b", WEIGHTS, LOGITS, transfer_delta_pp=24.0)
    found = compared(fill(tmp_path / "a", WEIGHTS, LOGITS), second)
    assert found.transfer_delta_pp == (25.0, 24.0) and found.transfer_delta_ci_pp == (0.0, 75.0) and not found.repeated


def test_a_student_that_labels_chose_is_compared_with_the_candidate(tmp_path: Path) -> None:
    """`ask` put it into `student/` after the transfer; run again, it is in `candidate/`."""
    first = fill(tmp_path / "a", WEIGHTS, LOGITS, guard={**GUARD, "alpha": 1.0}, certificate=ANSWERED)
    old = {**WEIGHTS, "weight": torch.zeros(4)}
    second = fill(tmp_path / "b", old, LOGITS.flip(1), guard=GUARD)
    assert compared(first, second).weights_differ == 1
    put_student(second / "candidate", WEIGHTS, LOGITS, answers=second / "candidate")
    found = compared(first, second)
    assert found.weights_differ == 0 and found.answers_differ == 0 and found.repeated


MODELS = {
    "student": {"reference": "small", "digest": "1"},
    "teachers": [{"reference": "big", "digest": "2"}],
    "settings": {"device": "cpu"},
}


def told(folder: Path, **predictions: Tensor) -> Path:
    """A finished result whose models are known by their digests, with the answers of some of them."""
    fill(folder, WEIGHTS, LOGITS)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **MODELS}))
    for name, logits in predictions.items():
        ids = tuple(f"{number}" for number in range(len(logits)))
        one = Predictions(model="net", ids=ids, logits=logits, target=None)
        one.write(folder / "predictions" / f"{name.replace('_', '-')}.parquet")
    return folder


def test_images_that_models_of_the_same_weights_answer_otherwise_are_others(tmp_path: Path) -> None:
    first = told(tmp_path / "a", before=LOGITS, teacher_1=LOGITS)
    edited = torch.cat([LOGITS[:1], LOGITS[1:2] + torch.tensor([[1e-6, 0.0]]), LOGITS[2:]])
    found = compared(first, told(tmp_path / "b", before=edited, teacher_1=LOGITS)).other_images
    assert found is not None and (found.images, found.compared, found.ids) == (1, 3, ("1",))
    assert found.models == ("the initial student",)
    both = compared(first, told(tmp_path / "c", before=edited, teacher_1=LOGITS.flip(1))).other_images
    assert both is not None and (both.images, both.ids) == (3, ("1", "0", "2"))
    assert both.models == ("the initial student", "the teacher big")
    guarded = told(tmp_path / "d", before=LOGITS, probe_before=LOGITS)
    other_guard = compared(guarded, told(tmp_path / "e", before=LOGITS, probe_before=edited))
    assert other_guard.other_images is not None and other_guard.other_images.compared == 6 and not other_guard.repeated


def test_answers_of_other_weights_and_rounding_tell_nothing_of_images(tmp_path: Path) -> None:
    first = told(tmp_path / "a", before=LOGITS, teacher_1=LOGITS)
    second = told(tmp_path / "b", before=LOGITS + 1e-3 * torch.randn(3, 2), teacher_1=LOGITS.flip(1))
    config = json.loads((second / "config.json").read_text())
    config["teachers"][0]["digest"] = "3"
    (second / "config.json").write_text(json.dumps(config))
    found = compared(first, second)
    assert found.other_images is None
    assert found.settings == ("the weights of the teacher big are others (digest 2 then, 3 now)",)


def test_an_image_that_only_one_could_read_is_another(tmp_path: Path) -> None:
    first, second = told(tmp_path / "a", before=LOGITS), told(tmp_path / "b", before=LOGITS[:2])
    found = compared(first, second)
    assert found.other_images is not None and found.other_images.ids == ("2",) and not found.repeated


def test_the_new_student_tells_too_where_its_weights_are_the_same(tmp_path: Path) -> None:
    first = fill(tmp_path / "a", WEIGHTS, LOGITS)
    found = compared(first, fill(tmp_path / "b", WEIGHTS, LOGITS.flip(1))).other_images
    assert found is not None and found.images == 3 and found.models == ("the new student",)
    trained = {**WEIGHTS, "weight": torch.ones(4)}
    assert compared(first, fill(tmp_path / "c", trained, LOGITS.flip(1))).other_images is None


@pytest.mark.parametrize("name", ["student/model.safetensors", "predictions/after.parquet"])
def test_what_cannot_be_read_is_refused_before_anything_is_run(tmp_path: Path, name: str) -> None:
    folder = fill(tmp_path / "a", WEIGHTS, LOGITS)
    check_comparable(RunFolder(folder))
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) - 4])
    with pytest.raises(RunFolderError, match=name.rpartition("/")[2].replace(".", r"\.")):
        check_comparable(RunFolder(folder))
    check_comparable(RunFolder(fill(tmp_path / "b", None, None)))


def test_damage_is_one_line(tmp_path: Path) -> None:
    first, second = fill(tmp_path / "a", WEIGHTS, LOGITS), fill(tmp_path / "b", WEIGHTS, LOGITS)
    (second / "student" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(RunFolderError, match=r"model\.safetensors: not as gainfinder wrote it"):
        compared(first, second)
    (second / "result.json").unlink()
    with pytest.raises(RunFolderError, match="holds no finished transfer"):
        compared(first, second)
    (first / "config.json").write_text(json.dumps({"student": 3}))
    (second / "result.json").write_text("{}")
    with pytest.raises(RunFolderError):
        compared(first, second)
