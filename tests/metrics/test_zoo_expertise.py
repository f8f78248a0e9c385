"""Areas of expertise in a scan: of all pairs, and of a weak, an equal and a strong teacher class by class."""

import math
from dataclasses import replace

import pytest
import torch

from gainfinder.metrics import (
    PERCENTS,
    ClassTexts,
    PredictedClasses,
    Scan,
    compare_zoo,
    mean_similarity,
    scan_predictions,
)
from gainfinder.metrics.flips import compare, flip_counts, positive_flips, top_flip_classes
from gainfinder.metrics.zoo_expertise import shown_pairs
from gainfinder.predictions import Predictions

N, C = 400, 12
SEED = torch.Generator().manual_seed(1)
TARGET = torch.randint(0, C - 1, (N,), generator=SEED)  # the last class has no image
EMBEDDINGS = torch.randn(C, 6, generator=SEED) + 0.8
TEXTS = ClassTexts(names=tuple(f"class {c}" for c in range(C)), embeddings_CD=EMBEDDINGS, source="made up")


def zoo(*, labelled: bool = True) -> list[PredictedClasses]:
    found = []
    for number in range(5):
        logits = torch.randn(N, C, generator=torch.Generator().manual_seed(number))
        logits[torch.arange(N), TARGET] += number / 2
        target = TARGET if labelled else None
        ids = tuple(map(str, range(N)))
        found.append(PredictedClasses.of(Predictions(model=f"m{number}", ids=ids, logits=logits, target=target)))
    return found


def scanned(texts: ClassTexts | None = TEXTS, student: str | None = None) -> Scan:
    return scan_predictions(zoo(), num_classes=C, texts=texts, student=student)


def test_every_pair_has_its_areas() -> None:
    found, models = scanned(), {model.model: model.predicted for model in zoo()}
    common = mean_similarity(EMBEDDINGS[:-1])
    assert found.expertise.similarity_of_all == pytest.approx(common) and found.expertise.embeddings == "made up"
    for pair in found.pairs:
        flips = positive_flips(models[pair.student], models[pair.teacher], TARGET)
        counts = flip_counts(flips, TARGET, C)
        tops = [top_flip_classes(counts, percent / 100) for percent in PERCENTS]
        assert pair.area_sizes == tuple(map(len, tops))
        for top, similarity in zip(tops, pair.area_similarity or (), strict=True):
            own = mean_similarity(EMBEDDINGS[top])
            assert similarity == (None if own is None else pytest.approx((own - common) / common, abs=1e-9))
    for place, area in enumerate(found.expertise.areas):
        known = [(pair.area_similarity or ())[place] for pair in found.pairs]
        similar = [one for one in known if one is not None]
        sizes = [(pair.area_sizes or ())[place] for pair in found.pairs]
        assert (area.pairs, area.mean_size) == (20, pytest.approx(sum(sizes) / 20))
        assert area.similar_pairs == len(similar) == sum(size > 1 for size in sizes)
        assert area.mean_similarity == (pytest.approx(sum(similar) / len(similar)) if similar else None)


def test_three_pairs_are_shown_class_by_class() -> None:
    found, models = scanned().expertise, {model.model: model.predicted for model in zoo()}
    assert [pair.kind for pair in found.pairs] == ["weak", "equal", "strong"]
    weak, equal, strong = found.pairs
    assert weak.delta_acc_pp < 0 < strong.delta_acc_pp and abs(equal.delta_acc_pp) < strong.delta_acc_pp
    for pair in found.pairs:
        student, teacher = models[pair.student], models[pair.teacher]
        counts = flip_counts(positive_flips(student, teacher, TARGET), TARGET, C).tolist()
        own = compare(student, teacher, TARGET, C)
        assert (pair.delta_acc_pp, pair.positive_flips) == (own.delta_acc_pp, own.positive_flips)
        order = sorted(range(C - 1), key=lambda c: (-counts[c], c))
        assert [one.index for one in pair.classes] == order, "all classes with images, ties by index"
        assert [(one.name, one.flips) for one in pair.classes] == [(f"class {c}", counts[c]) for c in order]
        assert [one.samples for one in pair.classes] == torch.bincount(TARGET, minlength=C)[order].tolist()
        assert [area.flips for area in pair.areas] == [
            sum(one.flips for one in pair.classes[: area.size]) for area in pair.areas
        ]


