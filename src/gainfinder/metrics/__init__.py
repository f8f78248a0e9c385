"""Measures of predictions: flips, knowledge gain and loss, their intervals, and which candidate the guard keeps.

In: `Predictions`, predicted classes, logits. Out: numbers and frozen records. Pure: no file, network or model.
Imports: errors, references, partition, config, predictions.
"""

from . import calibration, evidence, flips, harm, information, selection
from .breakdown import (
    ClassKnowledge,
    GainAttribution,
    PartitionGroup,
    TeacherKnowledge,
    attribute_gains,
    by_class,
    by_partition,
    by_teacher,
)
from .calibration import calibrated_temperatures, class_temperatures
from .ceilings import Answers, Ceilings, captured, ceilings_of, cross_fitted_temperatures, measure_ceilings
from .ensembles import ChosenTeacher, choose_teachers
from .evidence import Evidence, assess, drawing_order
from .expertise import PERCENTS, Areas, areas_of_expertise, mean_similarity, semantic_similarity
from .flips import accuracy, compare, knowledge_gained, knowledge_lost
from .intervals import wilson_interval
from .pair_features import FEATURES, PairFeatures, measure_pair
from .pairs import CHOOSE, PredictedClasses, scan_predictions
from .posterior import crossed_classes, posterior_of
from .ranking import RankedTeacher, Ranking, rank_predictions
from .rule_scores import MeasuredTransfer, measure_rules
from .rules import FORMS, FittedRule, RuleScore, RuleTable, fit_rule
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
    "FEATURES",
    "FORMS",
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
    "FittedRule",
    "GainAttribution",
    "Interval",
    "Judgement",
    "MeasuredTransfer",
    "PairExpertise",
    "PairFeatures",
    "PartitionGroup",
    "PredictedClasses",
    "RankedTeacher",
    "Ranking",
    "RuleScore",
    "RuleTable",
    "Scan",
    "ScanFailure",
    "ScannedModel",
    "ScannedPair",
    "StandIns",
    "TeacherChoice",
    "TeacherKnowledge",
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
    "by_teacher",
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
    "fit_rule",
    "flips",
    "harm",
    "information",
    "judge",
    "knowledge_gained",
    "knowledge_lost",
    "mean_agreements",
    "mean_similarity",
    "measure_ceilings",
    "measure_pair",
    "measure_rules",
    "measure_stand_ins",
    "measure_transfer",
    "order_alike",
    "pooled_probs",
    "posterior_of",
    "rank_correlation",
    "rank_predictions",
    "scan_predictions",
    "selection",
    "semantic_similarity",
    "since_origin",
    "wilson_interval",
]
