"""The paper as studies: each file of `studies/` is run by its command, on tiny stand-ins of the same folder form."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import gainfinder.workers
from engines import InProcess
from gainfinder.cli import app
from gainfinder.study import StudyDocument, StudyFolder, read_study, study_cells, study_rows
from gainfinder.zoo import read_model_list

STUDIES = Path(__file__).parents[2] / "studies"
FILES = sorted(STUDIES.glob("*.toml"))
SMALL = ("settings.epochs=1", "settings.batch_size=16", "settings.device=cpu")
ONE_VALUE = {"lr": "[1e-3]", "temperature": "[1.0]", "slow_momentum": "[0.99]", "slow_every": "[2]"}


def folders(path: Path) -> None:
    """Class folders of digits, as ImageNet's are: a few images each."""
    images, labels = load_digits(return_X_y=True)
    for digit in range(10):
        folder = path / str(digit)
        folder.mkdir(parents=True)
        for number, row in enumerate(images[labels == digit][:6]):
            pixels = (row.reshape(8, 8) * 15).astype(np.uint8)
            Image.fromarray(pixels).convert("RGB").save(folder / f"{number}.png")


def stand_ins(study: StudyDocument, zoo: dict[str, str], root: Path) -> list[str]:
    """Overrides that put tiny models and images in place of the study's, where it looks for them."""
    for part in ("train", "val", "test"):
        folders(root / "images" / part)
    (root / "maps").mkdir()
    (root / "maps" / "infograph.json").write_text(json.dumps({str(digit): str(digit) for digit in range(10)}))
    names = list(
        dict.fromkeys([study.study.students[0], *(one for one in study.study.teachers if isinstance(one, str))])
    )
    kinds = [zoo["vit"], zoo["resnet"], zoo["convnext"]]
    found = [f"paths.{name}={root / name}" for name in study.paths]
    for number, name in enumerate(names):
        reference = study.models[name].reference
        if "{heads}" in reference:  # as fit-head leaves it
            shutil.copytree(kinds[number % 3].removeprefix("local-dir:"), root / "heads" / name / "student")
        else:
            found.append(f'models."{name}".reference={kinds[number % 3]}')
    return [*found, *(f"paths.{name}={root / 'images'}" for name in study.paths if name in ("imagenet", "images"))]


@pytest.mark.parametrize("file", [one for one in FILES if one.stem != "cifar"], ids=lambda path: path.stem)
def test_a_study_runs_on_stand_ins(
    file: Path, zoo: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gainfinder.workers, "make_backend", lambda *_, **__: InProcess())
    study = read_study(file)
    groups = [one for one in study.study.teachers if not isinstance(one, str)]
    single = [one for one in study.study.teachers if isinstance(one, str) and one != study.study.students[0]]
    overrides = [
        *stand_ins(study, zoo, tmp_path),
        *SMALL,
        f"study.students={json.dumps(study.study.students[:1])}",
        f"study.teachers={json.dumps([single[0], *groups])}",
        *(f"axes.{name}={ONE_VALUE[name]}" for name in study.axes if name in ONE_VALUE and len(study.axes) > 1),
    ]
    arguments = [part for one in overrides for part in ("--set", one)]
    out = tmp_path / "out"
    found = CliRunner().invoke(app, ["study", "run", str(file), "--out", str(out), *arguments])
    assert found.exit_code == 0, found.output
    cells = study_cells(read_study(file, overrides), out)
    rows = study_rows(StudyFolder(out))
    assert f"{len(cells)} cells done, 0 failed" in found.stdout and len(rows) == len(cells) >= 2
    assert all(row.transfer_delta_pp is not None for row in rows)
    assert {row.variant for row in rows} == set(study.variants or {"": {}})


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_a_study_says_where_its_data_is_from(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# ") and "Data" in text.split("[study]")[0]
    assert len(study_cells(read_study(file), Path("out"))) > 1


def test_the_list_of_models_is_one() -> None:
    assert len(read_model_list(STUDIES / "complementary-knowledge.txt")) == 30
