"""Classes of a teacher or of a data set, matched to the classes of the student: by name, by position or by a file.

In: class names and counts. Out: an order of classes or a `LabelMap`. Knows no model and no image.
Imports: errors, references, files.
"""

from .label_map import LabelMap, MappedLogits
from .map_file import read_label_map
from .matching import TeacherMatch, align_teacher, map_teacher, match_classes
from .numbers import counts_from_one, number_doubt, numbering_doubt
from .order import natural_key, order_doubt

__all__ = [
    "LabelMap",
    "MappedLogits",
    "TeacherMatch",
    "align_teacher",
    "counts_from_one",
    "map_teacher",
    "match_classes",
    "natural_key",
    "number_doubt",
    "numbering_doubt",
    "order_doubt",
    "read_label_map",
]
