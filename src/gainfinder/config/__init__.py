"""Configuration: the table of methods, the settings of a transfer, and the rules for settings that are not given.

In: names, numbers and texts, also in files. Out: a `Method`, checked settings, resolved settings, the specification of
a transfer. Imports no torch, so that commands and completion start quickly.
Imports: redaction, errors, references, files.
"""

from .choices import AUGMENTS, RULES, Augment, Rule, check_device, size_in_bytes, top_k_of
from .declaration import DeclaredSetting
from .differences import Difference, differing, first_few
from .methods import METHODS, OBJECTIVES, Method, Partition, default_method, find_method, refuse_unread
from .options import TransferOptions
from .recipe import WEIGHT_DECAY, Recipe
from .resolution import DEFAULTS, PRESETS, ResolvedConfig, resolve_settings, with_recipe
from .run_file import REQUEST, RunFile, read_run, request_of
from .settings import SETTINGS, TransferConfig
from .spec import TransferSpec
from .toml_file import TomlFile

__all__ = [
    "AUGMENTS",
    "DEFAULTS",
    "METHODS",
    "OBJECTIVES",
    "PRESETS",
    "REQUEST",
    "RULES",
    "SETTINGS",
    "WEIGHT_DECAY",
    "Augment",
    "DeclaredSetting",
    "Difference",
    "Method",
    "Partition",
    "Recipe",
    "ResolvedConfig",
    "Rule",
    "RunFile",
    "TomlFile",
    "TransferConfig",
    "TransferOptions",
    "TransferSpec",
    "check_device",
    "default_method",
    "differing",
    "find_method",
    "first_few",
    "read_run",
    "refuse_unread",
    "request_of",
    "resolve_settings",
    "size_in_bytes",
    "top_k_of",
    "with_recipe",
]
