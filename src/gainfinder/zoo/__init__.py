"""Many models on the same images: what each knows that each other does not know.

In: models and images, or a folder of predictions; names or embeddings of classes. Out: a `Scan` or a
`Ranking` of teachers, and its folder.
Imports: errors, references, files, libraries, config, predictions, metrics, data, models, devices, inference, results.
"""

from .rank import rank_folder_of_predictions, rank_models
from .scan import scan_folder_of_predictions, scan_models
from .sources import read_model_list, timm_models

__all__ = [
    "rank_folder_of_predictions",
    "rank_models",
    "read_model_list",
    "scan_folder_of_predictions",
    "scan_models",
    "timm_models",
]
