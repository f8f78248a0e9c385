"""A `.tar` archive, or a folder of `.tar` shards, of class folders (labelled) or of images (unlabelled).

Headers are read once; images are then read by offset, without `tarfile`. Nothing is ever unpacked.
"""

import logging
import tarfile
from collections import ChainMap, Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..classes import natural_key
from ..errors import DataError
from ..files import file_problem
from ..libraries import first_line
from ..references import shown
from .decoding import decode
from .images import Images
from .layout import (
    MOST_LEVELS,
    Folder,
    classes_of,
    describe_others,
    extensions,
    is_hidden,
    is_image_name,
    note_deeper,
    note_passed_over,
    printable,
    refuse_split_files,
    refuse_split_folders,
)
from .ranges import FileRanges

_MAGIC = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_SPARSE = -1
_MOST_BYTES = 1_000_000_000
"""Bytes of the largest member that is read as an image."""
_OUTSIDE = "member(s) whose names lead out of the archive by `..` are not read; pack the folder that holds them"
_TWICE = "image(s) occur again later in the archive, and the later ones are read, as when it is unpacked"
_LINK = "link(s) and special files with names of images are not read; pack what links lead to (`tar --dereference`)"
_log = logging.getLogger("gainfinder")


@dataclass(frozen=True, kw_only=True)
class TarReader:
    """Images that are members of tar archives.

    Attributes:
        archives: the archives.
        names: each image's name in its archive.
        shards: int64 (N,), the archive of each image.
        offsets: int64 (N,), first byte of each image in its archive; -1 for a sparse member, which cannot be read.
        sizes: int64 (N,), number of bytes of each image.
        upright: whether images are turned as their EXIF orientation says.
    """

    archives: tuple[Path, ...]
    names: tuple[str, ...]
    shards: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    upright: bool = False
    _ranges: FileRanges = field(default_factory=FileRanges, repr=False, compare=False)

    def read(self, index: int) -> Image.Image:
        """Image `index`, fully decoded, RGB."""
        return decode(self.source(index), upright=self.upright)

    def source(self, index: int) -> BytesIO:
        """The bytes of image `index`."""
        offset, size = int(self.offsets[index]), int(self.sizes[index])
        if offset == _SPARSE:
            raise ValueError("a sparse member has no contiguous bytes: pack the archive without --sparse")
        if size > _MOST_BYTES:
            raise ValueError(f"a member of {size / 1e9:,.1f} GB is too large for an image")
        return BytesIO(self._ranges.read(self.archives[int(self.shards[index])], offset, size))

    def where(self, index: int) -> str:
        """The archive and the member."""
        return f"{self.archives[int(self.shards[index])]}: {self.names[index]}"


@dataclass(frozen=True)
class _Member:
    shard: int
    name: str
    offset: int
    size: int

    @property
    def folder(self) -> Folder:
        return tuple(self.name.split("/")[:-1])


@dataclass(frozen=True, kw_only=True)
class _Index:
    images: list[_Member]
    folders: set[Folder]
    others: list[str]
    skipped: Counter[str]


def open_tar(archives: Sequence[Path], *, root: Path, reference: str, labels: bool, upright: bool = False) -> Images:
    """Index archives and find their classes: the first folder below the one that all members share.

    Ids are member names, with the shard's name before them where there are several shards. If a name occurs twice in
    an archive the later member counts, as it does when unpacking. A hard link is read as the member before it that it
    is to. Other links, members whose names lead out of the archive by `..`, and other files that are not read are told.

    Args:
        archives: the archives, at least one; all their members together are one source.
        root: the archive or the folder of shards, for messages.
        reference: the data reference.
        labels: whether to derive labels from folder names.
        upright: whether to turn images as their EXIF orientation says.

    Raises:
        DataError: an archive that is compressed, damaged or no archive; no images; images beside class folders; a
            class folder without images; shards or folders of different splits.
    """
    archives = sorted(archives, key=lambda path: natural_key(path.name))
    refuse_split_files((a.stem for a in archives), where=str(root), instead=f"give one, such as {archives[0]}")
    index = _index(archives)
    images = index.images
    if not images:
        raise DataError(f"{root}: no images found (read are {extensions()}): {describe_others(index.others)}")
    folders, empty = _below_common_folder([image.folder for image in images], index.folders)
    refuse_split_folders(folders, where=str(root), labels=labels, instead="pack one of them alone, such as ")
    classes = classes_of(folders, without_images=empty, where=str(root)) if labels else None
    _note(index, root)
    if classes is not None and (deeper := note_deeper(folders, where=str(root))) is not None:
        _log.warning(deeper)
    several = len(archives) > 1
    return Images.build(
        reference=reference,
        reader=TarReader(
            archives=tuple(archives),
            names=tuple(image.name for image in images),
            shards=np.array([image.shard for image in images], dtype=np.int64),
            offsets=np.array([image.offset for image in images], dtype=np.int64),
            sizes=np.array([image.size for image in images], dtype=np.int64),
            upright=upright,
        ),
        ids=[f"{archives[image.shard].stem}/{image.name}" if several else image.name for image in images],
        labels=None if classes is None else classes.labels,
        class_names=None if classes is None else classes.names,
    )


