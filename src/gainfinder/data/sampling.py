"""Selections that depend on ids alone, so that every machine, run and listing order makes the same ones. Pure.

Each sample has a digest for each purpose ("salt"); a selection takes the lowest. Selections for different purposes are
independent of each other.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, SettingsError
from .samples import Samples


def digest_order(ids: Iterable[str], salt: str) -> NDArray[np.uint64]:
    """A pseudo-random number for each id: the first 8 bytes (big endian) of BLAKE2b of salt and id.

    Returns:
        uint64 (N,).

    Example:
        >>> int(digest_order(["a"], "b")[0]) == int.from_bytes(hashlib.blake2b(b"ba").digest()[:8], "big")
        True
    """
    digests = b"".join(hashlib.blake2b((salt + name).encode()).digest()[:8] for name in ids)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def part(images: Samples, k: int, n: int) -> Samples:
    """The k-th of n parts, counted from 1. Parts are disjoint, their union is all; their sizes differ at random.

    Raises:
        SettingsError: k is outside 1 … n.
        DataError: the part is empty.
    """
    if not 1 <= k <= n:
        raise SettingsError(f"part {k}/{n} does not exist: expected 1 <= k <= n")
    chosen = np.flatnonzero(digest_order(images.ids, "part") % np.uint64(n) == k - 1)
    if not len(chosen):
        raise DataError(
            f"{images.reference}: part {k}/{n} of {len(images)} {images.noun}(s) is empty; ask for fewer parts"
        )
    return images.select(chosen)


def stratified(
    images: Samples, *, count: int | None = None, share: float | None = None, salt: str, by_id_alone: bool = False
) -> NDArray[np.int64]:
    """Indices of a subset that keeps the shares of the classes, in the order of the images.

    The samples of lowest digest within each class are taken, so a smaller subset lies within a larger one up to the
    rounding of class counts. Class counts follow the largest remainder (Hamilton); every class keeps at least one
    sample if `count` is at least the number of classes. Ties go to the class of lower index.

    Args:
        images: the images to choose from.
        count: number of samples to choose, from 1 to N.
        share: number of samples as a share of N in (0, 1], rounded; give either `count` or `share`.
        salt: the purpose; different ones give independent subsets.
        by_id_alone: whether to ignore labels; unlabelled images are always chosen by id alone.

    Returns:
        int64 (count,), ascending.

    Raises:
        SettingsError: not exactly one of count and share, or one out of range.
        DataError: nothing would be left.
    """
    total = _num_chosen(images, count, share)
    order = np.argsort(digest_order(images.ids, salt), kind="stable")
    if images.labels is None or by_id_alone:
        return np.sort(order[:total]).astype(np.int64)
    classes, sizes = np.unique(images.labels, return_counts=True)
    ordered_labels = images.labels[order]
    chosen = [
        order[ordered_labels == label][:quota]
        for label, quota in zip(classes, allocate(sizes.tolist(), total), strict=True)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def folds(images: Samples, count: int, *, salt: str) -> list[NDArray[np.int64]]:
    """Disjoint sets of labelled images, each with the shares of the classes; their sizes differ by one at most.

    The only image of a class is in none, so that what is outside a set always has all classes.

    Args:
        images: the images, with labels.
        count: number of sets, 2 or more; empty ones are left out.
        salt: the purpose; different ones give independent sets.

    Returns:
        Indices of each set, int64, ascending.
    """
    assert images.labels is not None
    order = np.argsort(digest_order(images.ids, salt), kind="stable")
    by_class = order[np.argsort(images.labels[order], kind="stable")]
    _, inverse, sizes = np.unique(images.labels[by_class], return_inverse=True, return_counts=True)
    spread = by_class[sizes[inverse] > 1]
    found = [np.sort(spread[place::count]).astype(np.int64) for place in range(count)]
    return [rows for rows in found if len(rows)]


def allocate(sizes: Sequence[int], total: int) -> list[int]:
    """Largest-remainder shares of `total` in proportion to `sizes`, at least one each if `total` allows.

    A class that would get none takes its one from the class that has most.

    Args:
        sizes: number of samples of each class, at least 1.
        total: number to distribute, from 0 to the sum of `sizes`.

    Example:
        >>> allocate([50, 30, 20], 10)
        [5, 3, 2]
        >>> allocate([98, 1, 1], 10)
        [8, 1, 1]
    """
    everything = sum(sizes)
    quotas = [total * size // everything for size in sizes]
    remainders = [total * size % everything for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-remainders[i], i))
    for i in by_remainder[: total - sum(quotas)]:
        quotas[i] += 1
    if total >= len(sizes):
        for i, quota in enumerate(quotas):
            if quota == 0:
                quotas[max(range(len(quotas)), key=lambda j: (quotas[j], -j))] -= 1
                quotas[i] = 1
    return quotas


def holdout(
    images: Samples, share: float = 0.1, *, salt: str = "holdout", by_id_alone: bool = False
) -> tuple[Samples, Samples]:
    """Split off a share: (rest, held out), stratified, chosen by ids.

    Args:
        images: the images to split.
        share: share of the images to hold out, in (0, 1).
        salt: the purpose; different ones give independent shares.
        by_id_alone: whether to ignore labels.

    Raises:
        SettingsError: the share is not in (0, 1).
        DataError: one side would be empty.
    """
    if not 0 < share < 1:
        raise SettingsError(f"holdout share {share} is out of range: expected a share between 0 and 1, such as 0.1")
    if not round(share * len(images)):
        raise DataError(
            f"{images.reference}: {share:g} of {len(images)} {images.noun}(s), to be set apart, rounds to none; "
            f"give more {images.noun}s, or others for it (`val`, `guard_data`)"
        )
    held_out = stratified(images, share=share, salt=salt, by_id_alone=by_id_alone)
    rest = np.setdiff1d(np.arange(len(images)), held_out)
    if not len(rest):
        raise DataError(
            f"{images.reference}: holding out {share:g} of {len(images)} {images.noun}(s) leaves none for training; "
            "lower it"
        )
    return images.select(rest), images.select(held_out)


def _num_chosen(images: Samples, count: int | None, share: float | None) -> int:
    available, reference, noun = len(images), images.reference, images.noun
    if (count is None) == (share is None):
        raise SettingsError(f"give either a count or a share of samples, got count={count} and share={share}")
    if count is not None:
        if not 1 <= count <= available:
            raise SettingsError(f"{reference}: cannot choose {count} of {available} {noun}s: expected 1 to {available}")
        return count
    assert share is not None
    if not 0 < share <= 1:
        raise SettingsError(f"share {share} of samples is out of range: expected above 0, at most 1")
    wanted = round(share * available)
    if wanted == 0:
        raise DataError(f"{reference}: a share of {share:g} of {available} {noun}(s) rounds to none; raise the share")
    return wanted
