import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision

from gainfinder.data import load_images
from gainfinder.errors import BadReference, BrokenSample, DataError, MissingExtra

MakeFolder = Callable[..., Path]


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_bytes: Callable[[str], bytes]) -> Path:
    """A local folder of Parquet with ClassLabel names, as a clone from the hub; the working folder lies above it."""
    import datasets

    datasets.disable_progress_bars()
    names = datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features(image=datasets.Image(), label=names, extra=datasets.Value("int64"))
    images = [{"bytes": image_bytes(f"{i}.png"), "path": None} for i in range(3)]
    images[1]["bytes"] = b"no image"
    table = datasets.Dataset.from_dict({"image": images, "label": [1, 0, 1], "extra": [5, 6, 7]}, features=features)
    (tmp_path / "hub").mkdir()
    for split in ("train", "test"):
        table.to_parquet(tmp_path / "hub" / f"{split}-00000-of-00001.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def test_hfds_reads_a_local_folder(hub_folder: Path) -> None:
    images = load_images("hfds/./hub?split=train&root=cache")
    images = pickle.loads(pickle.dumps(images))
    assert images.ids == ("train/0000000", "train/0000001", "train/0000002")
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [1, 0, 1]
    assert images.read(0).size == (5, 4)
    with pytest.raises(BrokenSample, match=r"hfds/\./hub\?split=train&root=cache: row 1: "):
        images.read(1)
    assert load_images(f"hfds/{hub_folder}?split=test[:2]&root=cache", labels=False).ids[0] == "test[:2]/0000000"


def test_hfds_reads_what_save_to_disk_wrote(hub_folder: Path) -> None:
    import datasets

    one = datasets.load_dataset("./hub", split="train", cache_dir="cache")
    one.save_to_disk("one")
    datasets.DatasetDict(train=one, test=one.select([0, 2])).save_to_disk("several")
    for reference, count in (("hfds/one?split=train", 3), ("hfds/several?split=test", 2)):
        images = pickle.loads(pickle.dumps(load_images(reference)))
        assert len(images) == count and images.class_names == ("cat", "dog") and images.read(0).size == (5, 4)
    for name in ("one", "several"):
        with pytest.raises(DataError, match="it has no split 'trian'; near matches: train; there are: train"):
            load_images(f"hfds/{name}?split=trian")


def test_hfds_keys(hub_folder: Path) -> None:
    base = "hfds/./hub?split=test&root=cache"
    images = load_images(f"{base}&target_key=extra")
    assert images.class_names is None
    assert images.labels is not None
    assert images.labels.tolist() == [5, 6, 7]
    with pytest.raises(DataError, match="no column 'lable'; near matches: label; its columns are image, label, extra"):
        load_images(f"{base}&target_key=lable")
    with pytest.raises(DataError, match=r"no column 'img'.*name one with input_key=COLUMN"):
        load_images(f"{base}&input_key=img")
    with pytest.raises(DataError, match="column 'extra' holds no images but"):
        load_images(f"{base}&input_key=extra")
    with pytest.raises(DataError, match=r"datasets cannot load it: .*check name and split") as caught:
        load_images("hfds/./hub?split=trian&root=cache")
    assert "\n" not in str(caught.value)


def test_hfds_finds_the_only_columns_of_images_and_classes(
    tmp_path: Path, image_bytes: Callable[[str], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    import datasets

    datasets.disable_progress_bars()
    names = datasets.ClassLabel(names=["cat", "dog"])
    features = {"img": datasets.Image(), "fine": names, "coarse": names, "extra": datasets.Value("int64")}
    columns = {
        "img": [{"bytes": image_bytes("1.png"), "path": None}] * 2,
        "fine": [1, 0],
        "coarse": [0, 0],
        "extra": [5, 6],
    }
    for left_out, said in (
        ("coarse", "labels are read from the column 'fine'"),
        ("", "not read: fine, coarse; ?target_key="),
    ):
        kept = [name for name in columns if name != left_out]
        table = datasets.Dataset.from_dict(
            {name: columns[name] for name in kept}, features=datasets.Features({name: features[name] for name in kept})
        )
        folder = tmp_path / f"without-{left_out}"
        folder.mkdir()
        table.to_parquet(folder / "train-00000-of-00001.parquet")
        caplog.clear()
        images = load_images(f"hfds/{folder}?split=train&root={tmp_path / 'cache'}&orient=exif")
        assert images.class_names == (("cat", "dog") if left_out else None) and images.read(0).size == (5, 4)
        assert "images are read from the column 'img'" in caplog.messages[0] and said in caplog.messages[1]


@pytest.mark.parametrize("name", ["x" * 5000, "~nosuchuser/x", "a\0b"])
def test_names_that_no_folder_can_have(name: str) -> None:
    with pytest.raises((BadReference, DataError)) as caught:
        load_images(f"hfds/{name}?split=train")
    assert "\n" not in str(caught.value)
    with pytest.raises((BadReference, DataError)):
        load_images(f"torch/folder?split=train&root={name}")


def test_hfds_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"'datasets': install it with `pip install 'gainfinder\[hfds\]'`"):
        load_images("hfds/cifar10?split=train")


@pytest.mark.parametrize("scheme", ["wds", "tfds", "hfids"])
def test_streams_are_refused_with_the_alternative(scheme: str) -> None:
    with pytest.raises(BadReference, match=f"{scheme}/ streams without random access; expected hfds/NAME, torch/NAME"):
        load_images(f"{scheme}/x?split=train")


def test_torch_image_folder(make_folder: MakeFolder) -> None:
    root = make_folder(["val/cat/1.png", "val/dog/2.png"])
    images = pickle.loads(pickle.dumps(load_images(f"torch/image_folder?split=validation&root={root}")))
    assert images.ids == ("validation/0000000", "validation/0000001")
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 1]
    assert images.mirrorable
    assert images.read(1).size == (5, 4)


def test_torch_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.arange(4 * 3072, dtype=np.uint8).reshape(4, 3072)
    (folder / "test_batch").write_bytes(pickle.dumps({"data": pixels, "labels": [3, 1, 0, 3]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"c{i}" for i in range(10)]}))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *args: True)
    images = load_images(f"torch/cifar10?split=validation&root={tmp_path}")
    assert images.num_classes == 10
    assert images.labels is not None
    assert images.labels.tolist() == [3, 1, 0, 3]
    assert np.asarray(images.read(2)).transpose(2, 0, 1).tolist() == pixels[2].reshape(3, 32, 32).tolist()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("torch/cifar10?root=x", r"names no split: write torch/cifar10\?split=train or"),
        ("hfds/cifar10", r"names no split: write hfds/cifar10\?split=train"),
        ("torch/cifar10?split=train", "needs the data set's folder: write .*&root=FOLDER"),
        ("torch/cifar10?split=trian&root=x", "unknown split 'trian'; near matches: train"),
        ("torch/cifer10?split=train&root=x", "unknown data set 'cifer10'; near matches: cifar10"),
        ("torch/cifar10?split=train&root=x&download=yes", "download=yes is unknown: expected 0 or 1"),
        ("torch/cifar10?splt=train&root=x", "unknown setting 'splt' .*near matches: split"),
        ("hfds/cifar10?split=train&inputkey=x", "unknown setting 'inputkey' .*near matches: input_key"),
    ],
)
def test_bad_references(reference: str, message: str) -> None:
    with pytest.raises(BadReference, match=message):
        load_images(reference)


def test_torch_data_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"torchvision cannot open it: RuntimeError: Dataset not found.*add download=1"):
        load_images(f"torch/cifar10?split=train&root={tmp_path}")
    with pytest.raises(
        DataError, match=f"{tmp_path} has no folder 'train'; for a folder without splits give {tmp_path}"
    ):
        load_images(f"torch/image_folder?split=train&root={tmp_path}")
