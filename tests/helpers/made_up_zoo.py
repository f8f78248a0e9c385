"""A scan of models that are made up: families whose members err alike."""

from collections.abc import Sequence
from pathlib import Path

import torch

from gainfinder.metrics import Answers, PredictedClasses, scan_predictions
from gainfinder.results import write_scan

IMAGES, CLASSES = 240, 6


def made_up_zoo(folder: Path, *, families: Sequence[int], perfect: bool = False) -> Path:
    """Keep the scan of a zoo.

    Args:
        folder: the scan's folder.
        families: number of models of each family; they are named `family-0-0`, `family-0-1` …, and mixed.
        perfect: whether two models more have everything right.

    Returns:
        The folder.
    """
    generator = torch.Generator().manual_seed(0)
    target_N = torch.arange(IMAGES) % CLASSES
    models = {}
    for family, size in enumerate(families):
        hard_N = torch.rand(IMAGES, generator=generator)
        for number in range(size):
            difficulty_N = hard_N + 0.15 * torch.rand(IMAGES, generator=generator)
            models[f"family-{family}-{number}"] = (difficulty_N > 0.85 - 0.01 * number).long()
    names = [list(models)[place] for place in torch.randperm(len(models), generator=generator).tolist()]
    if perfect:
        models |= {name: torch.zeros(IMAGES, dtype=torch.int64) for name in ("right", "right-too")}
        names += ["right", "right-too"]
    found = [
        PredictedClasses(
            model=name,
            ids=tuple(map(str, range(IMAGES))),
            answers=Answers(
                predicted_N=(target_N + models[name]) % CLASSES, confidence_N=torch.rand(IMAGES, generator=generator)
            ),
            target=target_N,
        )
        for name in names
    ]
    scan = scan_predictions(found, num_classes=CLASSES)
    write_scan(folder, {**scan.to_dict(), "data": "made up", "asked": names})
    return folder
