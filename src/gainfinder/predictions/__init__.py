"""Predictions: a model's logits for some samples, as a value and as a file. All measures are functions of these.

In: logits of any model. Out: `Predictions`, `TopPredictions` and the only reader and writer of their files. Knows no
model and no image.
Imports: errors, files.
"""

from .files import Columns, read_columns, read_predictions, write_predictions
from .rounding import ROUNDING, answered_otherwise, beyond_rounding
from .soundness import check_logits, refuse_features, refuse_unusable, unusable
from .value import IMAGE, NOUNS, Predictions, TopPredictions, most_probable

__all__ = [
    "IMAGE",
    "NOUNS",
    "ROUNDING",
    "Columns",
    "Predictions",
    "TopPredictions",
    "answered_otherwise",
    "beyond_rounding",
    "check_logits",
    "most_probable",
    "read_columns",
    "read_predictions",
    "refuse_features",
    "refuse_unusable",
    "unusable",
    "write_predictions",
]
