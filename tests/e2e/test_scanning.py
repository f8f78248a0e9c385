"""Scans of a zoo: predictions are made once, a stopped scan goes on, and a model that fails is left out."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from typer.testing import CliRunner

import gainfinder
from gainfinder.cli import app
from gainfinder.errors import BadReference, DataError, ModelError, RunFolderError, SettingsError
from gainfinder.metrics import Scan
from gainfinder.models import Classifier
from gainfinder.report import write_report
from gainfinder.zoo import read_model_list, timm_models
from gainfinder.zoo.sources import load_ahead

RUNNER = CliRunner()
DATA = "digits#1/4"


class Runs:
    """Which models were run; `scan` goes on as long as `most` allows."""

    def __init__(self, most: int = 99) -> None:
        self.names: list[str] = []
        self.most = most

    def __call__(self, name: str, images: int) -> Callable[[int], None]:
        if len(self.names) == self.most:
            raise KeyboardInterrupt
        self.names.append(name)
        return lambda count: None


def scanned(models: Any, out: Path | None = None, runs: Runs | None = None) -> Scan:
    return gainfinder.scan(models, DATA, device="cpu", workers=0, out=out, on_model=runs)


def rounded(scan: Scan) -> Scan:
    """Estimates are sums of floats, in any order of the models, of probabilities that a file may have rounded."""
    models = tuple(replace(one, estimated_accuracy=round(one.estimated_accuracy, 5)) for one in scan.models)
    pairs = tuple(
        replace(
            one,
            estimated_positive_flips=round(one.estimated_positive_flips, 5),
            estimated_delta_acc_pp=round(one.estimated_delta_acc_pp, 3),
        )
        for one in scan.pairs
    )
    return replace(scan, models=models, pairs=pairs, tracking=())


def document(folder: Path) -> Any:
    found: dict[str, Any] = json.loads((folder / "scan.json").read_text())
    del found["environment"]
    return found


@pytest.mark.parametrize("whole", [True, False])
def test_a_scan_that_was_stopped_goes_on_where_it_was(
    zoo: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    if not whole:
        monkeypatch.setattr("gainfinder.zoo.scan.LOGITS_BYTES", 1)
    models, folder, runs = list(zoo.values()), tmp_path / "stopped", Runs()
    undisturbed = scanned(models, tmp_path / "whole")
    assert rounded(undisturbed) == rounded(scanned(models))
    with pytest.raises(KeyboardInterrupt):
        scanned(models, folder, Runs(most=2))
    assert not (folder / "scan.json").exists() and len(list((folder / "predictions").iterdir())) == 2
    assert scanned(models, folder, runs) == undisturbed and runs.names == models[2:]
    assert document(folder) == document(tmp_path / "whole")
    assert all(one.mean_accuracy is None for one in undisturbed.models) is not whole


def test_models_may_come_and_none_may_go_unsaid(zoo: dict[str, str], tmp_path: Path) -> None:
    *some, last = zoo.values()
    scanned(some, tmp_path)
    runs = Runs()
    found = scanned([last, *some], tmp_path, runs)
    assert runs.names == [last] and len(found.models) == 3
    with pytest.raises(RunFolderError, match="holds a scan of 3 models, of which 1 are not asked for now"):
        scanned(some, tmp_path)
    with pytest.raises(RunFolderError, match=r"holds a scan on digits#1/4, not digits#2/4"):
        gainfinder.scan([last, *some], "digits#2/4", device="cpu", workers=0, out=tmp_path)
    assert len(document(tmp_path)["models"]) == 3


def test_other_weights_or_preprocessing_are_predicted_anew_and_a_damaged_file_too(
    zoo: dict[str, str], tmp_path: Path
) -> None:
    vit, out = gainfinder.load_model(zoo["vit"]), tmp_path / "scan"
    models = [zoo["resnet"], vit]
    before = scanned(models, out)
    with torch.no_grad():
        vit.module.get_classifier().bias.add_(torch.linspace(-2, 2, 10))
    after = scanned(models, out, runs := Runs())
    assert runs.names == [zoo["vit"]] and after.models[1].accuracy != before.models[1].accuracy
    scanned([*models, f"{zoo['vit']}?mean=0.4"], out, runs := Runs())
    assert runs.names == [f"{zoo['vit']}?mean=0.4"]
    for kept in (out / "predictions").iterdir():  # the two of the vit as it was among them
        kept.write_bytes(kept.read_bytes()[:-40])
    scanned([*models, f"{zoo['vit']}?mean=0.4"], out, runs := Runs())
    assert len(runs.names) == 3


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of order")


def broken(zoo: dict[str, str]) -> Classifier:
    return replace(gainfinder.load_model(zoo["vit"]), module=Broken(), reference="broken")


def test_a_model_that_fails_is_left_out(zoo: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = f"local-dir:{tmp_path / 'gone'}"
    found = scanned([gone, zoo["vit"], broken(zoo), zoo["resnet"]], tmp_path / "scan")
    assert [one.model for one in found.models] == [zoo["vit"], zoo["resnet"]]
    assert found.models == scanned([zoo["vit"], zoo["resnet"]]).models
    assert [one.model for one in found.failed] == [gone, "broken"]
    assert "out of order" in found.failed[1].reason and caplog.text.count("left out: ") == 2
    assert [one["model"] for one in document(tmp_path / "scan")["failed_models"]] == [gone, "broken"]
    with pytest.raises(ModelError, match=r"1 of 2 could be run: .*out of order"):
        scanned([broken(zoo), zoo["vit"]])


def test_a_folder_of_predictions_is_enough(zoo: dict[str, str], tmp_path: Path) -> None:
    whole = scanned(list(zoo.values()), tmp_path / "scan")
    found = gainfinder.scan(tmp_path / "scan" / "predictions")
    found, whole = rounded(found), rounded(whole)
    assert {one.model: one for one in found.models} == {one.model: one for one in whole.models}
    assert set(found.pairs) == set(whole.pairs) and found.samples == whole.samples
    written = tmp_path / "written"
    written.mkdir()
    for name, reference in zoo.items():  # in another order of the images, which does not matter
        images = gainfinder.load_images(DATA)
        order = range(len(images)) if name == "vit" else range(len(images) - 1, -1, -1)
        made = gainfinder.predict(reference, images.select(order), device="cpu", workers=0)
        made.write(written / f"{name}.parquet", top_k=3)
    first = gainfinder.scan(written)
    assert {(one.student, one.teacher, one.positive_flips) for one in first.pairs} == {
        (one.student, one.teacher, one.positive_flips) for one in whole.pairs
    }
    assert all(one.mean_accuracy is None for one in first.pairs)


def test_teachers_are_chosen_for_a_student(zoo: dict[str, str], tmp_path: Path) -> None:
    asked: dict[str, Any] = {"device": "cpu", "workers": 0, "student": zoo["vit"], "out": tmp_path / "scan"}
    found = gainfinder.scan(list(zoo.values()), DATA, **asked)
    assert found.student == zoo["vit"] and found.teachers
    pairs = {one.teacher: one.headroom_pp or 0.0 for one in found.pairs if one.student == zoo["vit"]}
    first = found.teachers[0]
    assert (first.teacher, first.headroom_pp) == (max(pairs, key=pairs.__getitem__), pytest.approx(max(pairs.values())))
    assert all(one.added_pp > 0 and one.teacher != zoo["vit"] for one in found.teachers)
    alone = gainfinder.scan(tmp_path / "scan" / "predictions", student=zoo["vit"], choose=1)
    assert [one.teacher for one in alone.teachers] == [first.teacher]
    base = ["scan", *(part for one in zoo.values() for part in ("--model", one)), "--data", DATA, "--workers", "0"]
    done = RUNNER.invoke(app, [*base, "--student", zoo["vit"], "--out", str(tmp_path / "scan")])
    assert done.exit_code == 0 and "Teachers for vit" in done.stdout, done.stderr
    write_report(tmp_path / "scan")
    assert f"<h2>Teachers for {zoo['vit']}</h2>" in (tmp_path / "scan/report.html").read_text()
    done = RUNNER.invoke(app, [*base, "--student", zoo["vit"] + "x"])
    assert done.exit_code == 2 and "which is none of the 3 models given; near matches: " in done.stderr


def test_without_labels_estimates_stand_in(zoo: dict[str, str], tmp_path: Path) -> None:
    labelled = gainfinder.load_images(DATA)
    bare = replace(labelled, labels=None, num_classes=None)
    models, asked = list(zoo.values()), {"device": "cpu", "workers": 0, "student": zoo["vit"]}
    found = gainfinder.scan(models, bare, out=tmp_path / "scan", **asked)  # type: ignore[arg-type]
    known = gainfinder.scan(models, labelled, **asked)  # type: ignore[arg-type]
    assert not found.labelled and found.expertise is None and all(one.accuracy is None for one in found.models)
    strongest = max(known.models, key=lambda model: model.accuracy or 0.0).model
    assert max(found.models, key=lambda model: model.estimated_accuracy).model == strongest
    assert found.teachers[0].teacher == known.teachers[0].teacher
    assert found.teachers[0].headroom_pp is None and (found.teachers[0].estimated_headroom_pp or 0) > 0
    assert rounded(gainfinder.scan(models, bare, out=tmp_path / "scan", **asked)) == rounded(found)  # type: ignore[arg-type]
    alone = gainfinder.scan(tmp_path / "scan" / "predictions", student=zoo["vit"])
    assert set(rounded(alone).pairs) == set(rounded(found).pairs)
    folder = str(tmp_path / "scan" / "predictions")
    done = RUNNER.invoke(app, ["scan", "--predictions", folder, "--student", zoo["vit"]])
    assert done.exit_code == 0 and "443 images without labels" in done.stdout, done.stderr
    assert "held to add most" in done.stdout
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"digit {c}" for c in range(10)))
    done = RUNNER.invoke(app, ["scan", "--predictions", folder, "--class-names", str(names)])
    assert done.exit_code == 2 and "--class-names is for areas of expertise, which need labels" in done.stderr


def test_areas_of_expertise_by_the_command(zoo: dict[str, str], tmp_path: Path) -> None:
    names, embeddings = tmp_path / "names.txt", tmp_path / "embeddings.csv"
    names.write_text("\n".join(f"digit {c}" for c in range(10)))
    embeddings.write_text("\n".join(f"digit {c},{c + 1},{10 - c}" for c in range(10)))
    base = ["scan", *(part for one in zoo.values() for part in ("--model", one)), "--data", DATA, "--workers", "0"]
    options = ["--class-names", str(names), "--class-embeddings", str(embeddings)]
    done = RUNNER.invoke(app, [*base, *options, "--json", "--out", str(tmp_path / "scan")])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)["expertise"]
    assert found["embeddings"] == str(embeddings) and found == document(tmp_path / "scan")["expertise"]
    assert all(one["name"] == f"digit {one['index']}" for pair in found["pairs"] for one in pair["classes"])
    assert found["areas"][-1]["mean_similarity"] is not None
    done = RUNNER.invoke(app, [*base, *options])
    assert "Areas of expertise" in done.stdout and "digit " in done.stdout and "rank correlation" in done.stdout
    for options, message in (
        (["--class-names", str(tmp_path / "none.txt")], "class names"),
        (["--class-embeddings", str(embeddings)], "no embedding of 10 of 10 classes, such as '0'"),
        (["--embed", "clip:ViT-B-32"], "unknown library 'clip'"),
        (["--class-embeddings", str(embeddings), "--embed", "open_clip:ViT-B-32/openai"], "give one of them"),
    ):
        done = RUNNER.invoke(app, [*base, *options])
        assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1 and message in done.stderr, done.stderr


def test_predictions_that_do_not_fit_together_are_refused(zoo: dict[str, str], tmp_path: Path) -> None:
    one = gainfinder.predict(zoo["vit"], DATA, device="cpu", workers=0)
    one.write(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"1 files of predictions .*expected two or more"):
        gainfinder.scan(tmp_path)
    assert one.target is not None and one.class_names is not None
    others = {
        r"b\.parquet has no labels, and .*a\.parquet has": replace(one, target=None),
        "are not of the same images": replace(one, ids=("another", *one.ids[1:])),
        "have other labels for the same images": replace(one, target=one.target.flip(0)),
        "has other classes than": replace(one, class_names=tuple(reversed(one.class_names))),
    }
    for message, other in others.items():
        other.write(tmp_path / "b.parquet")
        with pytest.raises(DataError, match=message):
            gainfinder.scan(tmp_path)
    (tmp_path / "b.parquet").write_text("no predictions")
    with pytest.raises(DataError, match="not a Parquet file"):
        gainfinder.scan(tmp_path)


def test_the_next_model_is_loaded_while_one_runs(zoo: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(source: str) -> Classifier:
        loaded.append(source)
        return gainfinder.load_model(source)

    monkeypatch.setattr("gainfinder.zoo.sources.load_copy", load)
    coming = load_ahead([zoo["vit"], zoo["resnet"], zoo["convnext"]])
    assert next(coming)[0] == zoo["vit"]
    coming.close()  # does not wait for more than the one under way
    assert loaded[:1] == [zoo["vit"]] and zoo["convnext"] not in loaded
    assert [source for source, _ in load_ahead([zoo["vit"], zoo["resnet"]])] == [zoo["vit"], zoo["resnet"]]


def test_models_by_a_file_and_by_timms_names(tmp_path: Path) -> None:
    path = tmp_path / "zoo.txt"
    path.write_text("\ufeff# small ones\nresnet18.a1_in1k\n\n  local-dir:zoo/vit?size=32  \n")
    assert read_model_list(path) == ["resnet18.a1_in1k", "local-dir:zoo/vit?size=32"]
    for content, message in (
        ("# none\n", "names no model"), ("a\nfolder:x\n", "line 2: unknown prefix"),
    ):  # fmt: skip
        path.write_text(content)
        with pytest.raises(BadReference, match=message):
            read_model_list(path)
    with pytest.raises(BadReference, match="cannot be read"):
        read_model_list(tmp_path / "none.txt")
    assert timm_models("resnet18*", limit=2) == timm.list_models("resnet18*", pretrained=True)[:2]
    with pytest.raises(BadReference, match="no pretrained model that matches 'resnat18'; near matches: resnet18"):
        timm_models("resnat18")


def test_the_command_takes_lists_and_patterns(zoo: dict[str, str], tmp_path: Path) -> None:
    listed = tmp_path / "zoo.txt"
    listed.write_text("\n".join([zoo["vit"], zoo["resnet"]]))
    base = ["scan", "--data", DATA, "--workers", "0", "--device", "cpu"]
    done = RUNNER.invoke(
        app, [*base, "--model", zoo["vit"], "--models", str(listed), "--model", "local-dir:/none", "--json"]
    )
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["model"] for one in found["models"]] == [zoo["vit"], zoo["resnet"]]
    assert [one["model"] for one in found["failed_models"]] == ["local-dir:/none"]
    done = RUNNER.invoke(app, [*base, "--models", str(listed), "--model", "local-dir:/none"])
    assert "Left out" in done.stdout and "local-dir:/none" in done.stdout
    for options, message in (
        ([*base, "--model", zoo["vit"], "--timm-limit", "2"], "--timm-limit is a setting of --timm"),
        ([*base, "--timm", "nosuchmodel*"], "timm has no pretrained model that matches"),
        (["scan", "--predictions", str(tmp_path), "--data", DATA], "--predictions are compared by themselves"),
        (["scan", "--predictions", str(tmp_path)], "0 files of predictions"),
        ([*base, "--models", str(tmp_path / "none")], "the list of models cannot be read"),
    ):
        done = RUNNER.invoke(app, options)
        assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert message in done.stderr
    with pytest.raises(SettingsError, match="takes neither `data` nor `out`"):
        gainfinder.scan(tmp_path, DATA)
    with pytest.raises(SettingsError, match="needs images"):
        gainfinder.scan([zoo["vit"], zoo["resnet"]])
