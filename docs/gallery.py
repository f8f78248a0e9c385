"""Make the pages of `docs/gallery/` anew, but the two of CIFAR-10 models, whose commands stand in `docs/gallery.md`.

    python docs/gallery.py

It takes the demo, a transfer and a scan of the demo's models: two or three minutes. Each page is as the program writes
it; their folders are not kept. The study is that of `docs/results/`, whose page is made of its rows.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import gainfinder
from gainfinder.demo import run_demo
from gainfinder.report.drawing import Drawer
from gainfinder.report.study.report import study_page, study_section
from gainfinder.study import EpochRow, StudyRow, read_study

DOCS = Path(__file__).resolve().parent
GALLERY = DOCS / "gallery"
STUDY = DOCS.parent / "studies" / "cifar.toml"
ROWS = DOCS / "results"


def of_digits() -> dict[str, Path]:
    """Pages of the demo's models, by name, from the current folder."""
    demo = Path("gainfinder-demo")
    zoo = run_demo(demo).zoo
    images = gainfinder.load_images("digits#3/3").without_labels()
    gainfinder.scan(zoo, images, out="unlabelled")
    gainfinder.transfer(
        "local-dir:gainfinder-demo/zoo/vit",
        "local-dir:gainfinder-demo/zoo/resnet",
        "digits#2/6",
        guard_data="digits#3/3",
        val="digits#5/6",
        labels="none",
        epochs=8,
        lr=1e-3,
        out="asked",
    )
    return {
        "transfer-digits": demo / "kl-prod-cal-u" / "report.html",
        "scan-digits": demo / "scan" / "report.html",
        "scan-unlabelled": Path("unlabelled") / "report.html",
        "questions": gainfinder.ask("asked", labels=50),
    }


def of_study() -> str:
    """The page on the study of `docs/results/`."""
    rows = [StudyRow(**row) for row in _records(ROWS / "rows.parquet")]
    epochs = [EpochRow(**row) for row in _records(ROWS / "epochs.parquet")]
    section = study_section(read_study(STUDY), rows, epochs, rows_format="parquet")
    with Drawer() as drawer:
        return study_page(section, drawer=drawer)


def _records(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def main() -> None:
    """Make them all."""
    GALLERY.mkdir(exist_ok=True)
    (GALLERY / "study.html").write_text(of_study(), encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="gallery-") as folder:
        os.chdir(folder)
        for name, page in of_digits().items():
            shutil.copyfile(page, GALLERY / f"{name}.html")
        os.chdir(DOCS)


if __name__ == "__main__":
    main()
