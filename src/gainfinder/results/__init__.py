"""What a run leaves on disk: the form of its folder and files, read and written here alone.

In: a folder. Out: its configuration, rows, metrics, thumbnails, as typed records; those of earlier versions, too.
Knows no model and no image, so that reports can read all of it.
Imports: errors, references, files, config, predictions, metrics.
"""

from .config import Environment, ImagesDescription, ModelDescription, ModelOrigin, RunConfig
from .differences import ROLES, pixels_comparable
from .documents import require_folder, unreadable, validated, written_to
from .folder import CARD_FILE, DIRECTIONS, REPORT_FILE, TWO_WAY_FILE, RunFolder
from .heads import HEAD_FILE, HeadMetrics, TriedHead, read_head, write_head
from .listing import ListedResult, Listing, UnlistedResult, list_results
from .metrics import (
    FORMAT_VERSION,
    BankUse,
    Certificate,
    ControlMetrics,
    Divergence,
    EpochMetrics,
    GuardDecision,
    GuardPoint,
    LabelsControlMetrics,
    Record,
    StepMetrics,
    TransferMetrics,
    Trial,
)
from .other_images import OtherImages
from .partition import read_partition, write_partition
from .questions import NEITHER, SEED, Questions, outcomes, read_answers, read_questions, write_form
from .repetition import (
    Repetition,
    changed_since,
    check_comparable,
    compare_results,
    earlier_repetition,
    finished,
)
from .scan_folder import (
    RANKING_FILE,
    SCAN_FILE,
    SCAN_PAIRS,
    SCAN_PREDICTIONS,
    claim_ranking_folder,
    claim_scan_folder,
    read_pairs,
    read_ranking,
    read_scan,
    write_ranking,
    write_scan,
)
from .thumbnails import Content, Thumbnail, changed_samples, read_thumbnails, write_thumbnails
from .two_way import TwoWay, TwoWayFolder, refuse_two_way

__all__ = [
    "CARD_FILE",
    "DIRECTIONS",
    "FORMAT_VERSION",
    "HEAD_FILE",
    "NEITHER",
    "RANKING_FILE",
    "REPORT_FILE",
    "ROLES",
    "SCAN_FILE",
    "SCAN_PAIRS",
    "SCAN_PREDICTIONS",
    "SEED",
    "TWO_WAY_FILE",
    "BankUse",
    "Certificate",
    "Content",
    "ControlMetrics",
    "Divergence",
    "Environment",
    "EpochMetrics",
    "GuardDecision",
    "GuardPoint",
    "HeadMetrics",
    "ImagesDescription",
    "LabelsControlMetrics",
    "ListedResult",
    "Listing",
    "ModelDescription",
    "ModelOrigin",
    "OtherImages",
    "Questions",
    "Record",
    "Repetition",
    "RunConfig",
    "RunFolder",
    "StepMetrics",
    "Thumbnail",
    "TransferMetrics",
    "Trial",
    "TriedHead",
    "TwoWay",
    "TwoWayFolder",
    "UnlistedResult",
    "changed_samples",
    "changed_since",
    "check_comparable",
    "claim_ranking_folder",
    "claim_scan_folder",
    "compare_results",
    "earlier_repetition",
    "finished",
    "list_results",
    "outcomes",
    "pixels_comparable",
    "read_answers",
    "read_head",
    "read_pairs",
    "read_partition",
    "read_questions",
    "read_ranking",
    "read_scan",
    "read_thumbnails",
    "refuse_two_way",
    "require_folder",
    "unreadable",
    "validated",
    "write_form",
    "write_head",
    "write_partition",
    "write_ranking",
    "write_scan",
    "write_thumbnails",
    "written_to",
]
