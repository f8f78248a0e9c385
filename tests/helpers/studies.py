"""Studies of tiny models, and what is compared of their results."""

import json
from pathlib import Path
from typing import Any

from gainfinder.study import CELL_FILE, Cell, StudyFolder
from transfers import OF_THE_RUN, State, weights

SMALL = """
[study]
students = ["vit", "resnet"]
teachers = ["convnext", "resnet"]

[paths]
zoo = "zoo"

[models]
vit = "local-dir:{zoo}/vit"
resnet = "local-dir:{zoo}/resnet"
convnext = "local-dir:{zoo}/convnext"

[data]
data = "digits#1/4"
val = "digits#5/16"

[settings]
preset = "gentle"
epochs = 2
limit = 64
batch_size = 32
device = "cpu"
guard = false

[variants.kl]
method = "kl"

[variants.dp]
method = "kl-dp-u"
"""
"""Six cells of four steps."""
LONGER = ('study.students=["vit"]', "settings.epochs=12")
"""Four cells of it, long enough to be interrupted."""


def write_study(path: Path, zoo: dict[str, str], text: str = SMALL) -> Path:
    """A study's file whose placeholder {zoo} is the folder of the tiny models."""
    folder = Path(zoo["vit"].removeprefix("local-dir:")).parent
    path.write_text(text.replace('zoo = "zoo"', f"zoo = {json.dumps(str(folder))}"), encoding="utf-8")
    return path


def result_of(folder: StudyFolder, cell: Cell) -> tuple[dict[str, Any], State]:
    """What has to be the same however often a study was killed: the measures, and the student's weights."""
    path = folder.run_folder(cell).path
    metrics = json.loads((path / "result.json").read_text(encoding="utf-8"))
    measures = json.loads((path / CELL_FILE).read_text(encoding="utf-8"))
    for name in (*OF_THE_RUN, "bank"):
        metrics.pop(name)
    for name in ("seconds", "trained", "host", "finished"):
        measures.pop(name)
    return {**metrics, "cell": measures}, weights(path)


def finish_cell(folder: StudyFolder, cell: Cell) -> None:
    """Leave what says that a cell is done, without a result."""
    path = folder.run_folder(cell).path
    path.mkdir(parents=True, exist_ok=True)
    (path / "result.json").write_text("{}", encoding="utf-8")
    folder.finish(cell, {})
    folder.end_progress(cell)
