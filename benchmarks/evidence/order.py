"""How well teachers are ordered without labels: the estimate against accuracy, for every student and three teachers.

    python -m benchmarks.evidence.order --models MODELS --images IMAGES --specialists SPECIALISTS

Prints, in Markdown, for agreement alone, information alone and their product (what `--strategy sequential` uses) how
many sets of three teachers, and how many pairs of two, come in the order of their accuracies.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from benchmarks.lab.zoo import SPECIALISTS, ZOO, classifier
from gainfinder import predict
from gainfinder.metrics import estimated_strengths, information, mean_agreements
from gainfinder.predictions import Predictions

Estimate = Callable[[Sequence[Predictions]], list[float]]
ESTIMATES: dict[str, Estimate] = {
    "agreement": mean_agreements,
    "information": lambda models: [float(information.information(model.logits).mean()) for model in models],
    "both": estimated_strengths,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("models", "images", "specialists"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    asked = {}
    for name in (*ZOO, *SPECIALISTS):
        model = classifier(args.models, name, specialists=args.specialists)
        asked[name] = predict(model, f"{args.images}/test.parquet#1/4", device="cpu", workers=0)
    print("| models | estimate | orders of three | pairs within 3 pp | 3 to 10 pp apart | more |")
    print("|---|---|---|---|---|---|")
    for title, names in (("the zoo", ZOO), ("and four specialists", (*ZOO, *SPECIALISTS))):
        for estimate, strengths in ESTIMATES.items():
            print(f"| {title} | {estimate} | {' | '.join(counted(asked, names, strengths))} |")


def counted(asked: dict[str, Predictions], names: Sequence[str], strengths: Estimate) -> list[str]:
    """Right of all, for orders of three and for pairs by how far their accuracies are apart."""
    accuracy = {name: asked[name].accuracy for name in names}
    right, of = [0] * 4, [0] * 4
    for student in names:
        for teachers in combinations([name for name in names if name != student], 3):
            models = [replace(asked[name], target=None) for name in (student, *teachers)]
            strength = dict(zip(teachers, strengths(models)[1:], strict=True))
            of[0] += 1
            right[0] += sorted(teachers, key=accuracy.__getitem__) == sorted(teachers, key=strength.__getitem__)
            for one, other in combinations(teachers, 2):
                gap = accuracy[one] - accuracy[other]
                column = 1 if abs(gap) < 0.03 else 2 if abs(gap) < 0.1 else 3
                of[column] += 1
                right[column] += gap * (strength[one] - strength[other]) > 0
    return [f"{a} of {b}" for a, b in zip(right, of, strict=True)]


if __name__ == "__main__":
    main()
