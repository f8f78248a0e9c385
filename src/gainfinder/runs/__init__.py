"""Transfers: planned, run in their folders, guarded, controlled, several in a row.

In: references and settings. Out: a result folder and a `TransferResult`. Above it stand reports, the API and commands.
"""

from .bank import bank_bytes, frozen_models, kept_models, missing_views, stand_ins
from .callbacks import Callback, CallbackList
from .control import control_plan
from .guard import candidates
from .planning import Plan, plan_transfer
from .result import TransferResult
from .strategies import carry_out
from .tracking import needing_folder
from .transfer import make_learner

__all__ = [
    "Callback",
    "CallbackList",
    "Plan",
    "TransferResult",
    "bank_bytes",
    "candidates",
    "carry_out",
    "control_plan",
    "frozen_models",
    "kept_models",
    "make_learner",
    "missing_views",
    "needing_folder",
    "plan_transfer",
    "stand_ins",
]
