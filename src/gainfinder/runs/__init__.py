"""Transfers: prepared, run in their result folders, guarded, compared with a control, one after another.

In: references and settings. Out: a result folder and a `TransferResult`. Used by the API and the command line.
Imports: errors, files, libraries, partition, config, predictions, metrics, losses, data, models, devices, views,
inference, training, results.
"""

from .asking import certify_student, contents_asked
from .bank import (
    TargetModels,
    asked_once,
    bank_bytes,
    bank_crop_bytes,
    banked_models,
    dummy_target_models,
    frozen_models,
    missing_views,
)
from .callbacks import Callback, CallbackList
from .context import PROBE_IMAGES, SharedWork
from .control import control_of
from .describe import describe, describe_model, describe_samples, settings_by_rule
from .diverged import refuse_diverged
from .guard import candidates
from .images import hold_out_to_measure, note_overlap
from .prepare import PreparedTransfer, prepare_spec, prepare_transfer
from .repeating import PreparedRepetition, prepare_repetition
from .result import TransferResult, save_student
from .tracking import needing_folder
from .trainers import make_trainer
from .trials import trials_at_most, trials_share
from .two_way import execute

__all__ = [
    "PROBE_IMAGES",
    "Callback",
    "CallbackList",
    "PreparedRepetition",
    "PreparedTransfer",
    "SharedWork",
    "TargetModels",
    "TransferResult",
    "asked_once",
    "bank_bytes",
    "bank_crop_bytes",
    "banked_models",
    "candidates",
    "certify_student",
    "contents_asked",
    "control_of",
    "describe",
    "describe_model",
    "describe_samples",
    "dummy_target_models",
    "execute",
    "frozen_models",
    "hold_out_to_measure",
    "make_trainer",
    "missing_views",
    "needing_folder",
    "note_overlap",
    "prepare_repetition",
    "prepare_spec",
    "prepare_transfer",
    "refuse_diverged",
    "save_student",
    "settings_by_rule",
    "trials_at_most",
    "trials_share",
]
