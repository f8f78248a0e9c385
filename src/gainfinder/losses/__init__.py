"""Losses on logits and features: from what the models say of a batch to a loss for each sample.

In: tensors, and a row of the table of methods. Out: tensors. Pure: no file, network or model.
"""

from . import objectives
from .contrastive import ContrastiveMemory, cd_loss
from .distillation import Losses, distillation_losses, label_losses

__all__ = [
    "ContrastiveMemory",
    "Losses",
    "cd_loss",
    "distillation_losses",
    "label_losses",
    "objectives",
]
