"""Which target is right most often: what a student would learn from, judged on predictions alone, by many mixtures.

    python -m benchmarks.evidence.targets --model NAME=REFERENCE ... --specialist NAME=REFERENCE ... --images IMAGES \
        --predictions FOLDER --out benchmarks/evidence/targets.csv

Whatever is fitted is fitted on `test.parquet#1/2`, without labels but for the targets that say so, and measured on
`test.parquet#2/2` (test) and `train.parquet#5/5` (transfer). Predictions that are in the folder are read, others are
made. A row is a mean over pairs or triples of models.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, permutations
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.lab.rows import append
from gainfinder import Predictions, partition, predict
from gainfinder.metrics import calibrated_temperatures, calibration, class_temperatures

PARTS = {"fit": "test.parquet#1/2", "test": "test.parquet#2/2", "transfer": "train.parquet#5/5"}
EVERY = 4
"""Only every fourth triple is measured, and artificial teachers stand in for those of every fourth pair."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """Logits (N, C) of the models of a pair or triple, the student's first: those to fit on and those to measure.

    Attributes:
        fit: on the images to fit on; a referee, which informs and does not teach, is last here and not in `on`.
        on: on the images to measure.
        fit_y: labels of the images to fit on, for the targets that may read them.
    """

    fit: Sequence[Tensor]
    on: Sequence[Tensor]
    fit_y: Tensor

    @property
    def teaching(self) -> Sequence[Tensor]:
        return self.fit[: len(self.on)]

    @cached_property
    def class_cooled(self) -> list[Tensor]:
        """By `class_temperatures`, which a referee informs where there is one."""
        found_MC = class_temperatures(self.fit)
        return [z / found_MC[m][z.argmax(1)].unsqueeze(1) for m, z in enumerate(self.on)]


Target = Callable[[Models], Tensor]
"""Gives probabilities (N, C)."""


# ---- targets ----


def surest(logits: Sequence[Tensor]) -> Tensor:
    probs_NMC = torch.stack(list(logits), dim=1).softmax(dim=2)
    return probs_NMC[torch.arange(len(probs_NMC)), partition.most_confident(probs_NMC)]


def soft(logits: Sequence[Tensor], sharpness: float) -> Tensor:
    probs_NMC = torch.stack(list(logits), dim=1).softmax(dim=2)
    return (partition.soft_weights(probs_NMC, sharpness=sharpness).unsqueeze(2) * probs_NMC).sum(dim=1)


def mean(logits: Sequence[Tensor]) -> Tensor:
    return partition.pooled_log_probs(torch.stack(list(logits), dim=1), "mean").exp()


def product(logits: Sequence[Tensor]) -> Tensor:
    return partition.pooled_log_probs(torch.stack(list(logits), dim=1), "product").exp()


def cooled(models: Models) -> list[Tensor]:
    """By the product's temperatures without labels."""
    found = calibrated_temperatures(models.teaching, None)
    return [z / t for z, t in zip(models.on, found, strict=True)]


def calibrated(models: Models) -> list[Tensor]:
    """By temperatures that were fitted to labels."""
    found = calibrated_temperatures(models.teaching, models.fit_y)
    return [z / t for z, t in zip(models.on, found, strict=True)]


def equally_sure(models: Models) -> list[Tensor]:
    """All of one mean confidence, the mean of theirs."""
    confidence = sum(float(z.softmax(1).amax(1).mean()) for z in models.teaching) / len(models.teaching)
    found = [calibration.fit_temperature_to(z, confidence) for z in models.teaching]
    return [z / t for z, t in zip(models.on, found, strict=True)]


def dawid_skene(models: Models, *, steps: int = 50) -> Tensor:
    """EM of Dawid and Skene (1979) on probabilities, from the mean of all models."""
    probs = [z.softmax(1) for z in models.teaching]
    q_NC = torch.stack(probs).mean(dim=0)
    for _ in range(steps):
        share_C, confusion = q_NC.mean(dim=0), [confused(q_NC, p_NC) for p_NC in probs]
        q_NC = pooled_by(share_C, confusion, probs)
    return pooled_by(share_C, confusion, [z.softmax(1) for z in models.on])


def confused(q_NC: Tensor, p_NC: Tensor) -> Tensor:
    """How a model answers images of each class, (C, C), with one image a cell added."""
    counts_CC = q_NC.T @ p_NC + 1
    return counts_CC / counts_CC.sum(dim=1, keepdim=True)


def pooled_by(share_C: Tensor, confusion: Sequence[Tensor], probs: Sequence[Tensor]) -> Tensor:
    scores = [p_NC @ found_CC.log().T for p_NC, found_CC in zip(probs, confusion, strict=True)]
    return (share_C.log() + torch.stack(scores).sum(dim=0)).softmax(dim=1)


