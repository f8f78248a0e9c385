"""Views: what a model is shown of a sample in an epoch, a pure function of seed, epoch and the sample's id.

In: images or texts, models' preprocessing. Out: crops, and batches of augmented views; of texts rows of tokens.
Imports: config, data, models, devices.
"""

from .loader import CachedCrops, CropCache, CropKeeper, ViewBatch, ViewSource
from .spec import Size, Views, ViewSpec, blank_views, epoch_order, evaluation_crop, layout, view_spec

__all__ = [
    "CachedCrops",
    "CropCache",
    "CropKeeper",
    "Size",
    "ViewBatch",
    "ViewSource",
    "ViewSpec",
    "Views",
    "blank_views",
    "epoch_order",
    "evaluation_crop",
    "layout",
    "view_spec",
]
