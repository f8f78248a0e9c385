"""The digest of encoded images tells every change of one, wherever they lie, and nothing else."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gainfinder.data import content_digest, is_encoded, load_images


def test_images_of_the_same_bytes_have_the_same_digest_wherever_they_lie(
    make_folder: Callable[..., Path], make_tar: Callable[..., Path], image_bytes: Callable[[str], bytes]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"a/{number}.png" for number in range(4)]
    folder = make_folder(names)
    table = pa.table({"image": [image_bytes(name) for name in names], "label": [0, 0, 0, 0]})
    pq.write_table(table, folder.parent / "photos.parquet")
    places = [folder, make_folder(names, at="elsewhere"), make_tar(names), folder.parent / "photos.parquet"]
    found = {content_digest(load_images(str(place))) for place in places}
    assert len(found) == 1 and None not in found


@pytest.mark.parametrize("change", ["a bit of one", "one more", "order", "turned", "one gone", "one is a pipe"])
def test_what_changes_pixels_changes_the_digest(make_folder: Callable[..., Path], change: str) -> None:
    folder = make_folder([f"a/{number:03}.png" for number in range(300)])
    images = load_images(str(folder))
    before, path = content_digest(images), folder / "a" / "150.png"
    if change == "a bit of one":
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        content = bytearray(path.read_bytes())
        content[-15] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=times)
    elif change == "one gone":
        path.unlink()
    elif change == "one is a pipe":
        path.unlink()
        os.mkfifo(path)
    elif change == "one more":
        (folder / "a" / "more.png").write_bytes(path.read_bytes())
        images = load_images(str(folder))
    elif change == "order":
        images = images.select([1, 0, *range(2, 300)])
    else:
        images = load_images(f"{folder}?orient=exif")
    assert content_digest(images) != before
    assert content_digest(images) == content_digest(images)


def test_a_selection_without_labels_is_of_its_own_images_alone(make_folder: Callable[..., Path]) -> None:
    folder = make_folder([f"{name}/{number}.png" for name in "ab" for number in range(3)])
    images = load_images(str(folder))
    some = content_digest(images.select([0, 2]).without_labels())
    (folder / "b" / "2.png").unlink()
    assert content_digest(images.select([0, 2])) == some != content_digest(images)


def test_pixels_in_memory_have_none() -> None:
    for source in ("digits", [Image.new("RGB", (3, 3))], [np.zeros((3, 3), np.uint8)]):
        images = load_images(source)
        assert content_digest(images) is None and not is_encoded(images)
