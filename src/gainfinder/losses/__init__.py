"""Losses on logits and features of a batch: one loss for each sample.

In: tensors, and a row of the table of methods. Out: tensors. Pure: no file, network or model.
Imports: errors, partition, config.
"""

from . import objectives
from .contrastive import ContrastiveMemory, cd_loss
from .transfer_loss import Losses, OverlaidLabels, Temperatures, TransferLoss, with_label_loss

__all__ = [
    "ContrastiveMemory",
    "Losses",
    "OverlaidLabels",
    "Temperatures",
    "TransferLoss",
    "cd_loss",
    "objectives",
    "with_label_loss",
]
