"""Tiny images made on the fly. Each image is of one colour that follows from its name, so that reads can be checked."""

import io
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image

PLAIN = ("b2/x10.png", "b2/x9.png", "B10/y.jpg", "a/deep/er/z.PNG", "a/w.jpeg")


def colour(name: str) -> tuple[int, int, int]:
    number = zlib.crc32(name.encode())
    return number & 255, number >> 8 & 255, number >> 16 & 255


def encoded(name: str) -> bytes:
    buffer = io.BytesIO()
    kind = "PNG" if name.lower().endswith("png") else "JPEG"
    Image.new("RGB", (5, 4), colour(name)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def image_bytes() -> Callable[[str], bytes]:
    """The bytes of an image file, of the colour that follows from its name."""
    return encoded


@pytest.fixture
def colour_of() -> Callable[[str], tuple[int, int, int]]:
    return colour


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write images into a new folder: `make_folder(names, at="photos")`; a name that ends with `/` is a folder."""

    def make(names: Sequence[str] = PLAIN, at: str = "photos") -> Path:
        root = tmp_path / at
        for name in names:
            path = root / name
            (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                path.write_bytes(encoded(Path(name).as_posix()))
        return root

    return make


@pytest.fixture
def make_tar(tmp_path: Path) -> Callable[..., Path]:
    """Write images into a new archive: `make_tar(names, at="photos.tar")`; a name that ends with `/` is a folder."""

    def make(
        names: Sequence[str] = PLAIN, at: str = "photos.tar", mode: Literal["w", "w:gz", "w:bz2", "w:xz"] = "w"
    ) -> Path:
        path = tmp_path / at
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, mode) as tar:
            for name in names:
                info = tarfile.TarInfo(name.rstrip("/"))
                data = b"" if name.endswith("/") else encoded(name)
                info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return make
