"""The measures of a finished cell, compared with naive loops over its predictions."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gainfinder.config import find_method
from gainfinder.errors import RunFolderError
from gainfinder.predictions import Predictions
from gainfinder.results import RunFolder, TransferMetrics
from gainfinder.study import measure_cell, read_measures
from gainfinder.study.measures import TOP_SHARES, count_parameters

SAMPLES, CLASSES = 200, 6


def made(name: str, seed: int, *, labelled: bool = True) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(SAMPLES) % CLASSES
    logits = torch.randn(SAMPLES, CLASSES, generator=generator)
    logits[torch.arange(SAMPLES), target] += 1.0
    ids = tuple(f"{i:03}" for i in range(SAMPLES))
    return Predictions(model=name, ids=ids, logits=logits, target=target if labelled else None)


def folder_with(path: Path, *, teachers: int = 1, labelled: bool = True) -> tuple[RunFolder, TransferMetrics]:
    folder = RunFolder(path)
    folder.predictions.mkdir(parents=True)
    names = ["before", "after", *(f"teacher-{number}" for number in range(1, teachers + 1))]
    for seed, name in enumerate(names):
        made(name, seed, labelled=labelled).write(folder.predictions / f"{name}.parquet")
    metrics = TransferMetrics(
        student="s",
        teachers=tuple(names[2:]),
        method="kl-dp",
        samples=SAMPLES,
        agreement=1.0,
        agreement_with_teachers=((1.0, 1.0),) * teachers,
        dropped_mass=(0.0,) * teachers,
        confidence_before=1.0,
        confidence_after=1.0,
    )
    return folder, metrics


def test_flips_against_each_teacher_before_and_after(tmp_path: Path) -> None:
    found = measure_cell(*folder_with(tmp_path / "run", teachers=2))
    before, after = (made(name, seed).predicted.tolist() for seed, name in enumerate(("before", "after")))
    for number, one in enumerate(found["teachers"]):
        teacher = made("teacher", 2 + number).predicted.tolist()
        labels = [i % CLASSES for i in range(SAMPLES)]
        rows = list(zip(before, after, teacher, labels, strict=True))
        assert one.accuracy == pytest.approx(sum(t == y for _, _, t, y in rows) / SAMPLES)
        assert one.positive_flips_before == sum(t == y != b for b, _, t, y in rows) / SAMPLES
        assert one.negative_flips_before == sum(b == y != t for b, _, t, y in rows) / SAMPLES
        assert one.positive_flips_after == sum(t == y != a for _, a, t, y in rows) / SAMPLES
        assert one.negative_flips_after == sum(a == y != t for _, a, t, y in rows) / SAMPLES
    assert found["partitions"] == ()  # of which teacher, with two?


def test_transfer_in_the_top_classes_counts_flips_before_the_transfer(tmp_path: Path) -> None:
    found = measure_cell(*folder_with(tmp_path / "run"))
    before, after, teacher = (made("", seed).predicted.tolist() for seed in range(3))
    labels = [i % CLASSES for i in range(SAMPLES)]
    flips = dict.fromkeys(range(CLASSES), 0)
    for b, t, y in zip(before, teacher, labels, strict=True):
        flips[y] += t == y != b
    ordered = sorted(flips, key=lambda c: (-flips[c], c))
    for share, one in zip(TOP_SHARES, found["class_transfer"], strict=True):
        count = next(
            k for k in range(1, CLASSES + 1) if sum(flips[c] for c in ordered[:k]) >= share * sum(flips.values())
        )
        rows = [r for r in zip(before, after, teacher, labels, strict=True) if r[3] in ordered[:count]]
        positive = sum(t == y != b for b, _, t, y in rows)
        assert one.classes == count
        assert one.transfer_rate == sum(t == y != b and a == y for b, a, t, y in rows) / positive
        assert one.class_gain_ratio == sum(b != y == a for b, a, t, y in rows) / positive


def test_the_partition_is_that_of_the_initial_student(tmp_path: Path) -> None:
    found = measure_cell(*folder_with(tmp_path / "run"))
    before, teacher = made("", 0), made("", 2)
    for one in found["partitions"]:
        sent = {"positive": [0, 0], "negative": [0, 0]}
        for i in range(SAMPLES):
            y = i % CLASSES
            of_student, of_teacher = before.logits[i].softmax(0), teacher.logits[i].softmax(0)
            to_teacher = of_teacher[y] > of_student[y] if one.supervised else of_teacher.max() > of_student.max()
            right = int(of_teacher.argmax()) == y, int(of_student.argmax()) == y
            if right in {(True, False), (False, True)}:
                kind = "positive" if right[0] else "negative"
                sent[kind][0] += int(to_teacher)
                sent[kind][1] += 1
        assert one.positive == pytest.approx(sent["positive"][0] / sent["positive"][1])
        assert one.negative == pytest.approx(sent["negative"][0] / sent["negative"][1])
    assert [one.supervised for one in found["partitions"]] == [True, False]
    assert find_method("kl-dp").needs_teachers


def test_without_labels_there_are_no_measures_that_need_them(tmp_path: Path) -> None:
    found = measure_cell(*folder_with(tmp_path / "run", labelled=False))
    assert found["class_transfer"] == () == found["partitions"]
    assert found["teachers"][0].accuracy is None


def test_parameters_are_counted_without_statistics(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(8, 2))
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    assert count_parameters(tmp_path / "model.safetensors") == sum(p.numel() for p in module.parameters())
    assert count_parameters(tmp_path / "none.safetensors") is None


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cell.json").write_text("{")
    with pytest.raises(RunFolderError, match="the cell runs again"):
        read_measures(tmp_path / "cell.json")
