"""Mixed views: each the view of one image with less than half of another's laid over it.

A teacher is a function, and images between images show more of it than the images alone: where these are few, a student
that fits the teacher's answers for mixed views learns more that holds for new images (Beyer et al., "Knowledge
distillation: a good teacher is patient and consistent", CVPR 2022, "function matching"; mixup after Zhang et al. 2018).
All models of a transfer see the same mixed view. Where labels are fitted, a mixed view has those of both images, in
their shares.

Which image is laid over and how strongly are functions of (seed, number of the view, the ids of all images). The other
image is the next in the order of the epoch, so that both are mostly in one batch, and each is decoded once. An image's
own share is at least a half, so that a view is of the image whose id it has; over all images, the shares of pairs are
spread as evenly as if the whole range were drawn.

Shapes: n images, N samples of a batch, H and W height and width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .spec import Views, ViewSpec, epoch_order, uniforms


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """What is laid over the views of a batch.

    Attributes:
        positions_N: int64, position of the image that is laid over each; its own where none is. On the CPU.
        shares_N: float32, share of each sample's own image in its view, from 0.5 to 1; on the CPU.
    """

    positions_N: Tensor
    shares_N: Tensor


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Which images are mixed in one number of the views.

    Attributes:
        ids: ids of all images.
        spec: specification of the views, its `mixup` above 0.
        number: number of the view.
        partners_n: int64, position of the image laid over each.
    """

    ids: Sequence[str]
    spec: ViewSpec
    number: int
    partners_n: NDArray[np.int64]

    @classmethod
    def of(cls, spec: ViewSpec, ids: Sequence[str], *, number: int) -> "Mixing":
        """Each image's partner: the next in the epoch's order, and the first for the last."""
        order = epoch_order(ids, seed=spec.seed, epoch=number)
        partners = np.empty_like(order)
        partners[order] = np.roll(order, -1)
        return cls(ids=ids, spec=spec, number=number, partners_n=partners)

    def with_partners(self, positions_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """These positions, and those of their partners that are not among them."""
        others = self.partners_n[positions_N]
        return np.concatenate([positions_N, np.setdiff1d(others, positions_N)])

    def shares(self, positions_N: NDArray[np.int64]) -> Tensor:
        """The share of each image in its own view: float32 (N,), from 0.5 to 1; 1 for those that are not mixed."""
        shares = []
        for position in positions_N:
            draw = uniforms(self.spec.seed, self.number, self.ids[position], kind="mixup")
            mixed = next(draw) < self.spec.mixup
            shares.append(0.5 + 0.5 * next(draw) if mixed else 1.0)
        return torch.tensor(shares, dtype=torch.float32)

    def mixed(self, views: Views, positions: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[Views, Overlay]:
        """The mixed views of some samples, and what was laid over them.

        Args:
            views: views of the samples and of their partners.
            positions: position of each of `views`.
            wanted: positions of the samples, among `positions`. One whose partner is not there is not mixed.
        """
        row_of = {position: row for row, position in enumerate(positions.tolist())}
        own = np.array([row_of[position] for position in wanted.tolist()])
        partners = self.partners_n[wanted].tolist()
        other = np.array([row_of.get(partner, row) for partner, row in zip(partners, own.tolist(), strict=True)])
        shares_N = self.shares(wanted)
        overlay = Overlay(positions_N=torch.from_numpy(positions[other]), shares_N=shares_N)
        return views.map(lambda part: _blend(part, own, other, shares_N)), overlay


def mixing_of(spec: ViewSpec, ids: Sequence[str], *, number: int) -> Mixing | None:
    """How the views of this number are mixed; None where they are not."""
    return Mixing.of(spec, ids, number=number) if spec.mixup else None


def _blend(views_N3HW: Tensor, own: NDArray[np.int64], other: NDArray[np.int64], shares_N: Tensor) -> Tensor:
    device = views_N3HW.device
    own_N3HW, other_N3HW = (views_N3HW[torch.from_numpy(rows).to(device)].float() for rows in (own, other))
    shares_N111 = shares_N.to(device).view(-1, 1, 1, 1)
    return (shares_N111 * own_N3HW + (1 - shares_N111) * other_N3HW).round().to(torch.uint8)
