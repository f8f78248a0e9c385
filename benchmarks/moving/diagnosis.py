"""What keeps knowledge from arriving: each pair's gap split into target, optimisation and generalisation, by epoch.

    python -m benchmarks.moving.diagnosis --models ZOO ZOO2 --images IMAGES --out benchmarks/moving/diagnosis.csv \\
        [--pair STUDENT TEACHER] [--recipe NAME ...] [--limit 2000]

A student that learns from a target can fall short of it in three places. The *target* itself may be wrong: of the
views, where the augmentation hurts the teacher, or of new images. *Optimisation*: the student does not give the
target's answer even for views that it has just been trained on. *Generalisation*: it does there, but not for other
views of the same images, nor for other images. So a row has, after each epoch, the share on which student and target
answer alike, and the KL divergence between them, for views just learned, for fresh views of the same images, and for
test images, with the accuracies of student and target beside them. Epoch 0 is the initial student.

Rows that are there already are not run again.
"""

import argparse
import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.lab.rows import append, done
from benchmarks.lab.zoo import reference_in
from gainfinder import partition
from gainfinder.config import TransferConfig
from gainfinder.data import Images, load_images
from gainfinder.models import Classifier
from gainfinder.runs import Callback, PreparedTransfer, TargetModels, make_trainer, prepare_transfer
from gainfinder.training import Progress, StudentTrainer, TrainingLoop, train
from gainfinder.views import Views, ViewSource, view_spec

