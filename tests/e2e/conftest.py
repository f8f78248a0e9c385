"""What the end-to-end tests share."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

import gainfinder
import gainfinder.api
from engines import InProcess
from gainfinder.data.images import Images
from gainfinder.study import StudyFolder, read_study
from gainfinder.workers import run_study
from once import made_once
from studies import LONGER, write_study


@pytest.fixture(scope="module", autouse=True)
def frozen_garbage() -> Iterator[None]:
    """Each transfer ends with a garbage collection, which need not look through all of torch: half of a tiny run."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have tests of their own; here each would take longer than its transfer."""
    monkeypatch.setattr(gainfinder.api, "refresh_report", lambda folder: None)


@pytest.fixture(scope="module")
def val() -> Images:
    """A few images to measure on."""
    return gainfinder.load_images("digits#1/4").select(range(40))


@pytest.fixture(scope="session")
def undisturbed(zoo: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """The study of `LONGER`, run to its end without an interruption."""

    def run(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)  # a worker goes to the folder of its task
            study = read_study(write_study(folder / "small.toml", zoo), LONGER)
            run_study(study, folder / "out", backend=InProcess(), threads=1)

    return StudyFolder(made_once(tmp_path_factory, "undisturbed-study", run) / "out")
