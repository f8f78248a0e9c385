import io
import os
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from timm.data.readers.reader_image_in_tar import ReaderImageInTar

from gainfinder.data import load_images
from gainfinder.data.ranges import FileRanges
from gainfinder.errors import BrokenSample, DataError

MakeFolder = Callable[..., Path]
MakeTar = Callable[..., Path]
CLASSES = ["n10/1.png", "N9/1.png", "cat/2.png", "cat/10.png", "Dog/3.png"]


def test_an_archive_equals_its_folder(make_folder: MakeFolder, make_tar: MakeTar) -> None:
    folder, tar = load_images(make_folder(CLASSES)), load_images(make_tar(CLASSES))
    assert tar.ids == folder.ids
    assert tar.class_names == folder.class_names
    assert tar.digest() == folder.digest()
    assert [tar.read(i).tobytes() for i in range(5)] == [folder.read(i).tobytes() for i in range(5)]


def test_classes_agree_with_timm(make_tar: MakeTar) -> None:
    path = make_tar(CLASSES)
    images, theirs = load_images(path), ReaderImageInTar(str(path))
    assert images.class_names == tuple(theirs.class_name_to_idx)
    assert images.labels is not None
    assert images.labels.tolist() == theirs.targets.tolist()
    assert list(images.ids) == [sample[0].path for sample in theirs.samples]


@pytest.mark.parametrize(
    ("names", "classes", "first"),
    [
        (["./", "./cat/", "./cat/1.png", "./dog/1.png"], ("cat", "dog"), "cat/1.png"),
        (["x/test/", "x/test/cat/1.png", "x/test/dog/1.png"], ("cat", "dog"), "x/test/cat/1.png"),
        (["cats/1.png", "cats/2.png"], None, "cats/1.png"),
        (["2.png", "10.png", "._2.png"], None, "2.png"),
        (["cat/1.png", "cat/more/2.png", "dog/3.png", "dog/empty/"], ("cat", "dog"), "cat/1.png"),
    ],
)
def test_the_folder_that_all_share_is_no_class(
    make_tar: MakeTar, names: list[str], classes: tuple[str, ...] | None, first: str
) -> None:
    images = load_images(make_tar(names))
    assert images.class_names == classes
    assert images.ids[0] == first


def test_shards_are_one_source(make_tar: MakeTar) -> None:
    make_tar(["train/cat/1.png"], at="shards/s-2.tar")
    make_tar(["train/cat/1.png", "train/dog/2.png"], at="shards/s-10.tar")
    root = make_tar(["train/emu/1.png"], at="shards/s-1.tar").parent
    images = load_images(root)
    assert images.ids == ("s-2/train/cat/1.png", "s-10/train/cat/1.png", "s-10/train/dog/2.png", "s-1/train/emu/1.png")
    assert images.class_names == ("cat", "dog", "emu")
    assert images.read(1).size == (5, 4)


def test_the_later_of_two_members_counts_and_links_are_skipped(
    make_tar: MakeTar, image_bytes: Callable[[str], bytes]
) -> None:
    path = make_tar(["1.png", "2.png"])
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("3.png")
        link.type, link.linkname = tarfile.SYMTYPE, "1.png"
        tar.addfile(link)
        again, data = tarfile.TarInfo("1.png"), image_bytes("other.png")
        again.size = len(data)
        tar.addfile(again, io.BytesIO(data))
    images = load_images(path)
    assert images.ids == ("1.png", "2.png")
    assert images.read(0).tobytes() != load_images(make_tar(["1.png"], at="b.tar")).read(0).tobytes()


def test_readers_survive_pickling_and_forks(make_tar: MakeTar) -> None:
    images = load_images(make_tar())
    before = [images.read(i).tobytes() for i in range(len(images))]
    copy = pickle.loads(pickle.dumps(images))
    assert [copy.read(i).tobytes() for i in range(len(images))] == before


def test_a_forked_process_opens_its_own_handles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(100)))
    ranges = FileRanges()
    assert ranges.read(path, 10, 3) == bytes([10, 11, 12])
    inherited = ranges._open(path)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert ranges.read(path, 50, 2) == bytes([50, 51])
    assert inherited.closed
    with pytest.raises(EOFError, match="ends after 1 of 5 bytes"):
        ranges.read(path, 99, 5)


