import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gainfinder.data import Images, load_images
from gainfinder.data.sampling import allocate, digest_order, folds, holdout, part, stratified
from gainfinder.errors import DataError, SettingsError

SIZES = (70, 20, 9, 1)


def make(order: Any = None, *, labelled: bool = True) -> Images:
    labels = np.repeat(np.arange(4), SIZES)
    order = np.arange(100) if order is None else order
    ids = [f"s{i}" for i in order]
    return Images.build(
        reference="x",
        reader=None,  # type: ignore[arg-type]
        ids=ids,
        labels=labels[order].tolist() if labelled else None,
    )


def chosen(images: Images, **settings: Any) -> set[str]:
    return {images.ids[i] for i in stratified(images, **settings)}


def test_digests_are_fixed() -> None:
    # from Python's hashlib, written down so that they never change
    assert digest_order(["a", "ä"], "part").tolist() == [8438548271027369323, 17606738687291623278]
    assert digest_order([], "part").tolist() == []


def test_parts_are_disjoint_and_complete() -> None:
    images = make()
    parts = [part(images, k, 3) for k in (1, 2, 3)]
    assert sorted(i for p in parts for i in p.ids) == sorted(images.ids)
    assert sum(len(p) for p in parts) == 100
    by_reference = load_images("digits#2/3")
    assert by_reference.ids == part(load_images("digits"), 2, 3).ids
    assert by_reference.reference == "digits#2/3"


def test_nothing_depends_on_the_listing_order() -> None:
    images, shuffled = make(), make(np.random.default_rng(0).permutation(100))
    assert set(part(images, 1, 2).ids) == set(part(shuffled, 1, 2).ids)
    for settings in ({"count": 17}, {"share": 0.3}, {"count": 17, "by_id_alone": True}):
        assert chosen(images, salt="s", **settings) == chosen(shuffled, salt="s", **settings)
    assert set(holdout(images)[1].ids) == set(holdout(shuffled)[1].ids)


def test_class_shares_are_kept_and_every_class_stays() -> None:
    images = make()
    assert images.labels is not None
    indices = stratified(images, count=10, salt="s")
    assert indices.tolist() == sorted(indices)
    assert np.bincount(images.labels[indices]).tolist() == [6, 2, 1, 1]
    assert len(stratified(images, share=0.255, salt="s")) == 26


def test_the_lowest_digests_within_a_class_are_taken() -> None:
    images = make()
    digests = digest_order(images.ids, "s")
    ones = sorted(range(70, 90), key=lambda i: int(digests[i]))[:2]
    assert set(stratified(images, count=10, salt="s")) >= set(ones)


def test_unlabelled_and_by_id_alone_agree() -> None:
    assert chosen(make(labelled=False), count=30, salt="s") == chosen(make(), count=30, salt="s", by_id_alone=True)


def test_salts_are_independent() -> None:
    images = make()
    assert chosen(images, count=50, salt="a") != chosen(images, count=50, salt="b")
    _, held_out = holdout(images, 0.5)
    assert 10 < len(set(part(images, 1, 2).ids) & set(held_out.ids)) < 40


@pytest.mark.parametrize("by_id_alone", [False, True])
def test_one_image_and_all_images_can_be_chosen(by_id_alone: bool) -> None:
    images = make()
    assert len(stratified(images, count=1, salt="s", by_id_alone=by_id_alone)) == 1
    assert stratified(images, count=100, salt="s", by_id_alone=by_id_alone).tolist() == list(range(100))
    assert stratified(images, share=1, salt="s", by_id_alone=by_id_alone).tolist() == list(range(100))
    assert sorted(part(images, 1, 1).ids) == sorted(images.ids)


def test_a_tenth_is_held_out_unless_asked_otherwise() -> None:
    rest, held_out = holdout(make())
    assert (len(rest), len(held_out)) == (90, 10)
    assert set(held_out.ids) == chosen(make(), share=0.1, salt="holdout")


def test_holdout_splits() -> None:
    rest, held_out = holdout(make(), 0.2)
    assert len(held_out) == 20
    assert sorted(rest.ids + held_out.ids) == sorted(make().ids)