def _index(archives: Sequence[Path]) -> _Index:
    images: dict[tuple[int, str], _Member] = {}
    folders: set[Folder] = set()
    others: list[str] = []
    skipped: Counter[str] = Counter()
    for shard, archive in enumerate(archives):
        rest: dict[tuple[int, str], _Member] = {}  # what is no image may be what a hard link is to
        before = ChainMap(images, rest)
        for info in _headers(archive):
            parts = _parts(info.name)
            _refuse_depth(archive, parts)
            if ".." in parts:
                skipped[_OUTSIDE] += 1
                continue
            name = printable("/".join(parts))
            file = _file(shard, name, info, before)
            hidden, is_image = any(is_hidden(part) for part in parts), is_image_name(name)
            if file is not None and (hidden or not is_image):
                rest[shard, name] = file
            if hidden:
                continue
            folders.add(tuple(name.split("/")) if info.isdir() else tuple(name.split("/")[:-1]))
            if file is not None and is_image:
                skipped[_TWICE] += (shard, name) in images
                images[shard, name] = file
            elif file is not None:
                others.append(name)
            elif is_image:
                skipped[_LINK] += 1
    ordered = sorted(images.values(), key=lambda image: (natural_key(image.name), image.shard))
    return _Index(images=ordered, folders=folders - {(), ("",)}, others=others, skipped=skipped)


def _file(shard: int, name: str, info: tarfile.TarInfo, before: Mapping[tuple[int, str], _Member]) -> _Member | None:
    """The file that a member is: its own bytes, or, of a hard link, those of the file of that name `before` it.

    As where archives are unpacked, a link is to what stands before it, itself a link or not, so that none goes in a
    circle. None for members that are no files, and links to what is not there.
    """
    if info.isreg():
        return _Member(shard, name, _SPARSE if info.issparse() else info.offset_data, info.size)
    if not info.islnk():
        return None
    target = before.get((shard, printable("/".join(_parts(info.linkname)))))
    return None if target is None else replace(target, name=name)


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _refuse_depth(archive: Path, parts: Sequence[str]) -> None:
    if len(parts) > MOST_LEVELS:
        raise DataError(
            f"{archive}: the member {shown('/'.join(parts))} lies {len(parts) - 1} folders deep, expected at most "
            f"{MOST_LEVELS}; pack one of the folders below"
        )


def _note(index: _Index, root: Path) -> None:
    """Tell what is passed over."""
    notes = [f"{root}: {count} {reason}" for reason, count in index.skipped.items() if count]
    others = note_passed_over(index.others, where=str(root), beside=f"{len(index.images)} image(s)")
    for note in (*notes, *([] if others is None else [others])):
        _log.warning(note)


def _headers(archive: Path) -> Iterator[tarfile.TarInfo]:
    """All members' headers.

    Raises:
        DataError: compressed, cut off, damaged, or no archive. `tarfile` takes a damaged header after the first member
            for the end of the archive, and also the end of a file that is cut off between two members, so what follows
            the last one is looked at.
    """
    _refuse_compressed(archive)
    end, size = 0, archive.stat().st_size
    try:
        with tarfile.open(archive, mode="r:") as tar:
            while (info := tar.next()) is not None:
                if not end < tar.offset <= size + tarfile.RECORDSIZE or info.size < 0:
                    # behind the last one it would be read in a circle
                    raise tarfile.HeaderError(f"a member ends at byte {tar.offset}, the archive at {size}")
                end = tar.offset
                yield info
                # tarfile keeps all it has seen, about a kilobyte a member.
                tar.members.clear()  # type: ignore[attr-defined]
            end = tar.offset
        with archive.open("rb") as file:
            file.seek(end)
            end_mark = file.read(tarfile.BLOCKSIZE)
    except DataError:
        raise
    except Exception as error:  # of a damaged header tarfile raises whatever its bytes lead to
        raise DataError(
            f"{archive}: not a tar archive, damaged or cut off ({first_line(error)}); copy or pack it again"
        ) from error
    if end_mark != bytes(tarfile.BLOCKSIZE):
        raise DataError(
            f"{archive}: damaged or cut off at byte {end}, where a header or the end mark was expected; "
            "copy or pack it again"
        )


def _refuse_compressed(archive: Path) -> None:
    if (problem := file_problem(archive)) is not None:
        raise DataError(f"{archive} {problem}; expected a tar archive")
    try:
        with archive.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise DataError(f"{archive}: cannot be opened ({error.strerror})") from error
    for magic, command in _MAGIC.items():
        if start.startswith(magic):
            raise DataError(
                f"{archive}: a compressed archive has no random access, expected a plain .tar; unpack it with "
                f"`{command}` first (images hardly compress)"
            )


def _below_common_folder(folders: Sequence[Folder], all_folders: set[Folder]) -> tuple[list[Folder], set[str]]:
    """Drop the folders that all images and empty folders share; also the first-level folders without images."""
    filled: set[Folder] = set()
    for folder in set(folders):
        above = folder
        while above not in filled:
            filled.add(above)
            above = above[:-1]
    empty = all_folders - filled
    shared = 0
    for level in zip(*{*folders, *empty}, strict=False):
        if len(set(level)) > 1:
            break
        shared += 1
    below = [folder[shared:] for folder in folders]
    first = {folder[0] for folder in below if folder}
    return below, {folder[shared] for folder in empty if len(folder) > shared} - first
