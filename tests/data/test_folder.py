import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.data.readers.reader_image_folder import ReaderImageFolder

from gainfinder.data import load_images
from gainfinder.errors import BrokenSample, DataError

MakeFolder = Callable[..., Path]


def test_class_folders_are_labelled_in_natural_order(make_folder: MakeFolder) -> None:
    images = load_images(str(make_folder()))
    assert images.class_names == ("a", "b2", "B10")
    assert images.ids == ("a/deep/er/z.PNG", "a/w.jpeg", "b2/x9.png", "b2/x10.png", "B10/y.jpg")
    assert images.labels is not None
    assert images.labels.tolist() == [0, 0, 1, 1, 2]


def test_plain_class_folders_agree_with_timm(make_folder: MakeFolder) -> None:
    names = [f"{c}/{i}.png" for c in ("n10", "N9", "cat", "Dog", "10", "9", "_x") for i in (1, 10, 2)]
    root = make_folder(names)
    images, theirs = load_images(root), ReaderImageFolder(str(root))
    assert images.class_names == tuple(theirs.class_to_idx)
    assert images.labels is not None
    ours = list(zip((str(root / i) for i in images.ids), images.labels.tolist(), strict=True))
    assert ours == theirs.samples


def test_a_flat_folder_is_unlabelled(make_folder: MakeFolder) -> None:
    images = load_images(make_folder(["2.png", "10.png", "empty/"]))
    assert images.ids == ("2.png", "10.png")
    assert images.labels is None
    assert images.class_names is None
    assert images.num_classes is None


def test_images_are_read_as_rgb(make_folder: MakeFolder, colour_of: Callable[[str], tuple[int, int, int]]) -> None:
    images = pickle.loads(pickle.dumps(load_images(make_folder())))
    image = images.read(2)
    assert image.mode == "RGB"
    assert np.asarray(image).shape == (4, 5, 3)
    assert image.getpixel((0, 0)) == colour_of("b2/x9.png")


def test_hidden_files_are_ignored_and_links_followed(make_folder: MakeFolder, tmp_path: Path) -> None:
    elsewhere = make_folder(["1.png"], at="elsewhere")
    root = make_folder(["a/1.png", "a/._1.png", ".git/x.png", "__MACOSX/a/1.png"])
    (root / "linked").symlink_to(elsewhere)
    (root / "a" / "round").symlink_to(root)
    assert load_images(root).ids == ("a/1.png", "linked/1.png")


def test_without_labels_nothing_is_derived(make_folder: MakeFolder) -> None:
    images = load_images(make_folder(["a/1.png", "b/", "2.png"]), labels=False)
    assert images.labels is None
    assert len(images) == 2


def test_a_truncated_image_is_broken_and_named(make_folder: MakeFolder) -> None:
    root = make_folder(["a/1.jpg", "a/2.jpg"])
    path = root / "a" / "2.jpg"
    path.write_bytes(path.read_bytes()[:-150])
    with pytest.raises(BrokenSample, match=r"a/2\.jpg: (?i:.*truncated)"):
        load_images(root).read(1)


def test_names_that_are_no_utf8(make_folder: MakeFolder) -> None:
    root = make_folder(["a/1.png"])
    (root / "a" / "1.png").rename(os.fsdecode(os.fsencode(root / "a") + b"/\xff.png"))
    images = load_images(root)
    assert images.ids == ("a/\\xff.png",)
    assert images.read(0).size == (5, 4)
    assert images.digest()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/1.png", "b/2.png", "3.png"], r"1 image\(s\) lie beside 2 class folder\(s\) with 2 image\(s\)"),
        (["a/1.png", "dog/"], r"the class folder 'dog' holds no image \(read are \.png, \.jpg, \.jpeg, \.webp, "),
        (["a/1.heic", "a/2.heic"], r"no images found .* it holds 2 other file\(s\), mostly \.heic"),
        (["a/"], "no images found .* it holds no file at all"),
        (["train/a/1.png", "test/a/2.png"], r"its folders \(test, train\) are splits .*photos/test"),
        (["train/a/1.png", "Valid/a/2.png", "unlabeled/3.png"], r"its folders \(train, unlabeled, Valid\) are splits"),
        (["train/a/1.png", "train/b/1.png", "logos/2.png"], r"its folders \(train\) are splits .*photos/train"),
        (["train/1.png", "test/2.png"], r"its folders \(test, train\) are splits"),
    ],
)
def test_folders_that_cannot_be_used(make_folder: MakeFolder, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_images(make_folder(names))
    assert "\n" not in str(caught.value)


def test_a_missing_path_suggests_its_siblings(make_folder: MakeFolder) -> None:
    root = make_folder()
    with pytest.raises(DataError, match="does not exist; near matches: photos; expected a folder"):
        load_images(str(root.parent / "fotos"))


def test_a_missing_path_suggests_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="digit does not exist; near matches: digits"):
        load_images("digit")


