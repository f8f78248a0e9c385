"""Tables over methods: all pairs of each, all comparisons, and the authors' own results beside them."""

import numpy as np

from .cells import MODELS, PP, SPREAD, Omitted, bounded, mean_of, measured, over_teachers, percent
from .grouping import Results, mean
from .overview import ArmSummary, Comparison, compare_arms, share_of, summarise
from .published_results import SOURCE, TEACHERS, PublishedStudent, published_of, same_student
from .table import NONE, StudyTable, TableCell, number, words


def methods_table(results: Results) -> StudyTable | Omitted:
    """Every method over all its pairs, the authors' numbers beside it (what Fig. 4a and 6 are of)."""
    summaries = summarise(results)
    if not summaries:
        return Omitted(label="Methods", reason="no cells with a single teacher")
    seeds = any(one.seed_spread_pp is not None for one in summaries)
    columns = ("method", "pairs", "success, all pairs", "success, median student", "mean Δ", "gain %", "loss %")
    theirs = ("authors: success, all pairs", "median student", "mean Δ", "gain %", "loss %")
    return StudyTable(
        name="methods",
        title="Methods over all pairs, beside the authors' (Fig. 4a, Fig. 6, Tables 1 and 7)",
        columns=(*columns, *(("Δ between seeds",) if seeds else ()), *theirs),
        rows=tuple(_method_row(one, seeds=seeds) for one in summaries),
        notes=(
            "Success: share of teachers with Δ_transf above 0. The median over students hides failures: the mean over "
            "all pairs stands beside it. " + MODELS + " Of the median: over students.",
            *(["Between seeds: standard deviation of a pair's Δ, pooled over pairs."] if seeds else []),
            SOURCE,
        ),
    )


def _method_row(one: ArmSummary, *, seeds: bool) -> tuple[TableCell, ...]:
    theirs = published_of(one.arm.method)
    ours = (
        words(one.arm.name),
        TableCell(one.success.counted, one.success.pairs),
        bounded(one.success.value, one.success.interval, "{:.0%}"),
        bounded(one.median_success, one.median_interval, "{:.0%}"),
        bounded(one.delta.value, one.delta.interval),
        number(percent(one.gain.value), "{:.2f}"),
        number(percent(one.loss.value), "{:.2f}"),
        *((number(one.seed_spread_pp, "{:.2f}"),) if seeds else ()),
    )
    if not theirs:
        return (*ours, *(words(NONE),) * 5)
    return (
        *ours,
        number(mean([s.success for s in theirs]), "{:.1%}"),
        number(float(np.median([s.success for s in theirs])), "{:.1%}"),
        number(mean([s.delta_pp for s in theirs])),
        number(mean([s.gain_pp for s in theirs]), "{:.2f}"),
        number(mean([s.loss_pp for s in theirs]), "{:.2f}"),
    )


def comparison_table(results: Results) -> StudyTable | Omitted:
    """All pairs of methods on the pairs that both have, adjusted for their number."""
    found = compare_arms(results)
    if not found:
        return Omitted(label="Comparison of methods", reason="no two methods with two pairs in common")
    return StudyTable(
        name="comparisons",
        title=f"Differences of mean Δ_transf between methods: {len(found)} paired comparisons",
        columns=("method", "less method", "pairs", "difference", "p, pairs", "p, students"),
        rows=tuple(_comparison_row(one) for one in sorted(found, key=lambda one: one.adjusted_pairs)),
        words=2,
        notes=(
            "Each row: Δ_transf of the first method less that of the second, on the pairs of student and teacher that "
            "both have. p: two-sided sign-flip permutation test of the mean difference (all flips of up to 13 units, "
            f"else 10,000), adjusted by Holm for {len(found)} comparisons, so that with all of them together a false "
            "difference appears with a probability of 5 % at most where p < 0.05 is believed.",
            "p, pairs takes pairs for independent and is about these models. p, students flips all pairs of a student "
            "together and is about students like these: of few students it cannot be small.",
            MODELS + " They are not adjusted.",
        ),
    )