def test_many_archives_do_not_use_up_the_handles(tmp_path: Path) -> None:
    ranges = FileRanges()
    for i in range(40):
        path = tmp_path / str(i)
        path.write_bytes(b"abc")
        assert ranges.read(path, 1, 1) == b"b"
    assert len(ranges._files) <= 16


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/1.png", "b/2.png", "3.png"], r"1 image\(s\) lie beside 2 class folder\(s\)"),
        (["x/a/1.png", "x/b/"], "the class folder 'b' holds no image"),
        (["a/1.txt"], r"no images found .*mostly \.txt"),
        (
            ["train/a/1.png", "train/b/1.png", "val/a/2.png"],
            r"\(train, val\) are splits .*; pack one of them alone, such as train",
        ),
    ],
)
def test_layouts_that_cannot_be_used(make_tar: MakeTar, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_images(make_tar(names))


@pytest.mark.parametrize(
    ("at", "mode", "command"), [("x.tar.gz", "w:gz", "gunzip"), ("x.tar", "w:xz", "unxz"), ("x.tgz", "w:gz", "gunzip")]
)
def test_compressed_archives_are_refused(make_tar: MakeTar, at: str, mode: str, command: str) -> None:
    with pytest.raises(DataError, match=f"no random access, expected a plain .tar; unpack it with `{command}`"):
        load_images(make_tar(at=at, mode=mode))


def test_archives_that_are_cut_off_or_damaged(make_tar: MakeTar, tmp_path: Path) -> None:
    data = make_tar([f"a/{i}.png" for i in range(5)]).read_bytes()
    second = tarfile.open(tmp_path / "photos.tar")  # noqa: SIM115
    header = second.getmembers()[1].offset
    last = second.getmembers()[-1].offset_data
    second.close()
    for wrong in (b"", b"no archive" * 100, data[: last + 9], data[: header + 100], data[:header]):
        (tmp_path / "wrong.tar").write_bytes(wrong)
        with pytest.raises(DataError, match=r"wrong\.tar: .*(not a tar archive|cut off)") as caught:
            load_images(tmp_path / "wrong.tar")
        assert "\n" not in str(caught.value)
    (tmp_path / "wrong.tar").write_bytes(data[:header] + b"\xff" * 512 + data[header + 512 :])
    with pytest.raises(DataError, match=f"damaged or cut off at byte {header}"):
        load_images(tmp_path / "wrong.tar")


def test_an_archive_that_shrank_after_indexing_has_broken_images(make_tar: MakeTar) -> None:
    path = make_tar(["1.png", "2.png"])
    images = load_images(path)
    path.write_bytes(path.read_bytes()[:1024])
    with pytest.raises(BrokenSample, match=r"photos\.tar: 2\.png: the file ends after 0 of"):
        images.read(1)


def test_shards_of_different_splits_are_not_mixed(make_tar: MakeTar) -> None:
    make_tar(["1.png"], at="both/train-000.tar")
    root = make_tar(["2.png"], at="both/test-000.tar").parent
    with pytest.raises(DataError, match=r"several splits \(test, train\), which must not be mixed: give one"):
        load_images(root)


def test_a_folder_of_two_kinds_is_refused(make_tar: MakeTar, make_folder: MakeFolder) -> None:
    make_tar(at="photos/all.tar")
    with pytest.raises(DataError, match=r"holds 1 \.tar archive\(s\) and images, expected one kind; give one file"):
        load_images(make_folder())


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def test_what_is_passed_over_is_told(
    make_tar: MakeTar, image_bytes: Callable[[str], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    path = make_tar(["a/1.png", "b/2.png"])
    with tarfile.open(path, "a") as tar:
        add(tar, "a/3.png", kind=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "a/4.png", kind=tarfile.LNKTYPE, linkname="a/none.png")
        add(tar, "a/5.png", kind=tarfile.FIFOTYPE)
        add(tar, "../../b/6.png", image_bytes("6.png"))
        add(tar, "/b/7.heic", b"x")
        add(tar, "a/1.png", image_bytes("1.png"))
    images = load_images(path)
    assert images.ids == ("a/1.png", "b/2.png")
    said = "\n".join(caplog.messages)
    assert "3 link(s) and special files with names of images are not read" in said
    assert "1 member(s) whose names lead out of the archive by `..` are not read" in said
    assert "1 image(s) occur again later in the archive" in said
    assert "1 file beside 2 image(s) is not read ('7.heic')" in said


def linked(tar: tarfile.TarFile, name: str, target: str) -> None:
    add(tar, name, kind=tarfile.LNKTYPE, linkname=target)


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_hard_links_are_read_as_the_members_before_them(
    tmp_path: Path, image_bytes: Callable[[str], bytes], caplog: pytest.LogCaptureFixture, kind: int
) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=kind) as tar:
        add(tar, "./a/1.png", image_bytes("1.png"))
        add(tar, ".cache/blob", image_bytes("blob.png"))
        linked(tar, "b/link.png", "a/1.png")
        linked(tar, "b/again.png", "./b/link.png")  # to a link
        linked(tar, "a/blob", ".cache/blob")
        linked(tar, "b/blob.png", "a/blob")
    images = load_images(path)
    read = {name: images.read(i).tobytes() for i, name in enumerate(images.ids)}
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    unpacked = load_images(tmp_path / "unpacked", labels=False)
    assert read == {name: unpacked.read(i).tobytes() for i, name in enumerate(unpacked.ids)}
    assert list(read) == ["a/1.png", "b/again.png", "b/blob.png", "b/link.png"]
    assert read["b/again.png"] == read["b/link.png"] == read["a/1.png"] != read["b/blob.png"]
    assert images.class_names == ("a", "b")
    assert "link(s)" not in "".join(caplog.messages)


def test_a_hard_link_stays_what_it_was(tmp_path: Path, image_bytes: Callable[[str], bytes]) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("first", "later"):
            add(tar, "a/1.png", image_bytes(f"{name}.png"))
            linked(tar, f"b/{name}.png", "a/1.png")
    images = load_images(tmp_path / "x.tar")
    read = {name: images.read(i).tobytes() for i, name in enumerate(images.ids)}
    assert read["b/first.png"] != read["b/later.png"] == read["a/1.png"]


def test_hard_links_of_a_folder_that_tar_packed(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(["a/1.png", "b/2.png"])
    os.link(root / "a/1.png", root / "b/3.png")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(root, ".")
    folder, packed = load_images(root), load_images(tmp_path / "x.tar")
    assert packed.ids == folder.ids and packed.digest() == folder.digest() and len(packed) == 3
    assert packed.fingerprint == folder.fingerprint


def test_hard_links_that_lead_nowhere_are_told(
    tmp_path: Path, image_bytes: Callable[[str], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        linked(tar, "later.png", "1.png")
        linked(tar, "one.png", "two.png")
        linked(tar, "two.png", "one.png")
        linked(tar, "self.png", "self.png")
        linked(tar, "empty.png", "")
        linked(tar, "folder.png", "d")
        linked(tar, "out.png", "../1.png")
        linked(tar, "password.png", "/etc/passwd")
        linked(tar, "deep.png", "d/" * 9000)
        add(tar, "d", kind=tarfile.DIRTYPE)
        add(tar, "1.png", image_bytes("1.png"))
        add(tar, "soft.png", kind=tarfile.SYMTYPE, linkname="1.png")
        linked(tar, "hard.png", "soft.png")
        linked(tar, "out.png", "d/../1.png")
    assert load_images(tmp_path / "x.tar").ids == ("1.png",)
    assert "12 link(s) and special files with names of images are not read" in caplog.messages[0]


def test_absolute_names_stay_in_the_archive(tmp_path: Path, image_bytes: Callable[[str], bytes]) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        add(tar, "/etc/cat/1.png", image_bytes("1.png"))
        add(tar, "/etc/dog/2.png", image_bytes("2.png"))
    assert load_images(tmp_path / "x.tar").ids == ("etc/cat/1.png", "etc/dog/2.png")


@pytest.mark.parametrize(
    "headers",
    [{"size": "abc"}, {"size": "-1000"}, {"size": str(10**30)}, {"size": "9" * 5000}, {"mtime": "x" * 9}, {"path": ""}],
    ids=str,
)
def test_broken_pax_headers_are_refused_or_passed_over(
    tmp_path: Path, headers: dict[str, str], image_bytes: Callable[[str], bytes]
) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "a/1.png", image_bytes("1.png"), pax_headers=headers)
        add(tar, "a/2.png", image_bytes("2.png"))
    try:
        images = load_images(path)
    except DataError as error:
        assert re.search(r"x\.tar: .*(damaged|cut off|not a tar|no images)", str(error)) and "\n" not in str(error)
    else:
        assert set(images.ids) <= {"a/1.png", "a/2.png"}


def test_headers_that_follow_each_other_without_end(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type = tarfile.GNUTYPE_LONGNAME
    (tmp_path / "x.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) * 5000)
    with pytest.raises(DataError, match=r"x\.tar: not a tar archive, damaged or cut off \(RecursionError"):
        load_images(tmp_path / "x.tar")


def test_a_member_that_claims_more_than_there_is(tmp_path: Path) -> None:
    header = tarfile.TarInfo("1.png")
    header.size = 1 << 45
    (tmp_path / "x.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match=r"x\.tar: .*cut off"):
        load_images(tmp_path / "x.tar")


def test_a_huge_member_is_a_broken_image(tmp_path: Path) -> None:
    header = tarfile.TarInfo("1.png")
    header.size = 2_000_000_000
    with (tmp_path / "x.tar").open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + header.size + 1024)  # a file with a hole takes no room
    with pytest.raises(BrokenSample, match=r"1\.png: a member of 2\.0 GB is too large for an image"):
        load_images(tmp_path / "x.tar").read(0)


def test_thousands_of_folders_in_each_other(tmp_path: Path, image_bytes: Callable[[str], bytes]) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        add(tar, "d/" * 20_000 + "1.png", image_bytes("1.png"))
    with pytest.raises(DataError, match=r"lies 20000 folders deep, expected at most 255") as caught:
        load_images(tmp_path / "x.tar")
    assert len(str(caught.value)) < 400
