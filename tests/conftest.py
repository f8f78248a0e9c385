"""How many processes run the tests, on how many threads, and a zoo of tiny trained models for all of them."""

import copy
import functools
import gc
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Of a run and of the processes it starts alike: they promise the same bits, and sums depend on the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from sklearn.datasets import load_digits

import gainfinder
from gainfinder.startup import keep_imports
from gainfinder.training import checkpoint
from once import made_once
from texts import ODD, text_file, tiny_text_model
from tiny_models import TRAIN_CLASSES, train_zoo

MOST_WORKERS = 8
GPU_FOLDERS = {"data", "e2e", "heads", "inference", "losses", "metrics", "models", "runs", "training", "views"}
"""Folders of tests that tell something about a machine with a GPU: `pytest -m gpu` runs them."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """A process for each core; none besides this one for tests that are named by file, which it would not pay for."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    folders = any(Path(argument).is_dir() for argument in config.args)
    return min(MOST_WORKERS, os.cpu_count() or 1) if folders else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of `GPU_FOLDERS`."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.path.relative_to(here).parts[0] in GPU_FOLDERS:
            item.add_marker("gpu")


def pytest_collection_finish(session: pytest.Session) -> None:
    """The modules and tests that are there now are never garbage: each search for it would go through them again."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        gc.collect()
        keep_imports()


@pytest.fixture(scope="session", autouse=True)
def files_that_no_power_cut_threatens() -> Iterator[None]:
    """To wait for the disk after each file is a tenth of a tiny run; processes that tests kill write as users' do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def checkpoints_that_are_written_at_each_epoch() -> Iterator[None]:
    """However slow the machine: what is killed goes on where a test says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "QUICK_S", math.inf)
        yield


@pytest.fixture(scope="session", autouse=True)
def digits_that_are_read_once() -> Iterator[None]:
    """Nearly every tiny run opens them, and scikit-learn reads them from text each time."""
    with pytest.MonkeyPatch.context() as patch:
        read = functools.cache(load_digits)
        patch.setattr("gainfinder.data.digits.load_digits", lambda: copy.deepcopy(read()))
        yield


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """References of three tiny classifiers of handwritten digits, each surer of some digits than of others."""
    folder = made_once(tmp_path_factory, "zoo", train_zoo)
    return {name: f"local-dir:{folder / name}" for name in TRAIN_CLASSES}


@pytest.fixture(scope="session")
def text_zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """References of two tiny classifiers of texts: `weak` does not know trees, and `good` all three classes."""
    folder = made_once(tmp_path_factory, "text-zoo", _fill_text_zoo)
    return {name: f"hf:{folder / name}" for name in ("weak", "good")}


def _fill_text_zoo(folder: Path) -> None:
    tiny_text_model(folder / "weak", knows=("birds", "fish"))
    tiny_text_model(folder / "good")


@pytest.fixture(scope="session")
def text_results(text_zoo: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Results on texts: `transfer` with guard and report; `pairs` of texts; `bare` measured without labels; `scan`.

    The data are called images, and some texts hold markup, another direction of writing, or lines.
    """
    folder = made_once(tmp_path_factory, "text-results", lambda folder: _fill_text_results(folder, text_zoo))
    return {path.name: path for path in folder.iterdir() if path.is_dir()}


def _fill_text_results(folder: Path, zoo: dict[str, str]) -> None:
    odd = ODD * 20
    files = {
        "data": text_file(folder / "train.csv", 60, labels=False),
        "val": text_file(folder / "images.csv", len(odd), first=1000, odd=odd),
        "bare": text_file(folder / "images-bare.csv", len(odd), first=1000, odd=odd, labels=False),
        "pairs": text_file(folder / "pairs.csv", 60, first=2000, pairs=True),
    }
    data, val, bare = (str(files[name]) for name in ("data", "val", "bare"))
    pairs = f"{files['pairs']}?text=first,second"
    run: dict[str, Any] = {"epochs": 6, "lr": 1e-2, "workers": 0, "device": "cpu", "labels": "none"}
    student, teacher = zoo["weak"], zoo["good"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gainfinder.api.refresh_report", lambda path: None)  # tests of pages write them
        gainfinder.transfer(student, teacher, data, val=val, guard_data=bare, out=folder / "transfer", **run)
        gainfinder.transfer(student, teacher, data, val=pairs, out=folder / "pairs", guard=False, **run)
        gainfinder.transfer(student, teacher, data, val=bare, out=folder / "bare", guard=False, **run)
        gainfinder.scan([student, teacher], val, device="cpu", workers=0, out=folder / "scan")
    gainfinder.write_report(folder / "transfer")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A folder that does not exist yet."""
    return tmp_path / "run"
