"""The demo, shortened: every stage runs, and it reports what it measured."""

import dataclasses
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import timm
from typer.testing import CliRunner

from gainfinder import demo
from gainfinder.cli import app


@pytest.fixture
def short_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "ZOO", tuple(dataclasses.replace(member, epochs=2) for member in demo.ZOO))
    monkeypatch.setattr(demo, "EPOCHS", 1)


@pytest.mark.usefixtures("short_demo")
def test_the_demo_from_zoo_to_figure(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = CliRunner().invoke(app, ["demo", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert len(document["scan"]["models"]) == 4 and len(document["scan"]["pairs"]) == 12
    student = max(document["scan"]["models"], key=lambda model: model["accuracy"])["model"]
    for method in ("kl-prod-cal-u", "kl"):
        metrics = document["transfers"][method]
        assert metrics == json.loads((out / method / "result.json").read_text())
        assert metrics["student"] == student and metrics["method"] == method
    assert (out / "figure.svg").read_text().startswith("<svg")
    assert pq.read_table(out / "figure-pairs.parquet").num_rows == 12
    assert pq.read_table(out / "figure-epochs.parquet").num_rows == 4
    architectures = {json.loads(path.read_text())["architecture"] for path in (out / "zoo").glob("*/config.json")}
    assert architectures == {"resnet18", "convnext_atto", "vit_tiny_patch16_224"}
    assert timm.create_model(f"local-dir:{out}/zoo/vit", pretrained=True).num_classes == 10

    again = CliRunner().invoke(app, ["demo", "--out", str(out)])  # goes on where it was: nothing is left to train
    assert again.exit_code == 0 and "Transfer without labels" in again.stdout


def test_the_demo_leaves_other_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert result.exit_code == 2 and "holds other files" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
