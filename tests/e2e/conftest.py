"""What the end-to-end tests share."""

import gc
from collections.abc import Iterator

import pytest

import gainfinder
import gainfinder.api
from gainfinder.data.images import Images


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