def test_a_students_own_pairs_and_those_chosen_for_it() -> None:
    found = scanned(student="m2")
    assert {pair.student for pair in found.expertise.pairs} == {"m2"}
    shown = {pair.teacher: pair.kind for pair in found.expertise.pairs}
    assert {one.teacher for one in found.teachers} <= set(shown) and shown["m4"] == "strong"
    kinds = [pair.kind for pair in found.expertise.pairs]
    assert kinds == sorted(kinds, key=["weak", "equal", "strong", "chosen"].index)


def test_which_pairs_are_shown() -> None:
    right = torch.zeros(100, dtype=torch.int64)
    accuracies = (10, 20, 22, 50, 99)
    predicted = torch.stack([torch.cat([right[:a], right[a:] + 1]) for a in accuracies])
    zoo_flips = compare_zoo(predicted, right, 2)  # each knows all that a weaker one knows
    assert shown_pairs(zoo_flips, [0, 1, 2, 3, 4]) == [(1, 2, "equal"), (0, 4, "strong")], "the weaker know nothing new"
    mixed = torch.stack([right, right.clone().index_fill_(0, torch.tensor([0]), 1)])
    assert shown_pairs(compare_zoo(mixed, right, 2), [0, 1]) == [(1, 0, "strong")]
    assert shown_pairs(compare_zoo(right[None].repeat(3, 1), right, 2), [0, 1, 2]) == []


def test_without_embeddings_there_are_sets_alone_and_without_flips_none() -> None:
    found = scanned(texts=None)
    assert found.expertise.similarity_of_all is None and found.expertise.pairs[0].classes[0].name.isdigit()
    assert all(pair.area_similarity is None and pair.area_sizes is not None for pair in found.pairs)
    first = zoo()[0]
    twins = scan_predictions([first, replace(first, model="twin")], num_classes=C, texts=TEXTS)
    assert [pair.area_sizes for pair in twins.pairs] == [None, None] and twins.expertise.pairs == ()
    assert [(area.pairs, area.mean_similarity) for area in twins.expertise.areas] == [(0, None)] * 5


def test_embeddings_that_are_not_alike_at_all_give_no_similarity() -> None:
    centred = replace(TEXTS, embeddings_CD=EMBEDDINGS - EMBEDDINGS[:-1].mean(dim=0))
    found = scanned(texts=centred)
    assert found.expertise.similarity_of_all < 0
    assert all(pair.area_similarity is None for pair in found.pairs)


def test_without_labels_what_needs_them_is_none() -> None:
    found, labelled = scan_predictions(zoo(labelled=False), num_classes=C, student="m1"), scanned(student="m1")
    assert not found.labelled and found.expertise is None and found.tracking == ()
    for model, known in zip(found.models, labelled.models, strict=True):
        assert (model.accuracy, model.oracle_accuracy, model.headroom_pp) == (None, None, None)
        assert model.estimated_accuracy == known.estimated_accuracy and model.strength == known.strength
    for pair, same in zip(found.pairs, labelled.pairs, strict=True):
        assert (pair.positive_flips, pair.delta_acc_pp, pair.area_sizes) == (None, None, None)
        assert pair.estimated_positive_flips == same.estimated_positive_flips and pair.kappa == same.kappa
    first = found.teachers[0]
    assert first.teacher == "m4" and (first.headroom_pp, first.routed_accuracy) == (None, None)
    assert first.estimated_headroom_pp == pytest.approx(first.estimated_added_pp) and first.estimated_added_pp > 0
    assert all(one.estimated_headroom_pp is None for one in labelled.teachers)
    document = found.to_dict()
    assert document["labelled"] is False and not any(
        isinstance(value, float) and math.isnan(value) for row in document["pairs"] for value in row.values()
    )


def test_the_equal_teacher_lies_between_the_weak_and_the_strong_one() -> None:
    # A student that two of its twelve teachers surpass: the better of them is an odd one out, and no equal.
    rights = [60, *range(20, 40, 2), 64, 70]
    target_N = torch.zeros(100, dtype=torch.int64)
    predicted_MN = torch.ones(len(rights), 100, dtype=torch.int64)
    for row, right in zip(predicted_MN, rights, strict=True):
        row[:right] = 0
    predicted_MN[0] = predicted_MN[0].flip(0)  # each teacher is right somewhere the student is wrong
    found = {kind: rights[t] for _, t, kind in shown_pairs(compare_zoo(predicted_MN, target_N, 2), [0])}
    assert found["weak"] < found["equal"] < found["strong"]
