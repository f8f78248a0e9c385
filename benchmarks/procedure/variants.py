"""Why students lose by the procedure itself: batch-norm, learning rate, schedule, calibration; one loop, many runs.

    python -m benchmarks.procedure.variants --models MODELS --images IMAGES --jobs JOBS.jsonl \\
        --out benchmarks/procedure/variants.csv [--specialists SPECIALISTS]

A loop apart from the package, with views and frozen models' logits held in memory, to try what the package then
took over. A job is a line of JSON with arguments of `run`; the columns of variants.csv and rates.csv of those names
are the jobs that were run. Measured on 6,000 test images. `d1.0` is the change of accuracy in pp, `d0.5` that half way
in weight space (batch-norm statistics re-estimated on views), `se…` their standard errors, `churn…` the share of
changed answers. SPECIALISTS is what lab/specialists.py wrote, for jobs that name one.
Students ending in `_bce` and `_ls` are made first: the same model trained on with binary cross-entropy or with labels
smoothed by 0.2.
"""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.lab.in_memory import Lab
from benchmarks.lab.rows import append
from benchmarks.lab.training import adapt, distil
from benchmarks.lab.zoo import Model
from gainfinder.metrics import calibration
from gainfinder.training import between

PURPOSE_BUILT = {"convnext_32": (10_000, 2e-3), "resnet20": (6_000, 1e-2)}


class Students(Lab):
    """The zoo and the students made on purpose; 6,000 test images."""

    def __init__(self, models: Path, images: Path, *, specialists: Path | None = None) -> None:
        super().__init__(models, images, specialists=specialists)
        self.test_x, self.test_y = self.test_x[:6000], self.test_y[:6000]

    def made(self, name: str) -> Model:
        """One of the zoo, or one trained on with another loss, for 3 epochs at a falling rate."""
        if not name.endswith(("_bce", "_ls")):
            return super().made(name)
        base, loss = name.rsplit("_", 1)
        n, lr = PURPOSE_BUILT[base]
        torch.manual_seed(0)
        model = super().made(base).train()
        generator = torch.Generator().manual_seed(5)
        chosen = torch.randperm(50_000, generator=generator)[:n]
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
        batches = [
            (epoch, batch)
            for epoch in range(3)
            for batch in torch.randperm(n, generator=generator)[: n // 128 * 128].split(128)
        ]
        views = [self.views(chosen, 9, epoch) for epoch in range(3)]
        for step, (epoch, batch) in enumerate(batches):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / len(batches))
            logits, target = model(model.prepare(views[epoch][batch])), self.y[chosen][batch]
            if loss == "ls":
                value = F.cross_entropy(logits, target, label_smoothing=0.2)
            else:
                value = F.binary_cross_entropy_with_logits(logits, F.one_hot(target, 10).float()) * 10
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        return model.eval()


def run(
    lab: Students, student: str, teacher: str, *, method: str = "kl-dp-u", mode: str = "train", lr: float = 1e-3,
    n: int = 2000, epochs: int = 2, batch_size: int = 64, seed: int = 0, extra: str = "",
) -> dict[str, Any]:  # fmt: skip
    """One transfer.

    Args:
        lab: images and models.
        student: name.
        teacher: name.
        method: kl or kl-dp-u.
        mode: train; frozen (as in evaluation); reest (statistics re-estimated on views first, then frozen) and
            reest-both (of the frozen initial student, too).
        lr: learning rate.
        n: images.
        epochs: passes.
        batch_size: images a step; the last one of an epoch may have fewer.
        seed: of images, views and order.
        extra: words: decay (rate falls to 0), calM (teacher's mean confidence brought to the student's), calL (both
            calibrated with labels), rescale (the student learns the teacher's logits on its own scale).
    """
    torch.manual_seed(seed)
    chosen = lab.chosen(seed, n)
    initial, other = lab.model(student), lab.model(teacher)
    model = copy.deepcopy(initial)
    views = [lab.views(chosen, seed, epoch) for epoch in range(epochs)]
    if mode.startswith("reest"):
        adapt(model, views[0])
    frozen, name = (copy.deepcopy(model), f"{student} re-estimated") if mode == "reest-both" else (initial, student)
    ours = [lab.logits(frozen, view, (name, seed, n, epoch)) for epoch, view in enumerate(views)]
    theirs = [lab.logits(other, view, (teacher, seed, n, epoch)) for epoch, view in enumerate(views)]
    before = lab.logits(initial, lab.test_x, (student,))
    own_t = their_t = 1.0
    if "calL" in extra:
        tests = (before, lab.logits(other, lab.test_x, (teacher,)))
        own_t, their_t = (calibration.fit_temperature(logits[:3000], lab.test_y[:3000]) for logits in tests)
    if "calM" in extra:
        their_t = calibration.fit_temperature_to(theirs[0], ours[0].softmax(1).amax(1).mean().item())
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-3)
    batches = [
        torch.randperm(n, generator=torch.Generator().manual_seed(seed * 77 + epoch)).split(batch_size)
        for epoch in range(epochs)
    ]
    targets, taught = [], 0
    for mine, others in zip(ours, theirs, strict=True):
        to_teacher = torch.ones(n, dtype=torch.bool)
        if method == "kl-dp-u":
            to_teacher = (others / their_t).softmax(1).amax(1) > (mine / own_t).softmax(1).amax(1)
        scaled = others * own_t / their_t if "rescale" in extra else others
        targets.append(torch.where(to_teacher[:, None], scaled, mine).log_softmax(1))
        taught += int(to_teacher.sum())
    distil(model, optimizer, views, targets, batches, falling="decay" in extra, train_mode=mode == "train")
    row = {
        "student": student, "teacher": teacher, "method": method, "mode": mode, "lr": lr, "n": n, "epochs": epochs,
        "batch_size": batch_size, "seed": seed, "extra": extra, "T_teacher": their_t, "share": taught / (n * epochs),
    }  # fmt: skip
    start, end = initial.state_dict(), copy.deepcopy(model.state_dict())
    for share in (1.0, 0.5):
        model.load_state_dict(between(start, end, share))
        if share < 1 and mode != "frozen":
            adapt(model, views[-1])
        row.update(measured(before, lab.logits(model, lab.test_x), lab.test_y, share))
    return row


def measured(before: Tensor, after: Tensor, y: Tensor, share: float) -> dict[str, float]:
    gained = (after.argmax(1) == y).float() - (before.argmax(1) == y).float()
    return {
        f"d{share}": 100 * gained.mean().item(),
        f"se{share}": 100 * gained.std().item() / len(y) ** 0.5,
        f"churn{share}": (after.argmax(1) != before.argmax(1)).float().mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("models", "images", "out", "jobs"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--specialists", type=Path)
    args = parser.parse_args()
    lab = Students(args.models, args.images, specialists=args.specialists)
    for line in args.jobs.read_text().splitlines():
        append(args.out, run(lab, **json.loads(line)))


if __name__ == "__main__":
    main()
