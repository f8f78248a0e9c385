"""Vector files of a scan: Figs. 1a, 1b, 2a, 2b and the matrix, of few models and of many."""

import base64
import io
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gainfinder.report import write_report
from gainfinder.report.drawing import Drawer
from gainfinder.report.zoo_charts import MOST_DOTS, area_rows, areas, class_flip_rows, class_flips
from gainfinder.report.zoo_pairs import ZooPairs, zoo_pairs
from gainfinder.results import read_pairs, read_scan
from made_up_zoo import made_up_zoo

DOTS = ("knowledge", "entropy", "entropy-by-flips")


def read(folder: Path) -> tuple[dict[str, Any], ZooPairs]:
    document = read_scan(folder)
    return document, zoo_pairs(document, read_pairs(folder, document))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan of more pairs than are drawn as dots, with its report."""
    folder = made_up_zoo(tmp_path_factory.mktemp("large"), families=[20, 20, 15])
    write_report(folder, pdf=True)
    return folder


def test_a_dot_a_pair_of_few_models(tmp_path: Path) -> None:
    write_report(made_up_zoo(tmp_path, families=[3, 4]))
    pairs = pq.read_table(tmp_path / "pairs.parquet").to_pylist()
    for name, (x, y) in zip(
        DOTS,
        (("delta_acc_pp", "positive_flips"), ("delta_acc_pp", "flip_entropy"), ("positive_flips", "flip_entropy")),
        strict=True,
    ):
        rows = pq.read_table(tmp_path / f"figures/{name}-rows.parquet").to_pylist()
        assert {(row["student"], row["teacher"], row[x], row[y]) for row in rows} == {
            (pair["student"], pair["teacher"], pair[x], pair[y]) for pair in pairs if pair[y] is not None
        }
        assert (tmp_path / f"figures/{name}.svg").read_text().count(" teaches ") == len(rows)


def test_many_pairs_are_counted_in_cells_none_left_out(large: Path) -> None:
    _, zoo = read(large)
    assert len(zoo.flat("positive_flips")) == 2970 > MOST_DOTS
    for name, (x, y) in zip(
        DOTS,
        (("delta_acc_pp", "positive_flips"), ("delta_acc_pp", "flip_entropy"), ("positive_flips", "flip_entropy")),
        strict=True,
    ):
        rows = pq.read_table(large / f"figures/{name}-rows.parquet").to_pylist()
        across, up = zoo.flat(x), zoo.flat(y)
        assert sum(row["pairs"] for row in rows) == np.count_nonzero(~np.isnan(up))
        row = max(rows, key=lambda row: row["pairs"])
        inside = (
            (row[f"{x}_from"] <= across) & (across < row[f"{x}_to"]) & (row[f"{y}_from"] <= up) & (up < row[f"{y}_to"])
        )
        assert row["pairs"] == np.count_nonzero(inside)
        assert (large / f"figures/{name}.svg").stat().st_size < 1_000_000
        assert (large / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_matrix_of_many_models_is_a_pixel_a_pair(large: Path) -> None:
    _, zoo = read(large)
    found = re.search(r"data:image/png;base64,([^\"]+)", (large / "figures/matrix.svg").read_text())
    assert found is not None
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("L"), dtype=float)[1::3, 1::3]
    order = list(zoo.alike())
    flips = zoo.values["positive_flips"][np.ix_(order, order)]
    off_diagonal = ~np.eye(len(order), dtype=bool)
    darkest = pixels[off_diagonal].argmin()
    assert flips[off_diagonal][darkest] == pytest.approx(np.nanmax(flips), rel=0.02)
    assert np.corrcoef(pixels[off_diagonal], flips[off_diagonal])[0, 1] < -0.95, "the more flips the darker"
    families = [zoo.names[place].rsplit("-", 1)[0] for place in order]
    assert sum(one != other for one, other in pairwise(families)) == 2


def test_class_flips_are_shares_in_falling_order(tmp_path: Path) -> None:
    document, zoo = read(made_up_zoo(tmp_path, families=[3, 4]))
    rows = class_flip_rows(document)
    kinds = {pair["kind"] for pair in document["expertise"]["pairs"]}
    assert kinds == {"weak", "equal", "strong"} and len(rows) == 18
    for kind in kinds:
        own = [row for row in rows if row["kind"] == kind]
        shares = [row["flips"] / row["samples"] for row in own]
        assert [row["share"] for row in own] == shares == sorted(shares, reverse=True)
        assert [row["rank"] for row in own] == [1, 2, 3, 4, 5, 6]
        s, t = (zoo.references.index(own[0][side]) for side in ("student", "teacher"))
        flips = sum(row["flips"] for row in own) / document["samples"]
        assert flips == pytest.approx(zoo.values["positive_flips"][s, t])
    assert class_flips({**document, "expertise": None}) is None
    assert class_flips({key: value for key, value in document.items() if key != "expertise"}) is None


def test_areas_are_drawn_where_there_is_a_similarity(tmp_path: Path) -> None:
    document, _ = read(made_up_zoo(tmp_path, families=[3, 4]))
    assert areas(document) is None, "no embeddings"
    for number, area in enumerate(document["expertise"]["areas"]):
        if number:  # the smallest has one class
            area |= {"similar_pairs": 40, "mean_similarity": 0.1 * number, "std_similarity": 0.05}
    pair = document["expertise"]["pairs"][0]
    pair["areas"][2] |= {"similarity": -0.25, "size": 3}
    rows = area_rows(document)
    means = [row for row in rows if row["line"] == "mean of all pairs"]
    assert [(row["share"], row["similarity"]) for row in means] == [
        ("5 %", 0.1), ("10 %", 0.2), ("20 %", pytest.approx(0.3)), ("50 %", 0.4)
    ]  # fmt: skip
    assert [row["high"] - row["low"] for row in means] == pytest.approx([0.1] * 4)
    assert [(row["line"], row["share"], row["similarity"]) for row in rows if row not in means] == [
        (f"{pair['kind']} teacher", "10 %", -0.25)
    ]
    figure = areas(document)
    assert figure is not None
    with Drawer() as drawer:
        assert "3 classes with 10 % of the flips, -25.0%" in (drawer.svg(figure) or "")
