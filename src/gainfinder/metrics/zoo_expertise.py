"""The areas of expertise of all pairs of a zoo, and of a few of them class by class (Figs. 2a and 2b).

Shapes: N samples, M models, C classes, A areas, D numbers of an embedding. In a matrix (M, M) the row is the student,
the column the teacher.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .expertise import PERCENTS, areas_of_expertise, mean_similarity, semantic_similarity
from .scanned import Area, AreaOverPairs, ClassFlips, Expertise, PairExpertise, PairKind
from .zoo_flips import ZooFlips

SHARE = 0.1
"""A weak or strong teacher is that of this share of the pairs, from either end: the very ends are odd models."""


@dataclass(frozen=True, kw_only=True)
class ClassTexts:
    """What classes are called.

    Attributes:
        names: C names.
        embeddings_CD: an embedding of each name, floating point (C, D); None without.
        source: what gave the embeddings; None without.
    """

    names: tuple[str, ...]
    embeddings_CD: Tensor | None = None
    source: str | None = None

    @classmethod
    def by_index(cls, num_classes: int) -> "ClassTexts":
        """Classes that are called by their indices."""
        return cls(names=tuple(map(str, range(num_classes))))


@dataclass(frozen=True, kw_only=True)
class ZooAreas:
    """The areas of expertise of all ordered pairs.

    Attributes:
        sizes_MMA: number of classes of each area, int64 (M, M, A); 0 without flips.
        similarity_MMA: semantic similarity, float64 (M, M, A), NaN of fewer than two classes; None without embeddings.
        similarity_of_all: mean cosine similarity of all classes with images; None without embeddings, and of one class.
    """

    sizes_MMA: Tensor
    similarity_MMA: Tensor | None
    similarity_of_all: float | None


def areas_of_zoo(flips: ZooFlips, texts: ClassTexts, samples_C: Tensor) -> ZooAreas:
    """The areas of all ordered pairs, student by student.

    Embeddings whose mean similarity is not above 0 give no similarity: relative to it, it would mean nothing.

    Args:
        flips: with `flip_counts_CMM`.
        texts: the classes, with embeddings or without.
        samples_C: number of images of each class, int64 (C,). Classes without images are none of all classes.
    """
    assert flips.flip_counts_CMM is not None, "flips of each class"
    embeddings_CD = texts.embeddings_CD
    common = None if embeddings_CD is None else mean_similarity(embeddings_CD[samples_C > 0])
    usable = common is not None and common > 0
    sizes, similarity = [], []
    for counts_CM in flips.flip_counts_CMM.unbind(dim=1):
        found = areas_of_expertise(counts_CM.T.contiguous())
        sizes.append(found.sizes_PA)
        if usable and embeddings_CD is not None and common is not None:
            similarity.append(semantic_similarity(found, embeddings_CD, all_similarity=common))
    return ZooAreas(
        sizes_MMA=torch.stack(sizes),
        similarity_MMA=torch.stack(similarity) if usable else None,
        similarity_of_all=common,
    )


def expertise_of(
    names: Sequence[str],
    flips: ZooFlips,
    areas: ZooAreas,
    *,
    texts: ClassTexts,
    samples_C: Tensor,
    student: str | None = None,
    teachers: Sequence[str] = (),
) -> Expertise:
    """What a scan says of areas of expertise.

    Args:
        names: references of the M models.
        flips: with `flip_counts_CMM`.
        areas: as `areas_of_zoo` gives them.
        texts: the classes.
        samples_C: number of images of each class, int64 (C,).
        student: reference of the student whose pairs are shown; None for those of all.
        teachers: references of teachers chosen for it.
    """
    students = range(len(names)) if student is None else [names.index(student)]
    shown = shown_pairs(flips, students)
    seen = {(s, t) for s, t, _ in shown}
    chosen = [(names.index(student), names.index(one)) for one in teachers] if student is not None else []
    shown += [(s, t, "chosen") for s, t in chosen if (s, t) not in seen]
    return Expertise(
        percents=PERCENTS,
        embeddings=texts.source,
        similarity_of_all=areas.similarity_of_all,
        areas=_over_pairs(areas),
        pairs=tuple(_pair(one, names, flips, areas, texts=texts, samples_C=samples_C) for one in shown),
    )


def shown_pairs(flips: ZooFlips, students: Sequence[int]) -> list[tuple[int, int, PairKind]]:
    """The pairs of a weak, an equal and a strong teacher (Fig. 2a), as far as there are such.

    Of the students' pairs with positive flips, by rising Δ_acc: the one that a tenth of them lie below, if its teacher
    is the worse; the one that a tenth lie above, if its teacher is the better; and of those between them the one of the
    smallest difference. Ties go to the pair with more flips, then to the first.

    Args:
        flips: the zoo's.
        students: places of the students.

    Returns:
        Student, teacher and kind.
    """
    counts_MM, delta_MM = flips.positive_flip_counts_MM.tolist(), flips.delta_acc_pp_MM.tolist()
    pairs = [(s, t) for s in students for t in range(len(counts_MM)) if s != t and counts_MM[s][t]]
    if not pairs:
        return []
    pairs.sort(key=lambda pair: (delta_MM[pair[0]][pair[1]], -counts_MM[pair[0]][pair[1]]))
    skipped = math.floor(SHARE * (len(pairs) - 1))
    weak, strong = pairs[skipped], pairs[-1 - skipped]
    found: list[tuple[int, int, PairKind]] = []
    if delta_MM[weak[0]][weak[1]] < 0:
        found.append((*weak, "weak"))
    is_strong = delta_MM[strong[0]][strong[1]] > 0
    between = pairs[skipped + 1 if found else 0 : len(pairs) - 1 - skipped if is_strong else len(pairs)]
    if between:
        equal = min(between, key=lambda pair: (abs(delta_MM[pair[0]][pair[1]]), -counts_MM[pair[0]][pair[1]]))
        found.append((*equal, "equal"))
    return [*found, (*strong, "strong")] if is_strong else found


def _over_pairs(areas: ZooAreas) -> tuple[AreaOverPairs, ...]:
    found = []
    for number, percent in enumerate(PERCENTS):
        sizes_P = areas.sizes_MMA[:, :, number].flatten()
        sizes_P = sizes_P[sizes_P > 0].double()
        similar_P = torch.empty(0) if areas.similarity_MMA is None else areas.similarity_MMA[:, :, number].flatten()
        similar_P = similar_P[~similar_P.isnan()]
        found.append(
            AreaOverPairs(
                percent=percent,
                pairs=len(sizes_P),
                mean_size=float(sizes_P.mean()) if len(sizes_P) else 0.0,
                similar_pairs=len(similar_P),
                mean_similarity=float(similar_P.mean()) if len(similar_P) else None,
                std_similarity=float(similar_P.std()) if len(similar_P) > 1 else None,
            )
        )
    return tuple(found)


def _pair(
    pair: tuple[int, int, PairKind],
    names: Sequence[str],
    flips: ZooFlips,
    areas: ZooAreas,
    *,
    texts: ClassTexts,
    samples_C: Tensor,
) -> PairExpertise:
    assert flips.flip_counts_CMM is not None
    s, t, kind = pair
    counts_C = flips.flip_counts_CMM[:, s, t].long()
    order = areas_of_expertise(counts_C[None]).order_PC[0].tolist()
    count_of, samples = counts_C.tolist(), samples_C.tolist()
    sizes = areas.sizes_MMA[s, t].tolist()
    similarity = [math.nan] * len(sizes) if areas.similarity_MMA is None else areas.similarity_MMA[s, t].tolist()
    return PairExpertise(
        student=names[s],
        teacher=names[t],
        kind=kind,
        delta_acc_pp=float(flips.delta_acc_pp_MM[s, t]),
        positive_flips=float(flips.positive_flips_MM[s, t]),
        classes=tuple(
            ClassFlips(index=c, name=texts.names[c], flips=count_of[c], samples=samples[c]) for c in order if samples[c]
        ),
        areas=tuple(
            Area(
                percent=percent,
                size=size,
                flips=sum(count_of[c] for c in order[:size]),
                similarity=None if math.isnan(alike) else alike,
            )
            for percent, size, alike in zip(PERCENTS, sizes, similarity, strict=True)
        ),
    )
