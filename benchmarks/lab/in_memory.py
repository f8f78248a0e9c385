"""What the studies with a loop of their own share: images, models and the logits that were asked for before."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.lab.images import crop_flips, read
from benchmarks.lab.zoo import Model


class Lab:
    """Images, models and the logits that were asked for before.

    Attributes:
        x: training images, uint8 (50,000, 3, 32, 32); y: their classes.
        test_x: test images in one random order; test_y: their classes.
        autocast: whether models that are only asked run in bfloat16 where autocast says so.
    """

    def __init__(self, models: Path, images: Path, *, specialists: Path | None = None, autocast: bool = False) -> None:
        self.folder, self.specialists, self.autocast = models, specialists, autocast
        (self.x, self.y), (test_x, test_y) = (read(images / f"{part}.parquet") for part in ("train", "test"))
        order = torch.randperm(len(test_x), generator=torch.Generator().manual_seed(1))
        self.test_x, self.test_y = test_x[order], test_y[order]
        self.models: dict[str, Model] = {}
        self.asked: dict[tuple[Any, ...], Tensor] = {}

    def model(self, name: str) -> Model:
        """The same object each time; copy it before training."""
        if name not in self.models:
            self.models[name] = self.made(name)
        return self.models[name]

    def made(self, name: str) -> Model:
        """The model of that name when it is first asked for: one of the zoo or a specialist."""
        return Model.load(self.folder, name, specialists=self.specialists)

    def chosen(self, seed: int, n: int) -> Tensor:
        """Positions of n training images."""
        return torch.randperm(len(self.x), generator=torch.Generator().manual_seed(77 + seed))[:n]

    def views(self, chosen: Tensor, seed: int, epoch: int) -> Tensor:
        """Padded by 4, cropped and mirrored at random."""
        return crop_flips(self.x[chosen], torch.Generator().manual_seed(seed * 1000 + epoch))

    def logits(self, model: Model, x: Tensor, key: tuple[Any, ...] | None = None) -> Tensor:
        """Float (N, C); those of a key are worked out once."""
        if key is not None and key in self.asked:
            return self.asked[key]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            found = torch.cat([model.eval()(model.prepare(part)).float() for part in x.split(250)])
        if key is not None:
            self.asked[key] = found
        return found
