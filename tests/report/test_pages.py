"""Pages and figures of real result folders: what a reader finds there, and what is refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import gainfinder
import gainfinder.report
from gainfinder.cli import app
from gainfinder.errors import RunFolderError
from gainfinder.predictions import Predictions
from gainfinder.report import write_report
from gainfinder.results import read_pairs, read_scan, read_thumbnails, write_scan
from gainfinder.runs.thumbnails import MOST

from .conftest import SETTINGS

KINDS = ("transfer", "guarded", "sequence", "soup", "unlabelled", "control", "scan", "scan-bare")


def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def text(folder: Path) -> str:
    """What a reader reads, in one line."""
    body = re.sub(r"<(style|script|svg).*?</\1>", " ", page(folder), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def whole(folder: Path) -> dict[str, Any]:
    """A scan with its pairs."""
    document = read_scan(folder)
    return {**document, "pairs": read_pairs(folder, document).to_pylist()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_result_folder_holds_a_page_that_asks_for_nothing(results: dict[str, Path], kind: str) -> None:
    found = page(results[kind])
    assert found.startswith("<!DOCTYPE html>")
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", found), "only data: addresses"
    # Namespaces are names, not addresses.
    assert set(re.findall(r"https?://[^\s\"'<]+", found)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "default-src 'none'" in found and "Undefined" not in found and "nan" not in text(results[kind]).lower()


def test_trials_and_what_they_chose_stand_in_a_table(results: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "tried"
    shutil.copytree(results["guarded"], folder)
    assert "on guard images" not in text(folder), "nothing was tried"
    told = json.loads((folder / "result.json").read_text())
    tried = [
        (1, "adamw", 1e-4, 3, 0.51234),
        (1, "adamw", 3e-3, 3, None),
        (2, "adamw", 1e-4, 6, 0.4),
        (2, "sgd", 0.1, 6, 0.5),
    ]
    names = ("round", "optimizer", "lr", "steps", "guard_loss")
    told |= {
        "optimizer": "adamw",
        "learning_rate": 1e-4,
        "trials": [dict(zip(names, one, strict=True)) for one in tried],
    }
    (folder / "result.json").write_text(json.dumps(told))
    write_report(folder)
    read = text(folder)
    assert "How it chose adamw at a rate of 0.0001: 4 trials" in read
    assert "1 adamw 0.0001 3 0.5123 1 adamw 0.003 3 not finite 2 adamw 0.0001 6 0.4000 2 sgd 0.1 6 0.5000" in read
    assert len(re.findall(r'<tr class="kept"><td>2</td><td>adamw</td>', page(folder))) == 1
    assert "optimizer adamw" in read and "lr 0.0001" in read and "weight_decay 0.05" in read, "not what stood by rule"


def test_a_transfer_tells_its_measures(results: dict[str, Path]) -> None:
    told = json.loads((results["transfer"] / "result.json").read_text())
    read = text(results["transfer"])
    low, high = told["transfer_delta_ci_pp"]
    assert "What convnext learned from vit" in read
    assert f"{told['transfer_delta_pp']:+.2f} pp" in read and f"{low:+.2f} to {high:+.2f}" in read
    for name in ("knowledge_gain", "knowledge_loss"):
        bounds = told[f"{name}_ci"]
        assert f"{told[name]:.2%}" in read and f"{bounds[0]:.2%} to {bounds[1]:.2%}" in read
    assert told["knowledge_gain_ci"][0] < told["knowledge_gain"] < told["knowledge_gain_ci"][1]
    assert f"{told['transfer_rate']:.0%} of the teacher" in read
    for question in ("larger than its noise", "What was learned", "What was lost", "mere adaptation", "try next"):
        assert question in read
    config = json.loads((results["transfer"] / "config.json").read_text())
    assert config["environment"]["torch"] in read and config["student"]["digest"] in read


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("transfer", {"measures", "epochs", "partition", "classes"}),
        ("sequence", {"measures", "epochs", "classes"}),
        ("soup", {"measures", "classes"}),
        ("unlabelled", set()),
        ("scan", {"matrix", "knowledge", "entropy", "entropy-by-flips", "class-flips"}),
        ("scan-bare", set()),
    ],
)
def test_figures_are_vector_files_with_their_rows(results: dict[str, Path], kind: str, names: set[str]) -> None:
    folder = results[kind] / "figures"
    assert {path.stem for path in folder.glob("*.svg")} == names
    for name in names:
        assert (folder / f"{name}.svg").read_text().startswith("<svg")
        rows = pq.read_table(folder / f"{name}-rows.parquet").to_pylist()
        marks = set(re.findall(r'aria-label="([^"]+)"', (folder / f"{name}.svg").read_text()))
        told = {row["about"].replace("&", "&amp;") for row in rows}
        assert told & marks, "marks say on hover what their rows say"


def test_rows_of_figures_agree_with_the_account(results: dict[str, Path]) -> None:
    folder = results["transfer"]
    told = json.loads((folder / "result.json").read_text())
    epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    classes = pq.read_table(folder / "figures/classes-rows.parquet").to_pylist()
    samples = told["samples"]
    assert sum(row["gained"] for row in classes) / samples == pytest.approx(told["knowledge_gain"])
    assert sum(row["lost"] for row in classes) / samples == pytest.approx(told["knowledge_loss"])
    assert sum(row["positive_flips"] for row in classes) / samples == pytest.approx(told["positive_flips"])
    rows = pq.read_table(folder / "figures/epochs-rows.parquet").to_pylist()
    gains = [row["share"] for row in rows if row["kind"] == "gained"]
    assert gains == [0.0, *(row["knowledge_gain"] for row in epochs)]
    partition = pq.read_table(folder / "figures/partition-rows.parquet").to_pylist()
    assert sum(row["count"] for row in partition) == samples
    flips = next(row for row in partition if row["right"] == "teacher")
    assert flips["samples"] / samples == pytest.approx(told["positive_flips"])


def test_a_sequence_is_told_by_step(results: dict[str, Path]) -> None:
    read = text(results["sequence"])
    assert "By step" in read
    for number in (1, 2):
        told = json.loads((results["sequence"] / f"steps/{number}/result.json").read_text())
        assert f"Step {number}: what it learned from" in read and f"{told['transfer_delta_pp']:+.2f}" in read
        assert (results["sequence"] / f"steps/{number}/report.html").exists()
    rows = pq.read_table(results["sequence"] / "figures/epochs-rows.parquet").to_pylist()
    assert [row["epoch"] for row in rows if row["kind"] == "lost"] == [0, 1, 2, 3, 4]
    steps = pq.read_table(results["sequence"] / "figures/epochs-steps.parquet").to_pylist()
    assert [row["epoch"] for row in steps] == [2, 4]


def test_a_guarded_transfer_shows_what_the_guard_tried(results: dict[str, Path]) -> None:
    guard = json.loads((results["guarded"] / "result.json").read_text())["guard"]
    read = text(results["guarded"])
    assert f"What the guard tried, on {guard['images']:,} images by their labels" in read
    for point in guard["points"]:
        assert f"accuracy, pp {point['gain']:+.2f} {point['error']:.2f} {point['sure_gain']:+.2f}" in read


def test_without_labels_nothing_is_claimed(results: dict[str, Path]) -> None:
    read = text(results["unlabelled"])
    told = json.loads((results["unlabelled"] / "result.json").read_text())
    assert f"{1 - told['agreement']:.1%} of the answers" in read and "no labels" in read
    assert "What was learned" not in read and "gained" not in read
    assert "Images it answers differently now" in read


def test_a_transfer_is_held_against_its_control(results: dict[str, Path]) -> None:
    control = json.loads((results["transfer"] / "result.json").read_text())["control"]
    low, high = control["beyond_ci_pp"]
    assert f"{control['beyond_pp']:+.2f} points from that one ({low:+.2f} to {high:+.2f})" in text(results["transfer"])
    rows = pq.read_table(results["transfer"] / "figures/measures-rows.parquet").to_pylist()
    assert {row["measure"]: row["value_pp"] for row in rows}["beyond control"] == control["beyond_pp"]
    assert "this is the control" in text(results["transfer"] / "control")


def test_a_page_tells_what_there_was_to_win(results: dict[str, Path]) -> None:
    told, read = json.loads((results["transfer"] / "result.json").read_text()), text(results["transfer"])
    for key in ("oracle_accuracy", "routed_accuracy", "mean_accuracy"):
        assert f"{told[key]:.2%}" in read
    assert told["headroom_pp"] > 0 and f"captured {told['headroom_captured']:.0%}" in read
    labels = told["control_labels"]
    assert f"the same recipe gives {labels['transfer_delta_pp']:+.2f} points" in read
    assert "What was there to win?" not in text(results["unlabelled"])
    of_labels = text(results["transfer"] / "control-labels")
    assert "What convnext learned from labels" in of_labels and "no teacher taught" in of_labels


def test_the_control_is_known_as_such(results: dict[str, Path]) -> None:
    read = text(results["control"])
    assert "this is the control" in read and "run the control" not in read


def test_a_scan_shows_models_and_pairs(results: dict[str, Path], zoo: dict[str, str]) -> None:
    document = whole(results["scan"])
    read = text(results["scan"])
    for model in document["models"]:
        assert f"{model['accuracy']:.2%}" in read and model["model"] in read
    for pair in document["pairs"]:
        assert f"{pair['positive_flips']:.2%} {pair['negative_flips']:.2%}" in read
        assert f"{pair['error_overlap']:.2%} {pair['error_consistency']:.3f}" in read
        shares = (pair["oracle_accuracy"], pair["routed_accuracy"], pair["mean_accuracy"])
        assert f"{' '.join(f'{share:.2%}' for share in shares)} {pair['headroom_pp']:+.2f}" in read
    assert len(document["pairs"]) == 6 == len(pq.read_table(results["scan"] / "figures/matrix-rows.parquet"))


def test_a_scan_shows_areas_of_expertise_and_how_well_stand_ins_do(results: dict[str, Path]) -> None:
    document, read = json.loads((results["scan"] / "scan.json").read_text()), text(results["scan"])
    for pair in document["expertise"]["pairs"]:
        assert f"{pair['delta_acc_pp']:+.2f} pp in accuracy" in read
        for area in pair["areas"]:
            names = ", ".join(one["name"] for one in pair["classes"][: area["size"]])
            assert f"{area['percent']} % {area['size']} {names}" in read
    for area in document["expertise"]["areas"]:
        assert f"{area['percent']} % {area['pairs']} {area['mean_size']:.1f}" in read
    for one in document["tracking"]:
        assert f"{'6 pairs' if one['students'] else '3 models'} {one['spearman']:.3f} {one['slope']:.2f}" in read


def test_areas_have_a_similarity_where_there_are_embeddings(results: dict[str, Path], tmp_path: Path) -> None:
    np.save(tmp_path / "embeddings.npy", np.random.default_rng(0).random((10, 4)))
    copy = shutil.copytree(results["scan"], tmp_path / "scan")
    found = gainfinder.scan(copy / "predictions", class_embeddings=tmp_path / "embeddings.npy").to_dict()
    write_scan(copy, {**whole(copy), **found})
    write_report(copy)
    read, areas = text(copy), [area for pair in found["expertise"]["pairs"] for area in pair["areas"]]
    assert f"by {tmp_path / 'embeddings.npy'}" in read
    assert {area["similarity"] is None for area in areas} == {True, False}, "some have one"
    assert all((area["similarity"] is None) == (area["size"] < 2) for area in areas), "of two classes or more"
    for area in areas:
        alike = "–" if area["similarity"] is None else f"{100 * area['similarity']:+.1f} %"
        assert f"{area['percent']} % {area['size']} {alike} " in read


def test_a_scan_of_an_earlier_version_has_a_page(results: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(results["scan"], tmp_path / "scan")
    document = {key: value for key, value in whole(copy).items() if key not in {"expertise", "tracking", "labelled"}}
    of_then = ("student", "teacher", "delta_acc_pp", "positive_flips", "negative_flips", "flip_entropy")
    document["pairs"] = [{key: pair[key] for key in of_then} for pair in document["pairs"]]
    (copy / "pairs.parquet").unlink()
    (copy / "scan.json").write_text(json.dumps(document))
    write_report(copy)
    read = text(copy)
    assert "Areas of expertise" not in read.split("Who knows what")[0] and "either right" not in read
    for pair in whole(results["scan"])["pairs"]:
        assert f"{pair['error_overlap']:.2%} {pair['error_consistency']:.3f}" in read, "worked out"
    assert not (copy / "figures/class-flips.svg").exists()


def test_a_scan_without_labels_shows_estimates_alone(results: dict[str, Path]) -> None:
    document, read = whole(results["scan-bare"]), text(results["scan-bare"])
    assert document["labelled"] is False and "without labels: nobody knows who is right" in read
    for model in document["models"]:
        assert f"{model['estimated_accuracy']:.2%} {model['agreement']:.2%}" in read and model["accuracy"] is None
    for pair in document["pairs"]:
        shares = f"{pair['disagreement']:.2%} {pair['surer_disagreement']:.2%} {pair['kappa']:.3f}"
        estimates = f"{pair['estimated_delta_acc_pp']:+.2f} {pair['estimated_positive_flips']:.2%}"
        assert f"{shares} {estimates}" in read
    assert document["teachers"]
    for one in document["teachers"]:
        assert f"{one['estimated_headroom_pp']:+.2f} {one['estimated_added_pp']:+.2f}" in read


def test_thumbnails_are_of_images_that_changed(results: dict[str, Path]) -> None:
    folder = results["transfer"]
    before, after = (Predictions.load(folder / f"predictions/{name}.parquet") for name in ("before", "after"))
    assert before.target is not None
    was, now = before.predicted == before.target, after.predicted == before.target
    changed = {
        "gained": {before.ids[i] for i in (~was & now).nonzero().flatten().tolist()},
        "lost": {before.ids[i] for i in (was & ~now).nonzero().flatten().tolist()},
    }
    found = read_thumbnails(folder / "thumbnails.parquet")
    for kind, ids in changed.items():
        kept = [one.id for one in found if one.kind == kind]
        assert set(kept) <= ids and len(kept) == len(set(kept)) == min(MOST, len(ids)) > 0
    assert page(folder).count('<img src="data:image/png') == len(found)


def test_the_command_makes_it_again_from_the_folder_alone(results: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(results["transfer"], copy)
    (copy / "report.html").unlink()
    shutil.rmtree(copy / "student")
    done = CliRunner().invoke(app, ["report", str(copy), "--pdf"])
    assert done.exit_code == 0, done.stderr
    assert page(copy) == page(results["transfer"])
    assert (copy / "figures/classes.pdf").read_bytes().startswith(b"%PDF")
    bare = CliRunner().invoke(app, ["report", str(copy), "--no-images", "--json"])
    assert json.loads(bare.stdout) == {"report": str(copy / "report.html")}
    assert "<img" not in page(copy)


def test_what_is_no_result_is_refused_and_left_alone(results: dict[str, Path], tmp_path: Path) -> None:
    def refused(folder: Path) -> str:
        done = CliRunner().invoke(app, ["report", str(folder)])
        assert done.exit_code == 2 and done.stderr.count("\n") == 1 and not (folder / "report.html").exists()
        return done.stderr

    assert "there is no such folder" in refused(tmp_path / "nowhere")
    (tmp_path / "a").mkdir()
    assert "holds no result" in refused(tmp_path / "a")
    assert f"did you mean {results['control']}" in refused(results["transfer"].parent)
    copy = tmp_path / "copy"
    shutil.copytree(results["transfer"], copy)
    (copy / "report.html").unlink()
    (copy / "predictions/after.parquet").write_bytes(b"rubbish")
    assert "has been changed since" in refused(copy)
    (copy / "result.json").unlink()
    assert "not finished" in refused(copy)
    (copy / "config.json").write_text("{")
    assert "not as gainfinder wrote it" in refused(copy)


def test_a_scan_is_kept_where_nothing_is_lost(zoo: dict[str, str], results: dict[str, Path], tmp_path: Path) -> None:
    models, settings = list(zoo.values()), {"device": "cpu", "workers": 0}
    kept = shutil.copytree(results["scan"], tmp_path / "scan")
    gainfinder.scan(models, "digits#1/4", out=kept, **settings)  # type: ignore[arg-type]
    with pytest.raises(RunFolderError, match="holds a scan of 3 models, of which 1 are not asked for now"):
        gainfinder.scan(models[:2], "digits#1/4", out=kept, **settings)  # type: ignore[arg-type]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("precious")
    with pytest.raises(RunFolderError, match="holds files but no scan"):
        gainfinder.scan(models, "digits#1/4", out=other, **settings)  # type: ignore[arg-type]
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_a_report_that_fails_takes_no_result_away(
    zoo: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no room")

    asked = {"data": "digits#2/4", "val": "digits#1/4", "out": tmp_path / "run", **SETTINGS}
    monkeypatch.setattr(gainfinder.report, "write_text", broken)
    first = gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked)
    assert "could not be made (OSError: no room); `gainfinder report" in caplog.text
    assert json.loads((tmp_path / "run/result.json").read_text()) == first.account
    monkeypatch.undo()
    gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked)  # finished before: only the page is made
    assert "What convnext learned from vit" in page(tmp_path / "run")


def test_names_are_text_and_not_markup(results: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(results["transfer"], copy)
    for name in ("before", "after", "teacher-1"):
        path = copy / f"predictions/{name}.parquet"
        found = Predictions.load(path)
        object.__setattr__(found, "class_names", tuple(f"<b onclick=x>{c}&" for c in range(10)))
        found.write(path)
    write_report(copy)
    assert "<b onclick" not in page(copy) and "&lt;b onclick=x&gt;3&amp;" in page(copy)
