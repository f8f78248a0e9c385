"""Arms and pairs of a study's rows."""

from gainfinder.report.study.grouping import group_rows
from made_studies import made_row


def test_arms_are_named_by_what_tells_them_apart() -> None:
    rows = [
        made_row("s", "a", 0.1, variant="x", method="kl", axes={"lr": "0.1", "epochs": "2"}),
        made_row("s", "a", 0.1, variant="x", method="kl", axes={"lr": "0.2", "epochs": "2"}),
        made_row("s", "a", 0.1, variant="x", method="kl-dp", axes={"lr": "0.2", "epochs": "2"}),
        made_row("s", "a", 0.1, variant="", method="kl-dp", supervised=True),
        made_row("s", "a", 0.1, variant="", method="kl-dp", supervised=False),
    ]
    names = [arm.name for arm in group_rows(rows)["data"].arms]
    assert names == ["x, lr 0.1", "x, lr 0.2, kl", "x, lr 0.2, kl-dp", "kl-dp, labels", "kl-dp, no labels"]


def test_arms_of_two_methods_are_matched_by_all_else() -> None:
    names = ("gentle-kl", "gentle-kl-dp", "fast-kl", "fast-kl-dp")
    rows = [made_row("s", "a", 0.1, variant=one, method=one.split("-", 1)[1]) for one in names]
    results = group_rows(rows)["data"]
    assert [(a.name, b.name) for a, b in results.matched("kl", "kl-dp")] == [names[:2], names[2:]]
    rows = [made_row("s", "a", 0.1, variant=v, method=m) for v, m in (("base", "kl"), ("ours", "kl-dp"))]
    assert [(a.name, b.name) for a, b in group_rows(rows)["data"].matched("kl", "kl-dp")] == [("base", "ours")]


def test_seeds_are_averaged_and_a_students_own_copy_stands_apart() -> None:
    rows = [made_row("s", "a", 0.1, seed=0), made_row("s", "a", 0.4, seed=1), made_row("s", "s", 0.2)]
    results = group_rows(rows)["data"]
    assert [pair.delta for pair in results.pairs] == [0.25]
    assert [pair.teacher for pair in results.own] == ["s"] and results.teachers == ("a",)


def test_cells_without_labels_have_no_value() -> None:
    row = made_row("s", "a", 0.1, transfer_delta_pp=None)
    pair = group_rows([row])["data"].pairs[0]
    assert (pair.delta, pair.state) == (None, "no labels")