def test_what_systems_leave_behind_is_no_class(make_folder: MakeFolder, caplog: pytest.LogCaptureFixture) -> None:
    litter = ["@eaDir/1.png", "a/@eaDir/thumb.jpg", "lost+found/", "__MACOSX/a/1.png", ".cache/1.png", "#recycle/9.png"]
    images = load_images(make_folder(["a/1.png", "b/2.png", *litter, "a/Thumbs.db"]))
    assert images.class_names == ("a", "b") and images.ids == ("a/1.png", "b/2.png")
    assert not caplog.messages


def test_a_class_may_be_called_train(make_folder: MakeFolder) -> None:
    assert load_images(make_folder(["car/1.png", "train/2.png", "plane/3.png"])).class_names == (
        "car",
        "plane",
        "train",
    )
    nested = make_folder(["car/old/1.png", "train/old/2.png"], at="nested")
    assert load_images(nested).class_names == ("car", "train")


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        (["train/1.png", "train/2.png"], "photos/train"),
        (["Valid/1.png"], "photos/Valid"),
        (["images/1.png"], "photos/images"),
        (["images/a/1.png", "images/b/2.png"], "photos/images, of which 2 folders are the classes then"),
        (["flowers/rose/1.png", "flowers/tulip/2.png"], "photos/flowers, of which 2 folders are the classes then"),
    ],
)
def test_the_only_folder_that_is_hardly_a_class_is_told(
    make_folder: MakeFolder, names: list[str], remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_folder(names)
    lone = names[0].split("/")[0]
    assert load_images(root).class_names == (lone,)
    assert caplog.messages == [
        f"{root}: all its images lie in the folder {lone!r}, which is taken for their only class; if it is none, give "
        f"{root.parent}/{remedy}"
    ]
    caplog.clear()
    load_images(root / lone)
    load_images(root, labels=False)
    assert not caplog.messages


@pytest.mark.parametrize("names", [["cat/1.png", "cat/2.png"], ["cat/old/1.png"], ["train/1.png", "car/2.png"]])
def test_class_folders_are_not_told(
    make_folder: MakeFolder, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert load_images(make_folder(names)).class_names
    assert not caplog.messages


def test_a_single_split_without_labels_is_welcome(make_folder: MakeFolder) -> None:
    assert len(load_images(make_folder(["train/a/1.png"]), labels=False)) == 1
    with pytest.raises(DataError, match=r"\(test, train\) are splits"):
        load_images(make_folder(["test/a/1.png"]), labels=False)


@pytest.mark.parametrize(
    ("others", "note"),
    [
        (
            ["a/1.heic", "b/2.heic", "a/x.svg"],
            r"3 files beside 2 image\(s\) are not read \(\.heic: 2, \.svg: 1\); if they",
        ),
        (
            ["labels.csv"],
            r"1 file beside 2 image\(s\) is not read \('labels\.csv'\); if they hold labels: these come from",
        ),
    ],
)
def test_files_that_are_passed_over_are_told(
    make_folder: MakeFolder, caplog: pytest.LogCaptureFixture, others: list[str], note: str
) -> None:
    load_images(make_folder(["a/1.png", "b/2.png", *others]))
    assert len(caplog.messages) == 1 and re.search(note, caplog.messages[0])


@pytest.mark.parametrize("ending", ["webp", "bmp", "tif", "TIFF", "jfif", "ppm", "pgm", "gif", "jp2", "tga"])
def test_what_pillow_decodes_is_read(tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture) -> None:
    kinds = {"jfif": "JPEG", "pgm": "PPM", "tif": "TIFF", "jp2": "JPEG2000"}
    Image.new("RGB", (8, 8), (200, 10, 10)).save(tmp_path / f"1.{ending}", kinds.get(ending, ending.upper()))
    images = load_images(tmp_path)
    red, green, _ = np.asarray(images.read(0))[4, 4]
    assert red > 150 and green < 50 and not caplog.messages


def test_hundreds_of_folders_in_each_other(tmp_path: Path) -> None:
    (tmp_path / Path(*["d"] * 300)).mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"lies more than 255 folders deep; give one of the folders above it$"
    ) as caught:
        load_images(tmp_path)
    assert len(str(caught.value)) < 300


def test_a_fifo_among_images_is_a_broken_one(make_folder: MakeFolder) -> None:
    root = make_folder(["1.png"])
    os.mkfifo(root / "2.png")
    images = load_images(root)
    assert images.read(0).size == (5, 4)
    with pytest.raises(BrokenSample, match=r"2\.png: it is a FIFO, not a regular file"):
        images.read(1)


def test_links_that_make_millions_of_ways(make_folder: MakeFolder) -> None:
    root = make_folder(["0/1.png"])
    for i in range(1, 30):
        (root / str(i)).mkdir()
        for name in "ab":
            (root / str(i) / name).symlink_to(f"../{i - 1}")
    with pytest.raises(DataError, match=r"links lead to it on more than 100 ways; give it without them"):
        load_images(root)
