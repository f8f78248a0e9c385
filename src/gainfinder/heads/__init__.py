"""A classifier layer for other classes: features computed once, softmax regression on them, the rest left as it is.

In: a model, labelled images. Out: a folder with the same model and a new head, a `HeadResult`.
Imports: errors, files, predictions, classes, data, models, devices, inference, results, runs.
"""

from .fit import HeadResult, fit_head
from .softmax import DECAYS, LinearHead, TriedDecay, best_decay, choose_decay, fit_softmax

__all__ = [
    "DECAYS",
    "HeadResult",
    "LinearHead",
    "TriedDecay",
    "best_decay",
    "choose_decay",
    "fit_head",
    "fit_softmax",
]
