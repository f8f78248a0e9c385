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
from .flips import accuracy, compare, knowledge_gained, knowledge_lost
from .intervals import wilson_interval
from .pairs import (
    CHOOSE,
    PredictedClasses,
    Scan,
    ScanFailure,
    ScannedModel,
    ScannedPair,
    TeacherChoice,
    scan_predictions,
)
from .posterior import crossed_classes, posterior_of
from .selection import ALPHAS, Candidate, Judgement, choose, judge
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
from .zoo_flips import ZooFlips, compare_zoo

__all__ = [
    "ALPHAS",
    "CHOOSE",
    "AccuracyChange",
    "Answers",
    "Candidate",
    "Ceilings",
    "ChosenTeacher",
    "ClassKnowledge",
    "Evidence",
    "GainAttribution",
    "Interval",
    "Judgement",
    "PartitionGroup",
    "PredictedClasses",
    "Scan",
    "ScanFailure",
    "ScannedModel",
    "ScannedPair",
    "TeacherChoice",
    "TransferMeasures",
    "ZooFlips",
    "accuracy",
    "accuracy_change",
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
    "measure_ceilings",
    "measure_transfer",
    "posterior_of",
    "scan_predictions",
    "selection",
    "since_origin",
    "wilson_interval",
]
