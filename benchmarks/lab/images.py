"""CIFAR-10 images in memory, and views of them made in batches."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def read(path: Path) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 3, 32, 32) and labels int64 (N,) of a Parquet file."""
    table = pq.read_table(path)
    pixels = [np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in table["image"].to_pylist()]
    return torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2).copy()), torch.tensor(table["label"].to_pylist())


def crop_flips(x: Tensor, generator: torch.Generator) -> Tensor:
    """Views, uint8 (N, 3, 32, 32): padded by 4, cropped and mirrored at random."""
    padded = F.pad(x, (4, 4, 4, 4))
    at = torch.randint(0, 9, (len(x), 2), generator=generator).tolist()
    mirrored = torch.rand(len(x), generator=generator) < 0.5
    crops = [image[:, top : top + 32, left : left + 32] for image, (top, left) in zip(padded, at, strict=True)]
    return torch.stack([crop.flip(-1) if flip else crop for crop, flip in zip(crops, mirrored, strict=True)])
