"""A finished transfer, made once, and a stand-in for the hub."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gainfinder
from gainfinder.data.images import Images
from hub_server import Hub, serving
from once import made_once
from transfers import SHORT


@pytest.fixture(scope="session")
def finished(zoo: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a transfer between models of timm, without a report; tests copy it."""
    return made_once(tmp_path_factory, "shared-result", lambda folder: _fill(folder, zoo)) / "better"


def _fill(folder: Path, zoo: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gainfinder.api.refresh_report", lambda path: None)
        val: Images = gainfinder.load_images("digits#1/4").select(range(64))
        gainfinder.transfer(
            zoo["convnext"], zoo["vit"], "digits#2/4", val=val, out=folder / "better", **{**SHORT, "lr": 1e-2}
        )


@pytest.fixture
def result(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(finished, tmp_path / "better"))


@pytest.fixture
def told(result: Path) -> Callable[..., None]:
    """Changes what the result says of itself."""

    def change(**values: Any) -> None:
        document = json.loads((result / "result.json").read_text())
        (result / "result.json").write_text(json.dumps({**document, **values}))

    return change


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with serving(tmp_path / "hub-cache") as found:
        yield found
