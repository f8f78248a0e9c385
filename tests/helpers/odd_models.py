"""Classifiers of handwritten digits that answer badly on purpose, fitted in closed form, and small sets of digits."""

from collections.abc import Callable
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import gainfinder
from gainfinder.data import Images

SIZE = 8
KNOWN = 10
"""Digits; models of more classes never answer the others, models of fewer answer digits modulo their number."""


PROBED = 4
"""Images of a batch at most with which a model is tried when it is loaded."""
UNSOUND = ("nan", "some-nan", "inf", "some-inf", "all-masked")
"""Twists that leave images without probabilities, though not those that a model is tried with when it is loaded."""


def few(count: int = 40, *, start: int = 0) -> Images:
    """Some digits of all classes."""
    return gainfinder.load_images("digits").select(range(start, start + count))


def of_classes(classes: int, images: Images) -> Images:
    """The images with labels of a model of so many classes: digits modulo that number."""
    assert images.labels is not None
    return images.relabel(
        images.labels % min(classes, KNOWN), class_names=tuple(map(str, range(classes))), num_classes=classes
    )


class Hostile(nn.Module):
    """Least squares on the pixels of the first digits, whose logits are twisted.

    Args:
        kind: a name in `TWISTS`; `plain` answers well.
        classes: number of classes.
        batch_norm: whether features are normalised first.
        count: digits that it is fitted to; of fewer than 64 all are right.
        shift: added to the labels; with 1 all are wrong.
        noise: how far from the best its weights are.
    """

    def __init__(
        self,
        kind: str = "plain",
        *,
        classes: int = KNOWN,
        batch_norm: bool = False,
        count: int = 300,
        shift: int = 0,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.kind, self.calls = kind, 0
        self.norm: nn.Module = nn.BatchNorm1d(SIZE * SIZE) if batch_norm else nn.Identity()
        self.head = nn.Linear(SIZE * SIZE, classes)
        self.pretrained_cfg: dict[str, Any] = {
            "input_size": (3, SIZE, SIZE),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "num_classes": classes,
            "label_names": tuple(str(one) for one in range(classes)),
        }
        _fit(self.head, count=count, shift=shift, noise=noise)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(x.mean(dim=1).flatten(1)))
        if len(x) <= PROBED and self.kind in UNSOUND:
            return logits
        self.calls += len(x) > PROBED
        return TWISTS[self.kind](logits, x.mean(dim=(1, 2, 3)), self)


def _fit(head: nn.Linear, *, count: int, shift: int, noise: float) -> None:
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images[:count]) / 8 - 1
    answers = torch.tensor((labels[:count] + shift) % KNOWN) % head.out_features
    wanted = nn.functional.one_hot(answers, head.out_features).double() - 0.1
    design = torch.cat([x, torch.ones(len(x), 1)], dim=1).double()
    penalty = 1e-6 * torch.eye(design.shape[1], dtype=torch.float64)  # one solution for few images, too
    solved = 6 * torch.linalg.solve(design.T @ design + penalty, design.T @ wanted).float()
    drawn = torch.randn(solved.shape, generator=torch.Generator().manual_seed(int(1000 * noise)))
    solved = solved + noise * solved.std() * drawn
    with torch.no_grad():
        head.weight.copy_(solved[:-1].T)
        head.bias.copy_(solved[-1])


def _where(rows_N: Tensor, logits: Tensor, value: float) -> Tensor:
    return logits.masked_fill(rows_N[:, None], value)


def _masked(logits: Tensor, kept: range) -> Tensor:
    """Without the classes that are not among these."""
    masked = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
    masked[[one for one in kept if one < logits.shape[1]]] = False
    return logits.masked_fill(masked, -torch.inf)


def _dark(level_N: Tensor) -> Tensor:
    """About half of the images; of a single one that one."""
    return level_N <= level_N.median()


def _only(logits: Tensor, chosen: int) -> Tensor:
    return torch.eye(logits.shape[1], device=logits.device)[min(chosen, logits.shape[1] - 1)]


Twist = Callable[[Tensor, Tensor, Hostile], Tensor]
TWISTS: dict[str, Twist] = {
    "plain": lambda z, level, model: z,
    "nan": lambda z, level, model: z * torch.nan,
    "some-nan": lambda z, level, model: _where(_dark(level), z, torch.nan),
    "inf": lambda z, level, model: z + torch.inf,
    "some-inf": lambda z, level, model: z + _where(_dark(level), torch.zeros_like(z), torch.inf),
    "all-masked": lambda z, level, model: _where(_dark(level), z, -torch.inf),
    "nan-in-training": lambda z, level, model: z * torch.nan if model.training else z,
    "nan-later": lambda z, level, model: z * torch.nan if model.calls > 5 else z,
    "masked": lambda z, level, model: _masked(z, range(7)),
    "all-but-one-masked": lambda z, level, model: _masked(z, range(1)),
    "constant": lambda z, level, model: z * 0 + torch.arange(z.shape[1], device=z.device) / z.shape[1],
    "flat": lambda z, level, model: z * 0,
    "one-answer": lambda z, level, model: z + 100 * _only(z, 3),
    "huge": lambda z, level, model: z * 1e30,
    "beyond-half": lambda z, level, model: z * 1e5,
    "exact": lambda z, level, model: z * 1e4,
    "tiny": lambda z, level, model: z * 1e-30,
}
"""What becomes of logits, by name; `level` is the mean of each image."""
