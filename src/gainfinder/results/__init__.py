"""What a run leaves on disk: the form of its folder and files, read and written here alone.

In: a folder. Out: its configuration, rows, metrics, thumbnails, as typed records; those of earlier versions, too.
Knows no model and no image, so that reports can read all of it.
Imports: errors, files, config, predictions, metrics.
"""

from .config import Environment, ImagesDescription, ModelDescription, RunConfig
from .documents import validated
from .folder import REPORT_FILE, RunFolder
from .metrics import (
    FORMAT_VERSION,
    BankUse,
    ControlMetrics,
    EpochMetrics,
    GuardDecision,
    GuardPoint,
    LabelsControlMetrics,
    StepMetrics,
    TransferMetrics,
    Trial,
)
from .scan_folder import SCAN_FILE, claim_scan_folder, read_scan, write_scan
from .thumbnails import Thumbnail, changed_images, read_thumbnails, write_thumbnails

__all__ = [
    "FORMAT_VERSION",
    "REPORT_FILE",
    "SCAN_FILE",
    "BankUse",
    "ControlMetrics",
    "Environment",
    "EpochMetrics",
    "GuardDecision",
    "GuardPoint",
    "ImagesDescription",
    "LabelsControlMetrics",
    "ModelDescription",
    "RunConfig",
    "RunFolder",
    "StepMetrics",
    "Thumbnail",
    "TransferMetrics",
    "Trial",
    "changed_images",
    "claim_scan_folder",
    "read_scan",
    "read_thumbnails",
    "validated",
    "write_scan",
    "write_thumbnails",
]