PAIRS = (
    ("convnext_32", "resnet20"),  # much stronger; layer-norm
    ("convnext_32", "vit_48"),  # about equal
    ("convnext_a", "resnet20"),  # much stronger; layer-norm
    ("tiny_mixer", "resnet20"),  # much stronger; layer-norm
    ("tiny_mixer", "vit_48"),  # weaker
    ("resnet10_64", "resnet_a"),  # much stronger; batch-norm
    ("resnet10_64", "convnext_32"),  # weaker; batch-norm
    ("resnet20", "resnet32"),  # about equal; batch-norm
    ("vit_48", "resnet20"),  # much stronger; layer-norm
)
"""Student and teacher."""
RECIPES: dict[str, dict[str, Any]] = {
    # As the product was before: five epochs of SGD at a low rate.
    "gentle": {
        "method": "kl-dp-u", "optimizer": "sgd", "schedule": "linear", "lr_warmup": 0.0, "epochs": 8, "batch_size": 64,
        "ema_decay": 0.0, "mixup": 0.0,
    },
    "adamw": {
        "method": "kl-prod-u", "optimizer": "adamw", "lr": 1e-3, "schedule": "cosine", "epochs": 8, "batch_size": 128,
        "ema_decay": 0.0, "mixup": 0.0,
    },
    "adamw, mixed": {
        "method": "kl-prod-u", "optimizer": "adamw", "lr": 1e-3, "schedule": "cosine", "epochs": 8, "batch_size": 128,
        "ema_decay": 0.0, "mixup": 0.7,
    },
}  # fmt: skip
KEY = ("student", "teacher", "recipe", "limit", "epoch")
FRESH = 10_000
"""Number of a view that no run shows."""
MEASURED = 1_000
"""Images of each kind that are measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pair", nargs=2, action="append", metavar=("STUDENT", "TEACHER"))
    parser.add_argument("--recipe", nargs="*", default=tuple(RECIPES), choices=tuple(RECIPES))
    parser.add_argument("--limit", type=int, default=2_000)
    asked = parser.parse_args()
    there = done(asked.out, KEY)
    for student, teacher in asked.pair or PAIRS:
        for recipe in asked.recipe:
            about = {"student": student, "teacher": teacher, "recipe": recipe, "limit": asked.limit}
            if (*map(str, about.values()), str(RECIPES[recipe]["epochs"])) not in there:
                diagnose(asked, about)


def diagnose(asked: argparse.Namespace, about: dict[str, Any]) -> None:
    """Train one student, and write a row after each epoch."""
    settings = TransferConfig(
        **RECIPES[about["recipe"]], labels="none", limit=asked.limit, guard=False, device="cpu", workers=0
    )
    student, teacher = (reference_in(asked.models, about[name]) for name in ("student", "teacher"))
    images = f"{asked.images}/train.parquet#5/5"
    val = f"{asked.images}/test.parquet#2/2"
    prepared = prepare_transfer(student, [teacher], images, val=val, settings=settings)
    trainer = make_trainer(prepared, TargetModels(prepared, Callback()).models)
    prepared.views.load()
    bench = Bench.of(prepared, load_images(images), load_images(val))
    append(asked.out, {**about, "epoch": 0, "lr": prepared.settings.lr, **bench.measured(trainer, epoch=0)})

    def measure() -> dict[str, Any]:
        return {"measured": bench.measured(trainer, epoch=progress.epoch)}

    def save(now: Progress) -> None:
        if now.step == 0:
            append(asked.out, {**about, "epoch": now.epoch, "lr": prepared.settings.lr, **now.rows[-1]["measured"]})

    progress = Progress()
    loop = TrainingLoop(
        trainer,
        prepared.views,
        progress,
        begin=lambda progress: None,
        measure=measure,
        on_images=lambda count: None,
        on_sums=lambda sums: None,
    )
    train(loop, checkpoint_every=None, save=save)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a student is measured on.

    Attributes:
        prepared: the transfer.
        labels: labels of the transfer images, which training does not see.
        test: views of test images, unaugmented.
        test_labels: their labels.
    """

    prepared: PreparedTransfer
    labels: Tensor
    test: ViewSource
    test_labels: Tensor

    @classmethod
    def of(cls, prepared: PreparedTransfer, labelled: Images, val: Images) -> "Bench":
        assert labelled.labels is not None and val.labels is not None, "these images carry labels"
        label_of = dict(zip(labelled.ids, labelled.labels, strict=True))
        own = [label_of[sample_id] for sample_id in prepared.train_images.ids]
        few = val.select(_spread(len(val), 2 * MEASURED))
        teachers = [one for one in prepared.teachers if isinstance(one, Classifier)]
        spec = view_spec([one.preprocessing for one in (prepared.student, *teachers)], "none")
        test = ViewSource(few, spec, workers=0, device=prepared.accelerator.device)
        test.load()
        return cls(
            prepared=prepared, labels=torch.tensor(own), test=test, test_labels=torch.from_numpy(np.array(few.labels))
        )

    def measured(self, trainer: StudentTrainer, *, epoch: int) -> dict[str, Any]:
        """Agreement with the target, divergence from it, and accuracies, of three kinds of views."""
        student = replace(self.prepared.student, module=copy.deepcopy(self.prepared.student.module))
        student.module.load_state_dict(trainer.weights())
        row: dict[str, Any] = {}
        own, all_of_test = _spread(len(self.labels), MEASURED), np.arange(len(self.test_labels))
        for kind, source, number, positions, labels in (
            ("seen", self.prepared.views, epoch, own, self.labels[own]),
            ("fresh", self.prepared.views, FRESH + epoch, own, self.labels[own]),
            ("test", self.test, 0, all_of_test, self.test_labels),
        ):
            found = self._compared(student, source, number, positions, labels)
            row.update({f"{kind}_{name}": round(value, 5) for name, value in found.items()})
        return row

    @torch.inference_mode()
    def _compared(
        self, student: Classifier, source: ViewSource, number: int, positions: NDArray[np.int64], labels: Tensor
    ) -> dict[str, float]:
        student_NC, target_NC = self._logits(student, source, number, positions)
        target, answer = target_NC.argmax(dim=1), student_NC.argmax(dim=1)
        divergence_N = (target_NC.exp() * (target_NC - student_NC.log_softmax(dim=1))).sum(dim=1)
        return {
            "agreement": float((target == answer).double().mean()),
            "kl": float(divergence_N.mean()),
            "accuracy": float((answer == labels).double().mean()),
            "target_accuracy": float((target == labels).double().mean()),
        }

    def _logits(
        self, student: Classifier, source: ViewSource, number: int, positions: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """The student's logits for some views of a number, and the target's log-probabilities."""
        found = []
        batches = np.array_split(positions, -(-len(positions) // 250))
        frozen = [self.prepared.student, *self.prepared.teachers]
        for batch in source.batches(batches, epoch=number):
            assert batch.views is not None, "all images can be decoded"
            views = batch.views
            logits_NMC = torch.stack([_evaluated(one, views) for one in frozen if isinstance(one, Classifier)], dim=1)
            found.append((_evaluated(student, views), self._target(logits_NMC)))
        first, second = zip(*found, strict=True)
        return torch.cat(first), torch.cat(second)

    def _target(self, logits_NMC: Tensor) -> Tensor:
        """Log-probabilities of what the method teaches."""
        method = self.prepared.settings.method
        if method.pooling is not None:
            return partition.pooled_log_probs(logits_NMC, method.pooling)
        choice_N = partition.argmax_confidence(partition.log_confidences(logits_NMC, None).exp())
        chosen_NC: Tensor = logits_NMC[torch.arange(len(choice_N)), choice_N].log_softmax(dim=1)
        return chosen_NC


def _spread(images: int, count: int) -> NDArray[np.int64]:
    """Positions of so many images at even distances: sources list one class after the other."""
    return np.unique(np.linspace(0, images - 1, min(count, images)).astype(np.int64))


def _evaluated(model: Classifier, views: Views) -> Tensor:
    model.module.eval()
    return model.logits(views.inputs(model.preprocessing)).float()


if __name__ == "__main__":
    main()
