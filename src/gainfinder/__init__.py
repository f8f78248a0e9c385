"""Find what other trained models know that yours does not, and move it into yours.

    import gainfinder

    gainfinder.scan(["resnet18.a1_in1k", "vit_tiny_patch16_224"], "photos/")
    gainfinder.transfer("resnet18.a1_in1k", "vit_tiny_patch16_224", "photos/", out="better")

Functions: `load_model`, `load_images`, `load_samples`, `predict`, `scan`, `rank`, `fit_head`, `transfer`, `run`,
`repeat`, `ask`, `certify`, `list_results`, `write_report`, `push`, `export`, `run_study`, `study_rows`. What they take
and give: `Callback`, `Classifier`, `Predictions`, `TransferConfig` (the settings of a transfer), `TransferSpec` (a
whole one), `TransferMetrics`, `TransferResult`. `TransferLoss` is a method's loss, for a training loop of your own, and
`TransferTask` a transfer for timm's. Modules: `flips`, `partition`, `objectives`.
Names are imported when they are first used, so that `import gainfinder` stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from . import partition
    from .api import (
        ask,
        certify,
        export,
        fit_head,
        list_results,
        load_images,
        load_model,
        load_samples,
        predict,
        push,
        rank,
        repeat,
        run,
        run_study,
        scan,
        study_rows,
        transfer,
        write_report,
    )
    from .config import TransferConfig, TransferSpec
    from .errors import GainfinderError
    from .integrations import TransferTask
    from .losses import TransferLoss, objectives
    from .metrics import flips
    from .models import Classifier
    from .predictions import Predictions
    from .results import TransferMetrics
    from .runs import Callback, TransferResult

__all__ = [
    "Callback",
    "Classifier",
    "GainfinderError",
    "Predictions",
    "TransferConfig",
    "TransferLoss",
    "TransferMetrics",
    "TransferResult",
    "TransferSpec",
    "TransferTask",
    "ask",
    "certify",
    "export",
    "fit_head",
    "flips",
    "list_results",
    "load_images",
    "load_model",
    "load_samples",
    "objectives",
    "partition",
    "predict",
    "push",
    "rank",
    "repeat",
    "run",
    "run_study",
    "scan",
    "study_rows",
    "transfer",
    "write_report",
]

_HOMES = {
    "Callback": "runs",
    "Classifier": "models",
    "GainfinderError": "errors",
    "TransferConfig": "config",
    "TransferSpec": "config",
    "TransferTask": "integrations",
    "TransferLoss": "losses",
    "Predictions": "predictions",
    "TransferMetrics": "results",
    "TransferResult": "runs",
    "ask": "api",
    "certify": "api",
    "export": "api",
    "fit_head": "api",
    "flips": "metrics",
    "list_results": "api",
    "load_images": "data",
    "load_model": "models",
    "load_samples": "data",
    "objectives": "losses",
    "predict": "api",
    "push": "api",
    "rank": "api",
    "repeat": "api",
    "run": "api",
    "run_study": "api",
    "scan": "api",
    "study_rows": "api",
    "transfer": "api",
    "write_report": "report",
}


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(import_module(f".{_HOMES[name]}", __name__), name)
        if name in __all__:
            return import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
