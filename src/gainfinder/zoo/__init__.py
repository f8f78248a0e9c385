"""Many models on the same images: what each knows that each other does not know.

In: models and labelled images. Out: a `Scan`, and its folder.
Imports: errors, metrics, models, data, devices, inference, results.
"""

from .scan import scan_models

__all__ = ["scan_models"]
