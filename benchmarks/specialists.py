"""Two models that know other halves of CIFAR-10 well, made from the zoo's: `convnext_32-low` and `resnet10_64-high`.

    python benchmarks/specialists.py --models MODELS --images IMAGES --out SPECIALISTS

Each is trained on for a few epochs on images of which one half of the classes makes up 4 % only (classes 5 to 9 for
`-low`, 0 to 4 for `-high`), as a model trained on other data would be. Written in timm's local-dir form.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from images import crop_flips, read
from torch import Tensor
from zoo import Model, laid_out, reference

from gainfinder import load_model

RARE = 0.04
RECIPES = {"convnext_32-low": (10_000, 3), "resnet10_64-high": (6_000, 2)}
"""Images and epochs."""
LR, BATCH = 2e-3, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("models", "images", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    x, y = read(args.images / "train.parquet")
    for name, (count, epochs) in RECIPES.items():
        base, half = name.rsplit("-", 1)
        classifier = load_model(reference(args.models, base))
        model = Model(laid_out(classifier.module, name), classifier.preprocessing)
        generator = torch.Generator().manual_seed(len(name))
        chosen = skewed(y, rare=y >= 5 if half == "low" else y < 5, count=count, generator=generator)
        train(model, x[chosen], y[chosen], epochs=epochs, generator=generator)
        (args.out / name).mkdir(parents=True)
        classifier.module.eval().to(memory_format=torch.contiguous_format)
        classifier.save(classifier, args.out / name)
        print(args.out / name, flush=True)


def skewed(y: Tensor, *, rare: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Positions of so many images, of which few are of the rare classes."""
    order = torch.randperm(len(y), generator=generator)
    kept = ~rare[order] | (torch.rand(len(y), generator=generator) < RARE)
    return order[kept][:count]


def train(model: Model, x: Tensor, y: Tensor, *, epochs: int, generator: torch.Generator) -> None:
    """AdamW at a falling rate, labels smoothed by 0.05."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.02)
    steps = epochs * (len(x) // BATCH)
    step = 0
    for _ in range(epochs):
        views = crop_flips(x, generator)
        for batch in torch.randperm(len(x), generator=generator)[: len(x) // BATCH * BATCH].split(BATCH):
            optimizer.param_groups[0]["lr"] = LR * (1 - step / steps)
            logits = model(model.prepare(views[batch]))
            loss = F.cross_entropy(logits, y[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1


if __name__ == "__main__":
    main()
