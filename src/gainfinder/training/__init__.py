"""The only training loop, and the student in it.

In: a student, a source of targets, views, resolved settings. Out: trained weights, rows of measures, checkpoints.
Imports: errors, files, config, predictions, losses, data, models, devices, views, inference.
"""

from .checkpoint import CheckpointPace, Progress, load_checkpoint, load_checkpoints, save_checkpoint, save_checkpoints
from .features import FeatureComparison
from .loop import TrainingLoop, epoch_batches, run_length, train, train_steps
from .trainer import StudentTrainer, blank_batch, loss_of, make_batch, note_parts
from .weights import average, between, copied

__all__ = [
    "CheckpointPace",
    "FeatureComparison",
    "Progress",
    "StudentTrainer",
    "TrainingLoop",
    "average",
    "between",
    "blank_batch",
    "copied",
    "epoch_batches",
    "load_checkpoint",
    "load_checkpoints",
    "loss_of",
    "make_batch",
    "note_parts",
    "run_length",
    "save_checkpoint",
    "save_checkpoints",
    "train",
    "train_steps",
]
