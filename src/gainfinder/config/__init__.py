"""What a user asks for: the table of methods, the settings of a transfer and the rules that fill in what is not said.

In: names, numbers and texts. Out: a `Method`, checked settings, resolved settings. Imports errors and references alone,
and needs no torch, so that commands and completion start quickly.
"""

from .choices import Augment, size_in_bytes, top_k_of
from .methods import METHODS, OBJECTIVES, Method, Partition, default_method, find_method, refuse_unread
from .settings import DEFAULTS, PRESETS, Resolved, TransferSettings, resolve_settings, settings_from

__all__ = [
    "DEFAULTS",
    "METHODS",
    "OBJECTIVES",
    "PRESETS",
    "Augment",
    "Method",
    "Partition",
    "Resolved",
    "TransferSettings",
    "default_method",
    "find_method",
    "refuse_unread",
    "resolve_settings",
    "settings_from",
    "size_in_bytes",
    "top_k_of",
]
