"""Forms of questions go through a spreadsheet and back, whatever ids and classes are called."""

import csv
from pathlib import Path

import numpy as np

from gainfinder.metrics import Candidate
from gainfinder.results import Questions, read_answers, write_form

QUESTIONS = Questions(
    ids=("=1+1.png", "@b.png", "c.png"),
    classes=np.array([[0, 1], [1, 2], [2, 0]]),
    swapped=np.array([False, True, False]),
    class_names=("=cat", "'=cat", "-0.5"),
    others=frozenset({"+d.png"}),
    candidate=Candidate(alpha=1.0),
    reference="images",
    key="abc",
)


def test_a_form_has_no_formula_and_is_read_back(tmp_path: Path) -> None:
    write_form(tmp_path / "questions.csv", QUESTIONS, count=3)
    with (tmp_path / "questions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["'=1+1.png", "'@b.png", "c.png"]
    assert [(row["first"], row["second"]) for row in rows] == [
        ("'=cat", "''=cat"),
        ("-0.5", "''=cat"),
        ("-0.5", "'=cat"),
    ]
    with (tmp_path / "answers.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "answer": row["second"]} for row in rows)
    expected = {"=1+1.png": "'=cat", "@b.png": "'=cat", "c.png": "=cat"}
    assert read_answers(tmp_path / "answers.csv", QUESTIONS) == expected
    write_form(tmp_path / "answers.csv", QUESTIONS, count=3)
    assert read_answers(tmp_path / "answers.csv", QUESTIONS) == expected, "carried over into a new form"


def test_answers_of_other_programs_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,label\n=1+1.png,'=cat\n@b.png,=cat\n")
    assert read_answers(tmp_path / "a.csv", QUESTIONS) == {"=1+1.png": "'=cat", "@b.png": "=cat"}
