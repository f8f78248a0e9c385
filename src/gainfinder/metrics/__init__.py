"""Measures of predictions: flips, knowledge gain and loss, their intervals, and which candidate the guard keeps.

In: `Predictions`, predicted classes, logits. Out: numbers and frozen records. Pure: no file, network or model.
Imports: errors, partition, config, predictions.
"""

from . import calibration, evidence, flips, harm, information, selection
from .breakdown import ClassKnowledge, GainAttribution, PartitionGroup, attribute_gains, by_class, by_partition
from .calibration import calibrated_temperatures, class_temperatures
from .ceilings import Answers, Ceilings, captured, ceilings_of, cross_fitted_temperatures, measure_ceilings
from .ensembles import ChosenTeacher, choose_teachers
from .evidence import Evidence, assess, drawing_order
from .expertise import PERCENTS, Areas, areas_of_expertise, mean_similarity, semantic_similarity
from .flips import accuracy, compare, knowledge_gained, knowledge_lost
from .intervals import wilson_interval
from .pairs import CHOOSE, PredictedClasses, scan_predictions
from .posterior import crossed_classes, posterior_of
from .scanned import (
    Expertise,
    PairExpertise,
    Scan,
    ScanFailure,
    ScannedModel,
    ScannedPair,
    TeacherChoice,
    Tracking,
)
from .selection import ALPHAS, Candidate, Judgement, choose, judge
from .stand_ins import StandIns, measure_stand_ins, pooled_probs
from .tracking import rank_correlation
from .transfer import (
    AccuracyChange,
    Interval,
    TransferMeasures,
    accuracy_change,
    epoch_measures,
    estimated_strengths,
    mean_agreements,
    measure_transfer,
    since_origin,
)
from .zoo_expertise import ClassTexts
from .zoo_flips import ZooFlips, compare_zoo
from .zoo_order import order_alike

__all__ = [
    "ALPHAS",
    "CHOOSE",
    "PERCENTS",
    "AccuracyChange",
    "Answers",
    "Areas",
    "Candidate",
    "Ceilings",
    "ChosenTeacher",
    "ClassKnowledge",
    "ClassTexts",
    "Evidence",
    "Expertise",
    "GainAttribution",
    "Interval",
    "Judgement",
    "PairExpertise",
    "PartitionGroup",
    "PredictedClasses",
    "Scan",
    "ScanFailure",
    "ScannedModel",
    "ScannedPair",
    "StandIns",
    "TeacherChoice",
    "Tracking",
    "TransferMeasures",
    "ZooFlips",
    "accuracy",
    "accuracy_change",
    "areas_of_expertise",
    "assess",
    "attribute_gains",
    "by_class",
    "by_partition",
    "calibrated_temperatures",
    "calibration",
    "captured",
    "ceilings_of",
    "choose",
    "choose_teachers",
    "class_temperatures",
    "compare",
    "compare_zoo",
    "cross_fitted_temperatures",
    "crossed_classes",
    "drawing_order",
    "epoch_measures",
    "estimated_strengths",
    "evidence",
    "flips",
    "harm",
    "information",
    "judge",
    "knowledge_gained",
    "knowledge_lost",
    "mean_agreements",
    "mean_similarity",
    "measure_ceilings",
    "measure_stand_ins",
    "measure_transfer",
    "order_alike",
    "pooled_probs",
    "posterior_of",
    "rank_correlation",
    "scan_predictions",
    "selection",
    "semantic_similarity",
    "since_origin",
    "wilson_interval",
]