def stacked(models: Models) -> Tensor:
    """A weight for each model's log-probabilities, fitted to labels."""
    weights = torch.ones(len(models.on), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")
    fit_NMC = torch.stack([z.log_softmax(1) for z in models.teaching], dim=1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy((fit_NMC * weights[:, None]).sum(dim=1), models.fit_y)
        loss.backward()
        return loss

    optimizer.step(closure)
    on_NMC = torch.stack([z.log_softmax(1) for z in models.on], dim=1)
    return (on_NMC * weights.detach()[:, None]).sum(dim=1).softmax(dim=1)


TARGETS: dict[str, Target] = {
    "teacher (kl)": lambda models: models.on[1].softmax(1),
    "surest (kl-dp-u)": lambda models: surest(models.on),
    "surest, calibrated (kl-dp-cal-u)": lambda models: surest(cooled(models)),
    "surest, temperatures by labels": lambda models: surest(calibrated(models)),
    "soft, sharpness 4 (kl-dp-soft-u)": lambda models: soft(models.on, 4.0),
    "soft, sharpness 1": lambda models: soft(models.on, 1.0),
    "mean (kl-mean-u)": lambda models: mean(models.on),
    "mean, calibrated": lambda models: mean(cooled(models)),
    "mean, equally sure": lambda models: mean(equally_sure(models)),
    "mean, class temperatures": lambda models: mean(models.class_cooled),
    "mean, temperatures by labels": lambda models: mean(calibrated(models)),
    "product (kl-prod-u)": lambda models: product(models.on),
    "product, calibrated": lambda models: product(cooled(models)),
    "product, equally sure": lambda models: product(equally_sure(models)),
    "product, class temperatures": lambda models: product(models.class_cooled),
    "product, temperatures by labels": lambda models: product(calibrated(models)),
    "Dawid and Skene": dawid_skene,
    "stacked by labels": stacked,
}
FEW = (
    "surest (kl-dp-u)", "mean (kl-mean-u)", "product (kl-prod-u)", "mean, class temperatures",
    "product, class temperatures", "product, temperatures by labels",
)  # fmt: skip
"""Those of triples, specialists and artificial teachers."""


# ---- artificial teachers: what is made of a teacher's logits, given the labels ----


def permuted(z_NC: Tensor, classes: Sequence[int]) -> Tensor:
    found = z_NC.clone()
    found[:, list(classes)] = z_NC[:, [*classes[1:], classes[0]]]
    return found


def blind(z_NC: Tensor) -> Tensor:
    """Half of the classes do not exist for it; it is sure of the others."""
    absent_C = torch.tensor([0.0] * 5 + [-12.0] * 5, dtype=z_NC.dtype)
    return 1.5 * (z_NC.log_softmax(1) + absent_C)


def guessing(z_NC: Tensor, y: Tensor) -> Tensor:
    """Surely of a random class, where the image is of an odd one."""
    random = torch.randint(0, z_NC.shape[1], (len(z_NC),), generator=torch.Generator().manual_seed(0))
    sure_NC = 6 * torch.nn.functional.one_hot(random, z_NC.shape[1]).to(z_NC.dtype)
    return torch.where((y % 2 == 1).unsqueeze(1), sure_NC, z_NC)


def noise(z_NC: Tensor) -> Tensor:
    return 5 * torch.randn(z_NC.shape, generator=torch.Generator().manual_seed(0), dtype=z_NC.dtype)


ARTIFICIAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "three times as sure": lambda z, y: 3 * z,
    "a third as sure": lambda z, y: z / 3,
    "blind to half of the classes": lambda z, y: blind(z),
    "guessing in half of the classes": guessing,
    "two classes swapped": lambda z, y: permuted(z, (3, 5)),
    "three classes permuted": lambda z, y: permuted(z, (0, 1, 9)),
    "all classes permuted": lambda z, y: permuted(z, range(10)),
    "noise": lambda z, y: noise(z),
}


# ---- measuring ----


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A target on some images. Accuracies less the student's, pp."""

    gain: float
    gap: float
    log_loss: float
    brier: float
    headroom: float


def measured(probs_NC: Tensor, y: Tensor, models: Models, *, headroom: float) -> Measured:
    right_N = probs_NC.gather(1, y[:, None]).squeeze(1)
    student, *teachers = (accuracy(z, y) for z in models.on)
    return Measured(
        gain=accuracy(probs_NC, y) - student,
        gap=max(teachers) - student,
        log_loss=-float(right_N.clamp_min(1e-6).log().mean()),
        brier=float((probs_NC.square().sum(dim=1) - 2 * right_N + 1).mean()),
        headroom=headroom,
    )


def accuracy(scores_NC: Tensor, y: Tensor) -> float:
    return 100 * float((scores_NC.argmax(1) == y).double().mean())


def headroom_of(models: Models, y: Tensor) -> float:
    """The best of three ensembles whose temperatures were fitted to labels, less the student, pp."""
    on = calibrated(models)
    return max(accuracy(found, y) for found in (surest(on), mean(on), product(on))) - accuracy(models.on[0], y)


def groups_of(found: Sequence[Measured]) -> Iterator[tuple[str, Sequence[Measured]]]:
    """All, and by how much better the best teacher is."""
    yield "all", found
    yield "weaker", [one for one in found if one.gap < -2]
    yield "equal", [one for one in found if abs(one.gap) <= 2]
    yield "stronger", [one for one in found if 2 < one.gap <= 10]
    yield "much stronger", [one for one in found if one.gap > 10]


def summary(found: Sequence[Measured]) -> dict[str, float | int | str]:
    n, some = len(found), [one for one in found if one.headroom > 1]
    return {
        "sets": n,
        "gain_pp": round(sum(one.gain for one in found) / n, 3),
        "worst_pp": round(min(one.gain for one in found), 3),
        "above_zero": round(sum(one.gain > 0 for one in found) / n, 4),
        "captured": round(sum(one.gain / one.headroom for one in some) / len(some), 4) if some else "",
        "log_loss": round(sum(one.log_loss for one in found) / n, 4),
        "brier": round(sum(one.brier for one in found) / n, 4),
    }


@dataclass(frozen=True, kw_only=True)
class Study:
    """Sets of models for the same table: names, of which the first teaches nobody but itself.

    Attributes:
        sets: student and teachers.
        referees: a referee for each set, or None.
        targets: names of those to measure.
        parts: images to measure on.
        changed: what the teacher's logits become; None leaves them.
    """

    sets: Sequence[tuple[str, ...]]
    referees: Sequence[str] | None = None
    targets: Sequence[str] = FEW
    parts: Sequence[str] = ("test",)
    changed: Callable[[Tensor, Tensor], Tensor] | None = None


def studies(names: Sequence[str], specialists: Sequence[str]) -> dict[str, Study]:
    pairs = list(permutations(names, 2))
    triples = [(s, *two) for s in names for two in combinations([name for name in names if name != s], 2)]
    following = [next(name for name in (*names, *names)[names.index(t) + 1 :] if name not in (s, t)) for s, t in pairs]
    found = {
        "pairs": Study(sets=pairs, targets=tuple(TARGETS), parts=("test", "transfer")),
        "two teachers": Study(sets=triples[::EVERY], targets=[name for name in FEW if "labels" not in name]),
        "a referee": Study(sets=pairs, referees=following, targets=["mean, class temperatures", FEW[4]]),
    }
    if specialists:
        found |= {
            "specialist from specialist": Study(sets=list(permutations(specialists, 2))),
            "specialist from generalist": Study(sets=[(s, t) for s in specialists for t in names]),
            "generalist from specialist": Study(sets=[(t, s) for s in specialists for t in names]),
            "specialist from specialist, a referee": Study(
                sets=list(permutations(specialists, 2)),
                referees=[names[at % len(names)] for at in range(len(specialists) * (len(specialists) - 1))],
                targets=["mean, class temperatures", FEW[4]],
            ),
        }
    return found | {f"teacher {kind}": Study(sets=pairs[::EVERY], changed=how) for kind, how in ARTIFICIAL.items()}


def run(study: Study, asked: Mapping[tuple[str, str], Predictions], part: str) -> dict[str, list[Measured]]:
    found: dict[str, list[Measured]] = defaultdict(list)
    y, fit_y = (labels(next(one for (_, of), one in asked.items() if of == wanted)) for wanted in (part, "fit"))
    for at, names in enumerate(study.sets):
        fit, on = ([asked[name, of].logits.double() for name in names] for of in ("fit", part))
        if study.changed is not None:
            fit[1], on[1] = study.changed(fit[1], fit_y), study.changed(on[1], y)
        if study.referees is not None:
            fit.append(asked[study.referees[at], "fit"].logits.double())
        models = Models(fit=fit, on=on, fit_y=fit_y)
        headroom = headroom_of(models, y)
        for name in study.targets:
            found[name].append(measured(TARGETS[name](models), y, models, headroom=headroom))
    return found


def labels(predictions: Predictions) -> Tensor:
    assert predictions.target is not None, "CIFAR-10 carries labels"
    return predictions.target


def made(references: Mapping[str, str], images: Path, folder: Path) -> dict[tuple[str, str], Predictions]:
    """Predictions by model and part, read from the folder or made and kept there."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, reference in references.items():
        for part, where in PARTS.items():
            path = folder / f"{name}-{part}.parquet"
            if not path.exists():
                predict(reference, f"{images}/{where}", device="cpu", workers=0).write(path)
            found[name, part] = Predictions.load(path)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("images", "predictions", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("model", "specialist"):
        parser.add_argument(f"--{name}", action="append", default=[], metavar="NAME=REFERENCE")
    parser.add_argument("--only", nargs="*", help="studies, all by default")
    args = parser.parse_args()
    models, specialists = (dict(one.split("=", 1) for one in given) for given in (args.model, args.specialist))
    asked = made({**models, **specialists}, args.images, args.predictions)
    for title, study in studies(tuple(models), tuple(specialists)).items():
        if args.only and title not in args.only:
            continue
        for part in study.parts:
            for target, found in run(study, asked, part).items():
                for group, some in groups_of(found):
                    if some:
                        row = {"study": title, "images": part, "target": target, "teachers": group}
                        append(args.out, {**row, **summary(some)})


if __name__ == "__main__":
    main()
