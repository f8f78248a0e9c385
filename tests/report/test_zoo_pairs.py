"""The numbers of all pairs as a page has them: those of the scan, rounded as they are written, each in its place."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gainfinder.errors import RunFolderError
from gainfinder.report.zoo_pairs import MEASURES, first_pairs, page_data, zoo_pairs
from gainfinder.results import read_pairs, read_scan
from made_up_zoo import made_up_zoo


def read(folder: Path) -> tuple[dict[str, Any], Any]:
    document = read_scan(folder)
    return document, read_pairs(folder, document)


def test_columns_hold_what_the_scan_says_of_each_pair(tmp_path: Path) -> None:
    made_up_zoo(tmp_path, families=[2, 3])
    document, table = read(tmp_path)
    data = json.loads(page_data(zoo_pairs(document, table)))
    names = [model["reference"] for model in data["models"]]
    assert names == [model["model"] for model in document["models"]]
    place = {(s, t): i for i, (s, t) in enumerate((s, t) for s in names for t in names if s != t)}
    known = [measure for measure in MEASURES if measure.key != "mean_accuracy"]  # no logits were kept
    assert [measure["key"] for measure in data["measures"]] == [measure.key for measure in known]
    for measure, column in zip(known, data["measures"], strict=True):
        assert len(column["values"]) == 20
        for row in table.to_pylist():
            shown, value = column["values"][place[row["student"], row["teacher"]]], row[measure.key]
            if value is None:
                assert shown is None
            else:
                times = 100 if measure.form == "percent" else 1
                assert shown / 10 ** column["digits"] == pytest.approx(
                    times * value, abs=0.5001 / 10 ** column["digits"]
                )


def test_rows_in_any_order_are_the_same_pairs(tmp_path: Path) -> None:
    made_up_zoo(tmp_path, families=[2, 3])
    document, table = read(tmp_path)
    mixed = table.take(np.random.default_rng(0).permutation(len(table)))
    assert page_data(zoo_pairs(document, mixed)) == page_data(zoo_pairs(document, table))
    document["models"] = document["models"][1:]
    with pytest.raises(RunFolderError, match="pairs of 'family-0-0', which is none of its models"):
        zoo_pairs(document, table)


@pytest.mark.parametrize("samples", [8, 20_000, 31])
def test_numbers_are_rounded_as_they_are_written(samples: int) -> None:
    values = np.array([*(np.arange(-samples, samples + 1) / samples), np.nan])
    for measure in MEASURES:
        for value, shown in zip(values, measure.shown(values), strict=True):
            written = measure.text(float(value))
            if shown is None:
                assert np.isnan(value) and written == "–"
            else:
                digits = 3 if measure.form == "number" else 2
                assert f"{abs(shown) / 10**digits:.{digits}f}" == written.strip("+-%")
                assert shown == 0 or (shown < 0) == (value < 0)


def test_errors_in_common_of_earlier_versions_are_worked_out(tmp_path: Path) -> None:
    made_up_zoo(tmp_path, families=[2, 3, 1], perfect=True)
    document, table = read(tmp_path)
    whole, old = zoo_pairs(document, table), zoo_pairs(document, table.drop(["error_overlap", "error_consistency"]))
    off_diagonal = ~np.eye(len(whole.names), dtype=bool)
    for key in ("error_overlap", "error_consistency"):
        np.testing.assert_allclose(old.values[key][off_diagonal], whole.values[key][off_diagonal], atol=1e-12)
    assert np.isnan(whole.values["error_overlap"][off_diagonal]).any(), "two that err nowhere"


def test_the_table_begins_with_the_most_flips(tmp_path: Path) -> None:
    made_up_zoo(tmp_path, families=[2, 3])
    document, table = read(tmp_path)
    rows = first_pairs(zoo_pairs(document, table), most=7)
    flips = sorted((row["positive_flips"] for row in table.to_pylist()), reverse=True)
    assert [row[3] for row in rows] == [f"{share:.2%}" for share in flips[:7]]
