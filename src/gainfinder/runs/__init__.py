"""Transfers: planned, run in their folders, guarded, controlled, several in a row.

In: references and settings. Out: a result folder and a `TransferResult`. Above it stand reports, the API and commands.
"""

from .bank import bank_bytes, frozen_models, kept_models, missing_views, replay, stand_ins
from .callbacks import Callback, CallbackList
from .control import control_of
from .describe import describe
from .guard import candidates
from .prepare import PreparedTransfer, prepare_transfer
from .result import TransferResult
from .strategies import execute
from .tracking import needing_folder
from .transfer import make_learner

__all__ = [
    "Callback",
    "CallbackList",
    "PreparedTransfer",
    "TransferResult",
    "bank_bytes",
    "candidates",
    "control_of",
    "describe",
    "execute",
    "frozen_models",
    "kept_models",
    "make_learner",
    "missing_views",
    "needing_folder",
    "prepare_transfer",
    "replay",
    "stand_ins",
]
