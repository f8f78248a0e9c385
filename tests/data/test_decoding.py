"""What Pillow reads wrongly without a word, and what takes minutes."""

import io
import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gainfinder.data import decode, load_images
from gainfinder.data.decoding import MOST_PIXELS
from gainfinder.data.libtiff import libtiff_silent
from gainfinder.errors import BrokenSample, DataError


def encoded(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_become_the_upper_eight(kind: str) -> None:
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 256 + 77
    by_hand = io.BytesIO(b"P5 16 16 65535\n" + deep.astype(">u2").tobytes())
    found = np.asarray(decode(by_hand if kind == "PPM" else encoded(Image.fromarray(deep), kind)))
    assert (found == np.arange(256).reshape(16, 16, 1)).all()


def damaged_tiff(compression: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = bytearray(encoded(Image.fromarray(noise), "TIFF", compression=compression).getvalue())
    data[200:230] = b"\xff" * 30
    return bytes(data)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate"])
def test_a_damaged_tiff_is_told_in_one_line(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = damaged_tiff(compression)
    with pytest.raises(OSError, match=r"libtiff cannot decode it \(decoder error -2\): damaged, or compressed in"):
        decode(io.BytesIO(data))
    assert capfd.readouterr().err == ""
    with pytest.raises(OSError, match="decoder error -2"):
        Image.open(io.BytesIO(data)).load()
    assert capfd.readouterr().err  # others hear of it as before


def test_libtiff_speaks_again_when_the_last_thread_has_left(capfd: pytest.CaptureFixture[str]) -> None:
    data = damaged_tiff("tiff_deflate")
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with libtiff_silent():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait()
    with pytest.raises(OSError, match="libtiff"):
        decode(io.BytesIO(data))
    for expected in (False, True):
        with pytest.raises(OSError, match="decoder error"):
            Image.open(io.BytesIO(data)).load()
        os.write(2, b"somebody's line\n")
        assert capfd.readouterr().err.endswith("somebody's line\n")
        with pytest.raises(OSError, match="decoder error"):
            Image.open(io.BytesIO(data)).load()
        assert bool(capfd.readouterr().err) == expected
        leave.set()
        thread.join()


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_range_are_refused(dtype: type) -> None:
    with pytest.raises(ValueError, match="pixels of 32 bits have no agreed range: save it with 8 or 16 bits"):
        decode(encoded(Image.fromarray(np.ones((4, 4), dtype)), "TIFF"))


def test_many_pixels_are_refused() -> None:
    wide = encoded(Image.new("1", (20_000, MOST_PIXELS // 20_000 + 1)), "PNG")
    with pytest.raises(ValueError, match=r"20,000 × 5,001 pixels are too many, at most 100,000,000 are decoded"):
        decode(wide)


def test_a_bomb_is_one_broken_image(tmp_path: Path) -> None:
    data = bytearray(encoded(Image.new("1", (8, 8)), "PNG").getvalue())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "1.png").write_bytes(data)
    with pytest.raises(BrokenSample, match=r"1\.png: .*pixels"):
        load_images(tmp_path).read(0)


def test_scans_without_end_are_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 600, 3), dtype=np.uint8)
    good = encoded(Image.fromarray(noise), "JPEG", progressive=True).getvalue()
    assert decode(io.BytesIO(good)).size == (600, 600)
    start = good.rindex(b"\xff\xda")
    scans = good[:start] + good[start:-2] * 3000 + good[-2:]
    with pytest.raises(ValueError, match=r"a progressive JPEG of 30\d\d scans would take minutes"):
        decode(io.BytesIO(scans))


def test_drawings_under_the_name_of_a_picture_are_refused() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\n"
    with pytest.raises(ValueError, match="a drawing"):
        decode(io.BytesIO(eps))


def test_memory_that_runs_out_ends_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.png").write_bytes(encoded(Image.new("RGB", (4, 4)), "PNG").getvalue())
    images = load_images(tmp_path)

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(DataError, match=r"1\.png: decoding it needs more memory than there is"):
        images.read(0)


@pytest.mark.parametrize("name", ["x.tar", "x.parquet", "x"])
def test_a_fifo_in_place_of_a_source_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=r"is a FIFO, not a regular file; expected"):
        load_images(tmp_path / name)
    if name != "x":
        with pytest.raises(DataError, match=r"is a FIFO, not a regular file; expected"):
            load_images(tmp_path)