@pytest.mark.parametrize(
    ("sizes", "total", "quotas"),
    [
        ((45, 35, 20), 7, [3, 3, 1]),  # 3.15, 2.45, 1.4: the one that is left goes to the largest remainder
        ((20, 35, 45), 7, [1, 3, 3]),
        ((1, 1, 1), 2, [1, 1, 0]),  # equal remainders: to the lower index
        ((3, 3, 3, 3), 6, [2, 2, 1, 1]),
        ((40, 40, 1, 1), 4, [1, 1, 1, 1]),  # 1.95, 1.95, 0.05, 0.05: each of the largest gives one
        ((10, 10, 1), 4, [1, 2, 1]),  # 1.9, 1.9, 0.19: of equal largest the lower index gives
        ((9, 1), 1, [1, 0]),
        ((2, 3), 5, [2, 3]),
        ((2, 3), 0, [0, 0]),
    ],
)
def test_shares_by_largest_remainder(sizes: tuple[int, ...], total: int, quotas: list[int]) -> None:
    assert allocate(sizes, total) == quotas


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.data())
def test_shares_equal_a_naive_hamilton_where_no_class_is_left_out(sizes: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(sizes)))
    exact = [Fraction(total * size, sum(sizes)) for size in sizes]
    expected = [math.floor(share) for share in exact]
    for _ in range(total - sum(expected)):
        left = [share - quota for share, quota in zip(exact, expected, strict=True)]  # below 0 where one was given
        expected[left.index(max(left))] += 1
    if total < len(sizes) or min(expected) > 0:
        assert allocate(sizes, total) == expected


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.data())
def test_allocation(sizes: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(sizes)))
    quotas = allocate(sizes, total)
    assert sum(quotas) == total
    assert all(0 <= quota <= size for quota, size in zip(quotas, sizes, strict=True))
    if total >= len(sizes):
        assert min(quotas) >= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give either a count or a share"),
        ({"count": 3, "share": 0.5}, "give either a count or a share"),
        ({"count": 0}, "cannot choose 0 of 100 images: expected 1 to 100"),
        ({"count": 101}, "cannot choose 101 of 100"),
        ({"share": 1.1}, r"share 1\.1 of samples is out of range: expected above 0, at most 1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        stratified(make(), salt="s", **settings)


def test_selections_that_leave_nothing() -> None:
    with pytest.raises(DataError, match=r"a share of 0\.001 of 100 image\(s\) rounds to none"):
        stratified(make(), share=0.001, salt="s")
    with pytest.raises(SettingsError, match="holdout share 1 is out of range"):
        holdout(make(), 1)
    two = make().select([0, 1])
    with pytest.raises(DataError, match=r"holding out 0\.9 of 2 image\(s\) leaves none for training"):
        holdout(two, 0.9)
    with pytest.raises(DataError, match=r"part 1/5 of 2 image\(s\) is empty|part 2/5 of 2 image\(s\) is empty"):
        [part(two, k, 5) for k in range(1, 6)]
    with pytest.raises(SettingsError, match="part 3/2 does not exist"):
        part(two, 3, 2)


def test_folds_share_out_each_class_and_leave_none_empty() -> None:
    images = load_images("digits").select(range(100))
    assert images.labels is not None
    lone = images.relabel(np.where(np.arange(100) == 40, 10, images.labels), class_names=None, num_classes=11)
    labels = lone.labels
    assert labels is not None
    found = folds(lone, 5, salt="a")
    together = np.concatenate(found)
    assert sorted(together) == [i for i in range(100) if i != 40], "the only image of its class is in none"
    assert {len(rows) for rows in found} <= {19, 20} and all((np.diff(rows) > 0).all() for rows in found)
    for rows in found:
        for label in range(10):
            assert abs((labels[rows] == label).sum() - (labels == label).sum() / 5) < 1
    assert [rows.tolist() for rows in folds(lone, 5, salt="b")] != [rows.tolist() for rows in found]
    backwards = folds(lone.select(range(99, -1, -1)), 5, salt="a")
    assert [sorted(99 - rows) for rows in backwards] == [rows.tolist() for rows in found], "by ids alone"
    pair = lone.select(np.flatnonzero(labels == 3)[:2])
    assert [len(rows) for rows in folds(pair, 5, salt="a")] == [1, 1]
