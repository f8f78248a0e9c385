"""The files of a scan: what is written is read, those of earlier versions too, and what does not fit is refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gainfinder.errors import RunFolderError
from gainfinder.results import SCAN_FILE, SCAN_PAIRS, claim_scan_folder, read_pairs, read_scan, write_scan

MEASURES = ("delta_acc_pp", "positive_flips", "negative_flips", "flip_entropy")


def scan(*values: float | None, **more: Any) -> dict[str, Any]:
    """A scan of two models, the measures of both pairs `values`."""
    sides = (("a", "b"), ("b", "a"))
    return {
        "models": [{"model": "a", "accuracy": 0.5}, {"model": "b", "accuracy": 0.75}],
        "pairs": [{"student": s, "teacher": t, **dict(zip(MEASURES, values, strict=True)), **more} for s, t in sides],
        "samples": 4,
        "data": "images",
        "asked": ["a", "b"],
    }


def test_pairs_are_a_table_beside_the_rest(tmp_path: Path) -> None:
    given = scan(25.0, 1 / 3, 0.0, None, area_sizes=(1, 2), area_similarity=(None, 0.1), mean_accuracy=None)
    write_scan(tmp_path, given)
    document = read_scan(tmp_path)
    assert {**document, "pairs": []} == {**json.loads(json.dumps(given)), "pairs": []}
    assert document["pairs"]["file"] == SCAN_PAIRS and document["pairs"]["rows"] == 2
    assert read_pairs(tmp_path, document).to_pylist() == json.loads(json.dumps(given["pairs"])), "to the last digit"
    frame = pq.read_table(tmp_path / SCAN_PAIRS)
    assert frame["positive_flips"].to_pylist() == [1 / 3, 1 / 3] and frame["student"].to_pylist() == ["a", "b"]


def test_pairs_in_the_document_of_an_earlier_version(tmp_path: Path) -> None:
    given = scan(25.0, 0.5, 0.25, 0.7)
    (tmp_path / SCAN_FILE).write_text(json.dumps(given))
    assert read_pairs(tmp_path, read_scan(tmp_path)).to_pylist() == given["pairs"]
    claim_scan_folder(tmp_path, models=["a", "b"], data="images")
    write_scan(tmp_path, given)
    assert read_pairs(tmp_path, read_scan(tmp_path)).to_pylist() == given["pairs"]


def test_pairs_of_another_scan_are_refused(tmp_path: Path) -> None:
    write_scan(tmp_path, scan(25.0, 0.5, 0.25, 0.7))
    document = (tmp_path / SCAN_FILE).read_text()
    write_scan(tmp_path, scan(25.0, 0.5, 0.25, 0.8))
    (tmp_path / SCAN_FILE).write_text(document)  # as a kill between the two leaves it
    with pytest.raises(RunFolderError, match=r"pairs.parquet: .*it is not of the scan in scan.json"):
        read_pairs(tmp_path, read_scan(tmp_path))
    (tmp_path / SCAN_PAIRS).unlink()
    with pytest.raises(RunFolderError, match=r"pairs.parquet: .*No such file"):
        read_pairs(tmp_path, read_scan(tmp_path))
    claim_scan_folder(tmp_path, models=["a", "b"], data="images")  # made anew, it is whole again
    write_scan(tmp_path, scan(25.0, 0.5, 0.25, 0.9))
    assert read_pairs(tmp_path, read_scan(tmp_path))["flip_entropy"].to_pylist() == [0.9, 0.9]


def test_what_a_kill_leaves_is_claimed_again(tmp_path: Path) -> None:
    write_scan(tmp_path, scan(25.0, 0.5, 0.25, 0.7))
    (tmp_path / SCAN_FILE).unlink()
    claim_scan_folder(tmp_path, models=["a", "b"], data="images")
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunFolderError, match="holds files but no scan"):
        claim_scan_folder(tmp_path, models=["a", "b"], data="images")
