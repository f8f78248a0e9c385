"""Data: a reference becomes `Samples`, images or texts, with stable ids, and labels where there are any.

In: references, data sets. Out: `Samples`, batches of them. A file a source, imported when it is used. Knows no model.
Imports: errors, references, files, libraries, classes.
"""

from .content import content_digest, is_encoded
from .decoding import decode
from .images import Images
from .load import SampleSource, load_images, load_samples
from .loading import Indices, LoadedBatch, check_broken, load_batches
from .masked import MaskedImages, in_cells
from .next_tokens import NextTokens, next_tokens
from .reference import DataRef, parse_data_ref
from .samples import Reader, Samples
from .sampling import digest_order, folds, holdout, stratified
from .texts import Text, Texts

__all__ = [
    "DataRef",
    "Images",
    "Indices",
    "LoadedBatch",
    "MaskedImages",
    "NextTokens",
    "Reader",
    "SampleSource",
    "Samples",
    "Text",
    "Texts",
    "check_broken",
    "content_digest",
    "decode",
    "digest_order",
    "folds",
    "holdout",
    "in_cells",
    "is_encoded",
    "load_batches",
    "load_images",
    "load_samples",
    "next_tokens",
    "parse_data_ref",
    "stratified",
]