def _comparison_row(one: Comparison) -> tuple[TableCell, ...]:
    return (
        words(one.first.name),
        words(one.second.name),
        TableCell(one.difference.counted, one.difference.pairs),
        bounded(one.difference.value, one.difference.interval),
        number(one.adjusted_pairs, "{:.3g}"),
        number(one.adjusted_students, "{:.3g}"),
    )


def published_table(results: Results) -> StudyTable | Omitted:
    """Table 1 as the authors' results give it, for the methods that the study has."""
    methods = [name for name in dict.fromkeys(arm.method for arm in results.arms) if published_of(name)]
    if not methods:
        return Omitted(label="The authors' Table 1", reason="no method that their results have")
    by = {(one.method, one.student): one for name in methods for one in published_of(name)}
    students = published_of(methods[0])
    return StudyTable(
        name="table-1-authors",
        title="The authors' results in the form of Table 1",
        columns=("student", "family", "parameters M", *methods),
        rows=(
            *(
                (
                    words(student.student),
                    words(student.family),
                    number(student.parameters_m, "{:.1f}"),
                    *(_published_cell(by[name, student.student]) for name in methods),
                )
                for student in students
            ),
            (
                words("all pairs"), words(""), words(""),
                *(number(mean([one.delta_pp for one in published_of(name)])) for name in methods),
            ),
            (
                words("success, all pairs"), words(""), words(""),
                *(number(mean([one.success for one in published_of(name)]), "{:.1%}") for name in methods),
            ),
        ),
        words=2,
        totals=2,
        notes=(f"{PP} Mean ± standard deviation over {TEACHERS} teachers (success rate).", SOURCE),
    )  # fmt: skip


def _published_cell(one: PublishedStudent) -> TableCell:
    return TableCell(f"{one.delta_pp:+.2f} ± {one.delta_spread_pp:.2f} ({one.success:.0%})", one.delta_pp)


def own_copy_table(results: Results) -> StudyTable | None:
    """What students learn from their own copies, a control: that is no teacher's. None without such cells."""
    if not results.own:
        return None
    arms = [arm for arm in results.arms if any(pair.arm == arm for pair in results.own)]
    by = {(pair.arm, pair.student): pair for pair in results.own}
    students = [name for name in results.students if any(pair.student == name for pair in results.own)]
    return StudyTable(
        name="own-copy",
        title="Control: transfer delta from a student's own copy",
        columns=("student", *(arm.name for arm in arms)),
        rows=tuple((words(name), *(measured(by.get((arm, name))) for arm in arms)) for name in students),
        notes=(f"{PP} Intervals in brackets: 95 %, over the {results.noun}s measured on.",),
    )


def same_students_table(results: Results) -> StudyTable | Omitted:
    """Students that are the authors' too, by name: ours beside theirs."""
    rows = []
    for student in results.students:
        for arm in results.arms:
            theirs = {one.student: one for one in published_of(arm.method)}.get(same_student(student) or "")
            ours = results.of(arm, student=student)
            if theirs is None or not ours:
                continue
            known = [pair.delta for pair in ours if pair.delta is not None]
            success = share_of(np.array([[float(one > 0) for one in known]]), planned=len(ours))
            rows.append(
                (
                    words(student), words(arm.name), over_teachers(ours), number(success.value, "{:.0%}"),
                    number(percent(mean_of(ours, "knowledge_gain")), "{:.2f}"),
                    number(percent(mean_of(ours, "knowledge_loss")), "{:.2f}"),
                    number(theirs.delta_pp), number(theirs.success, "{:.0%}"),
                    number(theirs.gain_pp, "{:.2f}"), number(theirs.loss_pp, "{:.2f}"),
                )
            )  # fmt: skip
    if not rows:
        return Omitted(
            label="The same students beside the authors'", reason="no student bears the name of one of theirs"
        )
    return StudyTable(
        name="same-students",
        title="Students that the authors have, too: this study beside theirs",
        columns=("student", "method", "mean Δ", "success", "gain %", "loss %", "authors: mean Δ", "success", "gain %",
                 "loss %"),
        rows=tuple(rows),
        words=2,
        notes=(f"{PP} {SPREAD}. The same by name; teachers may be others.", SOURCE),
    )  # fmt: skip
