"""The forms of a table."""

from gainfinder.report.study.table import StudyTable, escape_latex, formatted, latex, markdown, number, words

TABLE = StudyTable(
    name="table-1",
    title="Δ_transf & more",
    columns=("student", "a|b"),
    rows=((words("resnet_50"), number(-0.301)), (words("all 100 %"), number(None))),
    notes=("ρ_pos #1.",),
    totals=1,
)


def test_markdown() -> None:
    assert markdown(TABLE).splitlines() == [
        "**Δ_transf & more**",
        "",
        "| student | a\\|b |",
        "| --- | ---: |",
        "| resnet_50 | -0.30 |",
        "| all 100 % | – |",
        "",
        "- ρ_pos #1.",
    ]


def test_latex_escapes_what_it_prints() -> None:
    text = latex(TABLE)
    assert r"\caption{$\Delta_{\mathrm{transf}}$ \& more}" in text
    assert "resnet\\_50 & $-$0.30 \\\\\n\\midrule\nall 100 \\% & -- \\\\\n\\bottomrule" in text
    assert r"$\rho_{\mathrm{pos}}$ \#1." in text
    assert r"\begin{tabular}{lr}" in text
    for letter in "&%$#_{}~^\\":
        assert escape_latex(letter) != letter
    assert escape_latex("1e-3, kl-dp ± 2") == r"1e-3, kl-dp $\pm$ 2"


def test_what_rounds_to_zero_has_no_minus() -> None:
    assert [formatted(one) for one in (-0.004, 0.004, -0.006)] == ["+0.00", "+0.00", "-0.01"]
    assert formatted(-0.0001, "{:.1%}") == "0.0%"
