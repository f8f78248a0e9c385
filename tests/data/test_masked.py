"""Images with masks, whose cells have classes."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from gainfinder.data import Images, MaskedImages, in_cells, load_samples
from gainfinder.data.masked import centres
from gainfinder.errors import BadReference, DataError

MASK = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 255, 255], [2, 2, 255, 255]], dtype=np.uint8)


def folder(root: Path, masks: list[Any], *, size: tuple[int, int] = (4, 4)) -> Path:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number, mask in enumerate(masks):
        Image.new("RGB", size, (number, 0, 0)).save(root / "images" / f"{number}.jpg")
        (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(root / "masks" / f"{number}.png")
    return root


def loaded(source: Any, grid: int = 2) -> MaskedImages:
    found = load_samples(source)
    assert isinstance(found, MaskedImages)
    return found.on_grid(grid)


def encoded(pixels: NDArray[np.uint8] | Image.Image) -> bytes:
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, "PNG")
    return file.getvalue()


def test_a_cell_has_the_class_at_its_centre(tmp_path: Path) -> None:
    assert centres(4, 2).tolist() == [1, 3] and centres(5, 1).tolist() == [2] and centres(2, 4).tolist() == [0, 0, 1, 1]
    images = pickle.loads(pickle.dumps(loaded(folder(tmp_path / "a", [MASK, MASK.T]))))
    assert (images.noun, images.classified, images.ids) == ("image", "cell", ("0.jpg", "1.jpg"))
    assert (images.num_classes, images.numbers, images.class_names) == (3, (0, 1, 2), None)
    assert images.labels_of(np.array([0, 1])).tolist() == [[0, 1, 2, -1], [0, 2, 1, -1]]
    assert images.labels.tolist() == [images.labels_of(np.array([i]))[0, cell] for i, cell in enumerate(images.cells)]
    fine = images.on_grid(4)
    assert fine.labels_of(np.array([0])).reshape(4, 4).tolist() == np.where(MASK == 255, -1, MASK.astype(int)).tolist()
    assert images.read(1).size == (4, 4) and fine.digest() != images.digest()


def test_selections_and_other_orders_of_classes_go_along(tmp_path: Path) -> None:
    images = loaded(folder(tmp_path / "a", [MASK, MASK.T, MASK]))
    moved = images.reordered((2, 0, 1), class_names=("b", "c", "a"), num_classes=3).select([1])
    assert moved.labels_of(np.array([0])).tolist() == [[2, 1, 0, -1]]
    again = moved.on_grid(4).on_grid(2)
    assert again.labels_of(np.array([0])).tolist() == [[2, 1, 0, -1]] and again.labels.tolist() == moved.labels.tolist()
    bare = images.without_labels()
    assert bare.labels is None and bare.cells.tolist() == images.cells.tolist() and len(bare.on_grid(3).cells) == 3


def test_the_cell_that_is_measured_goes_by_the_id_alone(tmp_path: Path) -> None:
    full = np.zeros((4, 4), dtype=np.uint8)
    images = loaded(folder(tmp_path / "a", [full] * 40))
    backwards = images.select(range(39, -1, -1))
    assert backwards.cells.tolist() == images.cells.tolist()[::-1] and set(images.cells.tolist()) == {0, 1, 2, 3}
    plain = load_samples(tmp_path / "a", labels=False)
    assert type(plain) is Images and plain.ids == images.ids  # no mask is read
    assert in_cells(plain, 2).cells.tolist() == images.cells.tolist()


def test_classes_that_count_from_one(tmp_path: Path) -> None:
    images = loaded(f"{folder(tmp_path / 'a', [MASK])}?count_from=1")
    assert images.labels_of(np.array([0])).tolist() == [[-1, 0, 1, -1]] and images.num_classes == 2
    with pytest.raises(BadReference, match="count_from=2"):
        load_samples(f"{tmp_path}/a?count_from=2")


def test_a_palette_is_not_looked_up(tmp_path: Path) -> None:
    picture = Image.fromarray(MASK, "P")
    picture.putpalette([200, 10, 10] * 256)
    assert loaded(folder(tmp_path / "a", [picture])).labels_of(np.array([0])).tolist() == [[0, 1, 2, -1]]


def test_columns_of_masks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    columns = {
        "image": [encoded(np.zeros((4, 4, 3), dtype=np.uint8))],
        "annotation": [{"bytes": encoded(MASK), "path": "x.png"}],
        "scene": [2],
    }
    table = pa.table(columns).replace_schema_metadata({"classes": "sky,sea,land"})
    pq.write_table(table, tmp_path / "x.parquet")
    images = loaded(tmp_path / "x.parquet")
    assert images.class_names == ("sky", "sea", "land") and images.labels_of(np.array([0])).tolist() == [[0, 1, 2, -1]]
    assert "masks are read from the column 'annotation'; ?label=COLUMN names one of labels" in caplog.text
    assert load_samples(f"{tmp_path}/x.parquet?label=scene").classified == "image"
    pq.write_table(pa.table({**columns, "label": [1]}), tmp_path / "y.parquet")
    assert type(load_samples(tmp_path / "y.parquet")) is Images  # the label says what it is for
    assert loaded(f"{tmp_path}/y.parquet?mask=annotation").num_classes == 3
    with pytest.raises(DataError, match="labels of cells or of whole images"):
        load_samples(f"{tmp_path}/y.parquet?mask=annotation&label=label")
    with pytest.raises(DataError, match=r"column `scene` is of type int64.*\?mask=COLUMN"):
        load_samples(f"{tmp_path}/y.parquet?mask=scene")
    pq.write_table(table.replace_schema_metadata({"classes": "sky,sea"}), tmp_path / "z.parquet")
    with pytest.raises(DataError, match="row 0: the mask has the class 2, and the source names 2: expected 0 to 1"):
        load_samples(tmp_path / "z.parquet")


def test_a_hugging_face_data_set_with_masks(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    pictures = {"pixel_values": [Image.new("RGB", (4, 4))] * 2, "label": [Image.fromarray(MASK)] * 2}
    features = datasets.Features({"pixel_values": datasets.Image(), "label": datasets.Image()})
    datasets.Dataset.from_dict(pictures, features=features).save_to_disk(tmp_path / "a")
    images = loaded(f"hfds/{tmp_path}/a?split=train")
    assert images.labels_of(np.array([1])).tolist() == [[0, 1, 2, -1]]
    assert type(load_samples(f"hfds/{tmp_path}/a?split=train", labels=False)) is Images


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (MASK[:2], r"0\.png: the mask has 4×2 pixels and its image 4×4"),
        (np.stack([MASK] * 3, axis=-1), r"0\.png: the mask cannot be read: its pixels are RGB, expected one channel"),
        (np.full_like(MASK, 255), r"0\.png: the mask gives none of its cells a class \(all are 255\)"),
        (MASK.astype(np.uint16), r"0\.png: the mask cannot be read: its pixels are I;16"),
    ],
)
def test_masks_that_cannot_be_used(mask: NDArray[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_samples(folder(tmp_path / "a", [mask]))


def test_masks_that_are_missing_or_damaged(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", [MASK, MASK])
    (root / "masks" / "1.png").write_bytes(encoded(MASK)[:40])
    with pytest.raises(DataError, match=r"masks/1\.png: the mask cannot be read"):
        load_samples(root)
    (root / "masks" / "1.png").unlink()
    with pytest.raises(DataError, match=r"images/1\.jpg: there is no mask for it, expected masks/1\.png \(1 of 2"):
        load_samples(root)
    assert len(load_samples(root, labels=False)) == 2
    Image.fromarray(MASK).save(root / "masks" / "0.gif")
    with pytest.raises(DataError, match=r"images/0\.jpg: there are several masks for it \(0\.gif, 0\.png\)"):
        load_samples(root)
