"""Made-up images of shapes with a mask each, and tiny models of segmentation."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

SHAPES = ("ground", "ball", "box", "bar")
"""Names of the classes, in the order of the values in a mask."""
EDGE = 32
_COLOURS = ((90, 90, 90), (200, 60, 60), (60, 90, 200), (70, 180, 70))


def made_up_image(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image, uint8 (32, 32, 3), and its mask, uint8 (32, 32): always the same for a number."""
    drawn = np.random.default_rng(number)
    rows, columns = np.mgrid[:EDGE, :EDGE]
    mask = np.zeros((EDGE, EDGE), dtype=np.uint8)
    for shape in drawn.permutation([1, 2, 3]):
        down, right, half = *drawn.integers(5, EDGE - 5, size=2), drawn.integers(4, 9)
        away, aside = np.abs(rows - down), np.abs(columns - right)
        inside = {1: away**2 + aside**2 < half**2, 2: np.maximum(away, aside) < half, 3: away < 3}[int(shape)]
        mask[inside] = shape
    noise = drawn.normal(0, 20, size=(EDGE, EDGE, 3))
    pixels = np.array(_COLOURS)[mask] + noise
    return pixels.clip(0, 255).astype(np.uint8), mask


def masked_folder(root: Path, count: int = 8, *, first: int = 0, masks: bool = True) -> Path:
    """A folder of `images/` and, unless told otherwise, `masks/`; pixels at the edge have no class."""
    (root / "images").mkdir(parents=True)
    if masks:
        (root / "masks").mkdir()
    for number in range(first, first + count):
        pixels, mask = made_up_image(number)
        mask[[0, -1], :] = mask[:, [0, -1]] = 255
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        if masks:
            Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    return root


def tiny_segmenter(
    folder: Path,
    *,
    knows: Collection[str] = SHAPES,
    order: Sequence[str] = SHAPES,
    steps: int = 0,
    seed: int = 0,
) -> str:
    """The reference of a Segformer of one block, trained in a second, saved with its image processor.

    Args:
        folder: the folder to save it in.
        knows: classes that it learns from.
        order: its class names, in the order of its outputs.
        steps: steps of training; 0 leaves it untrained.
        seed: seed of its weights.
    """
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    config = SegformerConfig(
        num_encoder_blocks=1,
        depths=[1],
        sr_ratios=[4],
        hidden_sizes=[16],
        patch_sizes=[3],
        strides=[2],
        num_attention_heads=[1],
        mlp_ratios=[2],
        decoder_hidden_size=32,
        hidden_dropout_prob=0.0,
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
        initializer_range=0.2 if steps else 0.02,  # an untrained one is sure of nothing
        id2label=dict(enumerate(order)),
        label2id={name: index for index, name in enumerate(order)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SegformerForSemanticSegmentation(config)
        processor = SegformerImageProcessor(size={"height": EDGE, "width": EDGE})
        if steps:
            _fit(model, processor, knows=knows, order=order, steps=steps)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return f"hf:{folder}"


def _fit(model: nn.Module, processor: object, *, knows: Collection[str], order: Sequence[str], steps: int) -> None:
    position = torch.tensor([order.index(name) if name in knows else -100 for name in SHAPES])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    model.train()
    for step in range(steps):
        found = [made_up_image(100_000 + 16 * step + i) for i in range(16)]
        pixels = processor([Image.fromarray(image) for image, _ in found], return_tensors="pt")  # type: ignore[operator]
        labels = position[torch.from_numpy(np.stack([mask for _, mask in found])).long()]
        optimizer.zero_grad()
        logits = nn.functional.interpolate(model(**pixels).logits, size=labels.shape[-2:], mode="bilinear")
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
