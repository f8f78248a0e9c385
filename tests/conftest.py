"""A zoo of tiny trained models, made once a session: nothing outside the repository is needed."""

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from timm.models import save_for_hf
from torch import nn

from tiny_models import SIZE, tiny

TRAIN_CLASSES = {"vit": range(10), "resnet": range(10), "convnext": (0, 1, 2, 3, 4, 5)}


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """References of three tiny classifiers of handwritten digits, each surer of some digits than of others."""
    folder = tmp_path_factory.mktemp("zoo")
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8).expand(-1, 3, -1, -1) / 16
    x = (nn.functional.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True) - 0.5) / 0.5
    y = torch.tensor(labels)
    references = {}
    with torch.random.fork_rng():
        for name, classes in TRAIN_CLASSES.items():
            torch.manual_seed(0)
            model = tiny(name)
            # A twentieth of the other digits: an area of expertise, not a gap.
            keep = torch.isin(y, torch.tensor(list(classes))) | (torch.arange(len(y)) % 20 == 0)
            _fit(model, x[keep], y[keep])
            save_for_hf(model, str(folder / name), safe_serialization=True)
            references[name] = f"local-dir:{folder / name}"
    return references


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
