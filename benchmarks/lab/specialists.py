"""Models that know one half of CIFAR-10 well, made from the zoo's `convnext_32` and `resnet10_64`.

    python -m benchmarks.lab.specialists --models MODELS --images IMAGES --out SPECIALISTS

Each is trained on for a few epochs on images of which one half of the classes makes up 4 % only (classes 5 to 9 for
`-low`, 0 to 4 for `-high`), as a model trained on other data would be. Written in timm's local-dir form; those that are
there already stay.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.lab.images import read
from benchmarks.lab.training import fit, skewed
from benchmarks.lab.zoo import Model, classifier

RECIPES = {
    "convnext_32-low": (10_000, 3), "convnext_32-high": (10_000, 3), "resnet10_64-high": (6_000, 2),
    "resnet10_64-low": (6_000, 2),
}  # fmt: skip
"""Images and epochs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("models", "images", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    x, y = read(args.images / "train.parquet")
    for name, (count, epochs) in RECIPES.items():
        if (args.out / name).exists():
            continue
        base, half = name.rsplit("-", 1)
        found = classifier(args.models, base)
        model = Model(found.module, found.image_preprocessing)
        generator = torch.Generator().manual_seed(len(name))
        chosen = skewed(y, rare=y >= 5 if half == "low" else y < 5, count=count, generator=generator)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
        loss = partial(F.cross_entropy, label_smoothing=0.05)
        fit(model, optimizer, x[chosen], y[chosen], loss=loss, epochs=epochs, generator=generator)
        (args.out / name).mkdir(parents=True)
        found.module.eval().to(memory_format=torch.contiguous_format)
        found.save(found, args.out / name)
        print(args.out / name, flush=True)


if __name__ == "__main__":
    main()
