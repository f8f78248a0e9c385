"""How many processes run the tests, on how many threads, and a zoo of tiny trained models for all of them."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

# Of a run and of the processes it starts alike: they promise the same bits, and sums depend on the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from sklearn.datasets import load_digits
from timm.models import save_for_hf
from torch import nn

from once import made_once
from tiny_models import SIZE, tiny

MOST_WORKERS = 8
TRAIN_CLASSES = {"vit": range(10), "resnet": range(10), "convnext": (0, 1, 2, 3, 4, 5)}


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """A process for each core; none besides this one for tests that are named by file, which it would not pay for."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    folders = any(Path(argument).is_dir() for argument in config.args)
    return min(MOST_WORKERS, os.cpu_count() or 1) if folders else 0


@pytest.fixture(autouse=True)
def logger_as_it_was() -> Iterator[None]:
    """A command that is run in this process keeps notes to itself; the next test may want to read them."""
    logger = logging.getLogger("gainfinder")
    handlers, propagate = [*logger.handlers], logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """References of three tiny classifiers of handwritten digits, each surer of some digits than of others."""
    folder = made_once(tmp_path_factory, "zoo", _train_zoo)
    return {name: f"local-dir:{folder / name}" for name in TRAIN_CLASSES}


def _train_zoo(folder: Path) -> None:
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8).expand(-1, 3, -1, -1) / 16
    x = (nn.functional.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True) - 0.5) / 0.5
    y = torch.tensor(labels)
    with torch.random.fork_rng():
        for name, classes in TRAIN_CLASSES.items():
            torch.manual_seed(0)
            model = tiny(name)
            # A twentieth of the other digits: an area of expertise, not a gap.
            keep = torch.isin(y, torch.tensor(list(classes))) | (torch.arange(len(y)) % 20 == 0)
            _fit(model, x[keep], y[keep])
            save_for_hf(model, str(folder / name), safe_serialization=True)


def _fit(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(4):
        for batch in torch.randperm(len(y)).split(64):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A folder that does not exist yet."""
    return tmp_path / "run"
