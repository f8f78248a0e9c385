import importlib
import multiprocessing
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from gainfinder.data import Images, load_images
from gainfinder.data.dataset import samples_of_dataset
from gainfinder.data.loading import LoadedBatch, check_broken, load_batches
from gainfinder.errors import DataError, SettingsError


def to_tensor(index: int, image: Image.Image) -> Tensor:
    return pil_to_tensor(image)


def fail(index: int, image: Image.Image) -> Tensor:
    raise ZeroDivisionError("a bug in the transform")


@pytest.fixture
def images(make_tar: Callable[..., Path]) -> Images:
    """Nine images of an archive, of which the fifth is broken."""
    path = make_tar([f"{c}/{i}.png" for c in "abc" for i in range(3)])
    found = load_images(path)
    found.reader.sizes[4] = 20  # type: ignore[attr-defined]
    return found


def flat(batches: list[LoadedBatch]) -> list[Any]:
    return [
        (batch.positions.tolist(), None if batch.inputs is None else batch.inputs.tolist(), batch.broken)
        for batch in batches
    ]


def test_batches_come_in_order_without_broken_images(images: Images) -> None:
    batches = list(load_batches(images, to_tensor, batch_size=4))
    assert [batch.positions.tolist() for batch in batches] == [[0, 1, 2, 3], [5, 6, 7], [8]]
    assert batches[0].positions.dtype == torch.int64
    assert [len(batch.broken) for batch in batches] == [0, 1, 0]
    assert batches[1].broken[0].startswith(images.reader.where(4) + ": ")
    assert batches[1].inputs is not None
    assert batches[1].inputs.shape == (3, 3, 4, 5)
    assert batches[1].inputs[0].equal(pil_to_tensor(images.read(5)))


def test_indices_and_explicit_batches(images: Images) -> None:
    by_size = load_batches(images, to_tensor, batch_size=2, indices=np.array([8, 1, 4]))
    explicit = load_batches(images, to_tensor, batch_indices=[[8, 1], (4,)])
    assert [batch.positions.tolist() for batch in by_size] == [[8, 1], []]
    last = list(explicit)[-1]
    assert last.inputs is None
    assert len(last.positions) == 0
    assert len(last.broken) == 1
    assert list(load_batches(images, to_tensor, batch_size=2, indices=[])) == []


def test_positions_are_those_of_a_selection(images: Images) -> None:
    selected = images.select([8, 2])
    (batch,) = load_batches(selected, to_tensor, batch_size=4)
    assert batch.positions.tolist() == [0, 1]
    assert batch.inputs is not None
    assert batch.inputs[0].equal(pil_to_tensor(images.read(8)))


@pytest.fixture
def importable_transform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`to_tensor` in a module that spawned workers can import, which this file is not."""
    (tmp_path / "transform_of_test.py").write_text(
        "import numpy, torch\n\ndef to_tensor(index, image):\n    return torch.from_numpy(numpy.array(image))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("transform_of_test").to_tensor


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_equal_none(images: Images, start_method: Any, importable_transform: Any) -> None:
    alone = flat(list(load_batches(images, importable_transform, batch_size=2)))
    # The archive is open now, and forked workers must not share its handle.
    workers = 2 if start_method == "fork" else 1  # one spawned worker takes seconds to import torch
    together = load_batches(images, importable_transform, batch_size=2, workers=workers, start_method=start_method)
    assert flat(list(together)) == alone


@pytest.fixture(params=["folder", "parquet", "digits", "object"])
def source(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    make_folder: Callable[..., Path],
    image_bytes: Callable[[str], bytes],
) -> Any:
    if request.param == "folder":
        return make_folder()
    if request.param == "parquet":
        table = pa.table({"image": [image_bytes(f"{i}.png") for i in range(5)], "label": [0, 1, 2, 0, 1]})
        pq.write_table(table, tmp_path / "x.parquet")
        return tmp_path / "x.parquet"
    return "digits#1/99" if request.param == "digits" else [(torch.full((3, 2, 2), i / 10), i) for i in range(5)]


def test_every_reader_works_in_workers(source: Any) -> None:
    images = load_images(source)
    alone, together = (list(load_batches(images, to_tensor, batch_size=2, workers=workers)) for workers in (0, 2))
    assert len(alone) > 1
    assert flat(together) == flat(alone)
    assert all(batch.broken == () for batch in alone)


def test_global_random_state_is_untouched(images: Images) -> None:
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
    for workers in (0, 2):
        list(load_batches(images, to_tensor, batch_size=4, workers=workers))
    assert torch.get_rng_state().equal(before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # type: ignore[index]


def test_stopping_early_ends_the_workers(images: Images) -> None:
    batches = load_batches(images, to_tensor, batch_size=1, workers=2)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def test_there_are_no_more_workers_than_batches(images: Images) -> None:
    before = set(multiprocessing.active_children())
    batches = load_batches(images, to_tensor, batch_size=len(images) - 1, workers=5)
    next(batches)
    assert len(set(multiprocessing.active_children()) - before) == 2
    assert len(list(batches)) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_about_the_source_keep_their_one_line(workers: int) -> None:
    images = samples_of_dataset([torch.full((3, 2, 2), 5.0)], name="mine")
    with pytest.raises(DataError, match=r"^mine: item 0: .* looks normalised[^\n]*$"):
        list(load_batches(images, to_tensor, batch_size=1, workers=workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_the_transform_are_not_swallowed(images: Images, workers: int) -> None:
    with pytest.raises(ZeroDivisionError, match="a bug in the transform"):
        list(load_batches(images, fail, batch_size=1, workers=workers))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "batch size None is impossible"),
        ({"batch_size": 0}, "batch size 0 is impossible: expected 1 or more"),
        ({"batch_size": 2, "batch_indices": [[0]]}, "not both"),
        ({"indices": [0], "batch_indices": [[0]]}, "not both"),
        ({"batch_size": 2, "workers": -1}, "-1 workers are impossible"),
    ],
)
def test_settings_are_checked_at_once(images: Images, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_batches(images, to_tensor, **settings)


def test_too_many_broken_images() -> None:
    broken = [f"x/{i}.jpg: truncated" for i in range(5)]
    hundred = replace(load_images("digits").select(range(100)), reference="x")
    check_broken(broken, of=hundred, max_share=0.05)
    check_broken([], of=hundred, max_share=0)
    with pytest.raises(DataError) as caught:
        check_broken(broken, of=hundred, max_share=0.01)
    assert str(caught.value) == (
        "x: 5 of 100 images (5.00%) cannot be decoded, allowed are 1.00%: x/0.jpg: truncated; x/1.jpg: truncated; "
        "x/2.jpg: truncated and 2 more; repair or remove them, or raise `max_broken`"
    )


def test_an_image_that_cannot_be_resized_is_broken(images: Images) -> None:
    def enlarge(index: int, image: Image.Image) -> torch.Tensor:
        return pil_to_tensor(image.resize((2**31, 1)) if index == 1 else image)

    (batch,) = load_batches(images, enlarge, batch_size=3, indices=range(3))
    assert batch.positions.tolist() == [0, 2]
    assert batch.broken[0].startswith(f"{images.where(1)}: 5×4 pixels cannot be resized: ")
