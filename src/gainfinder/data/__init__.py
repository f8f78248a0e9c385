"""Images: a reference becomes `Images` with stable ids, labels where there are any.

In: references, data sets. Out: `Images`, batches of them. A file a source, imported when it is used. Knows no model.
Imports: errors, references, files, libraries, classes.
"""

from .content import content_digest, is_encoded
from .decoding import decode
from .images import Images, Reader
from .load import ImageSource, load_images
from .loading import Indices, LoadedBatch, check_broken, load_batches
from .reference import DataRef, parse_data_ref
from .sampling import digest_order, folds, holdout, stratified

__all__ = [
    "DataRef",
    "ImageSource",
    "Images",
    "Indices",
    "LoadedBatch",
    "Reader",
    "check_broken",
    "content_digest",
    "decode",
    "digest_order",
    "folds",
    "holdout",
    "is_encoded",
    "load_batches",
    "load_images",
    "parse_data_ref",
    "stratified",
]
