"""Views: what a model is shown of an image in an epoch, a pure function of seed, epoch and the image's id.

In: images, models' preprocessing. Out: crops, and batches of augmented views.
Imports: config, models, data, devices.
"""

from .loader import CachedCrops, CropCache, CropKeeper, ViewBatch, ViewSource
from .spec import Views, ViewSpec, blank_views, epoch_order, evaluation_crop, view_spec

__all__ = [
    "CachedCrops",
    "CropCache",
    "CropKeeper",
    "ViewBatch",
    "ViewSource",
    "ViewSpec",
    "Views",
    "blank_views",
    "epoch_order",
    "evaluation_crop",
    "view_spec",
]
