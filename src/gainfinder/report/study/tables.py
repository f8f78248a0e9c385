"""All tables of a data set."""

from collections.abc import Callable

from .cells import Omitted
from .grouping import Results
from .method_tables import comparison_table, methods_table, own_copy_table, published_table, same_students_table
from .paper_tables import examples_table, flips_table, labels_table, pair_tables, student_table
from .strategy_tables import partition_strategies_table, vanilla_strategies_table
from .table import StudyTable


def study_tables(results: Results) -> list[StudyTable | Omitted]:
    """All tables of a data set, in the order of the report."""
    makers: tuple[Callable[[Results], StudyTable | Omitted], ...] = (
        methods_table, comparison_table, student_table, published_table, same_students_table, examples_table,
        labels_table, partition_strategies_table,
    )  # fmt: skip
    return [
        *(make(results) for make in makers),
        *pair_tables(results),
        flips_table(results),
        vanilla_strategies_table(results),
        *([own] if (own := own_copy_table(results)) is not None else []),
    ]
