"""Models: a reference becomes a `Classifier`, or a table of predictions as a teacher.

In: references, modules. Out: a module with its preprocessing and class names. A file a source, imported when it is
used.
Imports: errors, references, files, libraries, predictions, classes, data.
"""

from .answering import answering_copy
from .batch_norm import has_batch_norm, has_scripted_batch_norm, reestimate
from .classifier import Classifier, InputForm, out_of_memory
from .features import FeatureTap, feature_size, find_classifier_layer
from .from_module import classifier_from_module
from .from_table import PredictionTable
from .fusing import FusedConvolution
from .heads import NewHead, new_head
from .imagenet import imagenet_texts
from .load import ModelSource, TeacherSource, load_copy, load_model, load_teacher, load_written
from .origin import Origin, find_origin
from .preprocessing import Preprocessing, prepare, resample_filter
from .reference import ModelRef, parse_model_ref
from .to_onnx import INPUT as ONNX_INPUT
from .to_onnx import OPSET, OPSETS, refuse_unexportable, write_onnx
from .tokenization import Tokenization
from .weights import load_into, load_weights

__all__ = [
    "ONNX_INPUT",
    "OPSET",
    "OPSETS",
    "Classifier",
    "FeatureTap",
    "FusedConvolution",
    "InputForm",
    "ModelRef",
    "ModelSource",
    "NewHead",
    "Origin",
    "PredictionTable",
    "Preprocessing",
    "TeacherSource",
    "Tokenization",
    "answering_copy",
    "classifier_from_module",
    "feature_size",
    "find_classifier_layer",
    "find_origin",
    "has_batch_norm",
    "has_scripted_batch_norm",
    "imagenet_texts",
    "load_copy",
    "load_into",
    "load_model",
    "load_teacher",
    "load_weights",
    "load_written",
    "new_head",
    "out_of_memory",
    "parse_model_ref",
    "prepare",
    "reestimate",
    "refuse_unexportable",
    "resample_filter",
    "write_onnx",
]
