"""Inference with frozen models: predictions for images, logits for views, computed live or cached on disk.

In: classifiers, images, views. Out: `Predictions`, `TopPredictions`, entries of the bank (logits, and crops of images),
the targets that a student learns from.
Imports: errors, files, partition, config, predictions, classes, data, models, devices, views.
"""

from .alignment import Teacher, align_model, align_samples, named_after, numbering_doubts
from .bank import Bank, BankEntry, Block, EntryKey, entry_bytes
from .crops import crop_bytes
from .passes import ImageCount, MicroBatcher
from .predict import (
    ImageFeatures,
    evaluation_crops,
    features_of,
    merge_shards,
    predict,
    predict_samples,
    predict_top,
    predict_top_samples,
)
from .targets import (
    BankedModel,
    TableModel,
    TargetModel,
    Targets,
    TargetSource,
    labels_in_places,
    place_rows,
    usable_by_all,
)

__all__ = [
    "Bank",
    "BankEntry",
    "BankedModel",
    "Block",
    "EntryKey",
    "ImageCount",
    "ImageFeatures",
    "MicroBatcher",
    "TableModel",
    "TargetModel",
    "TargetSource",
    "Targets",
    "Teacher",
    "align_model",
    "align_samples",
    "crop_bytes",
    "entry_bytes",
    "evaluation_crops",
    "features_of",
    "labels_in_places",
    "merge_shards",
    "named_after",
    "numbering_doubts",
    "place_rows",
    "predict",
    "predict_samples",
    "predict_top",
    "predict_top_samples",
    "usable_by_all",
]
