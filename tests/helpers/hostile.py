"""Hostile data sources, made at random: images, folders, tar archives, Parquet files, references and label maps."""

import io
import json
import os
import random
import struct
import tarfile
import traceback
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from gainfinder.classes import read_label_map
from gainfinder.data import load_images
from gainfinder.errors import BrokenSample, GainfinderError

MOST_IMAGES = 12
"""Images decoded of each source."""
ENDINGS = ("png", "jpg", "jpeg", "webp", "bmp", "tif", "gif", "ppm", "jfif", "tga", "jp2", "PNG", "heic", "txt", "")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "TGA", "JPEG2000", "PCX", "SGI")
MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "I", "F", "YCbCr", "LAB")
SOUND = ("ant", "bee", "10", "9", "B10", "²", "a b", "é")
NAMES = (
    "ant",
    "bee",
    "train",
    "test",
    "unlabeled",
    "@eaDir",
    "lost+found",
    "__MACOSX",
    "10",
    "9",
    "B10",
    "²",
    "a b",
    "é",
)


@dataclass(frozen=True)
class Case:
    """A source to load.

    Attributes:
        kind: name of its maker.
        reference: a data reference, or a path of a label map.
        is_map: whether it is a label map.
    """

    kind: str
    reference: str
    is_map: bool = False


def make_case(seed: str, folder: Path) -> Case:
    """The case of a seed, written below `folder`."""
    drawn = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    kind = drawn.choice(sorted(MAKERS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MAKERS[kind](drawn, folder)


def read(case: Case) -> tuple[str, str]:
    """Read a source and decode its first images: the outcome (`read`, `refused` or a fault), and a line on it."""
    try:
        if case.is_map:
            return "read", f"{len(read_label_map(Path(case.reference)))} pairs"
        images, broken = load_images(case.reference), 0
        for i in range(min(len(images), MOST_IMAGES)):
            try:
                images.read(i)
            except BrokenSample as error:
                broken += 1
                if "\n" in error.reason:
                    return "SEVERAL LINES", str(error)
        return "read", f"{len(images)} images, {broken} of the first {MOST_IMAGES} broken"
    except GainfinderError as error:
        text = str(error)
        told = "\n" not in text and len(text) < 20_000
        return ("refused" if told else "SEVERAL LINES"), text[:2000]
    except BaseException:
        return "TRACEBACK", traceback.format_exc()[-1500:]


def mutated(drawn: random.Random, data: bytes) -> bytes:
    """The bytes after up to three mutations: cut off, flipped, overwritten, repeated, left out, put in."""
    for _ in range(drawn.randint(1, 3)):
        at = drawn.randrange(len(data) + 1)
        length = drawn.choice((1, 2, 4, 16, 512))
        noise = drawn.choice((bytes(length), b"\xff" * length, drawn.randbytes(length), str(10**40).encode()))
        data = drawn.choice(
            (
                data[:at],
                data[:at] + noise + data[at + len(noise) :],
                data[:at] + noise + data[at:],
                data[:at] + data[at + length :],
                data[:at] + data[max(0, at - length) : at] * drawn.choice((2, 300)) + data[at:],
                bytes(byte ^ (1 << drawn.randrange(8)) if drawn.random() < 0.01 else byte for byte in data[:20000]),
            )
        )
    return data


def image_bytes(drawn: random.Random) -> bytes:
    """An image file: sound, odd, or damaged."""
    found = drawn.choice(ODD)(drawn) if drawn.random() < 0.25 else _image(drawn)
    return mutated(drawn, found) if drawn.random() < 0.4 else found


def _image(drawn: random.Random) -> bytes:
    size = drawn.choice(((1, 1), (1, 300), (5, 4), (32, 32), (65, 33)))
    pixels = Image.frombytes("RGB", size, drawn.randbytes(3 * size[0] * size[1]))
    mode, kind = drawn.choice(MODES), drawn.choice(FORMATS)
    buffer = io.BytesIO()
    try:
        image = pixels.convert("L").convert(mode) if mode in ("I;16", "I", "F") else pixels.convert(mode)
        image.save(buffer, kind, **_options(drawn, kind, image))
    except Exception:  # a mode or option that the format does not have, whatever Pillow raises then
        buffer = io.BytesIO()
        pixels.save(buffer, "PNG")
    return buffer.getvalue()


def _options(drawn: random.Random, kind: str, image: Image.Image) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if kind in ("JPEG", "PNG", "TIFF", "WEBP") and drawn.random() < 0.4:
        exif = Image.Exif()
        exif[0x0112] = drawn.choice((1, 3, 6, 8, 0, 99, 65535))
        options["exif"] = exif.tobytes() if drawn.random() < 0.7 else mutated(drawn, exif.tobytes())
    if kind in ("GIF", "PNG", "WEBP", "TIFF") and drawn.random() < 0.3:
        options |= {"save_all": True, "append_images": [image.rotate(90 * i) for i in range(drawn.choice((1, 3)))]}
    if kind == "JPEG":
        options["progressive"] = drawn.random() < 0.5
    if kind == "TIFF":
        options["compression"] = drawn.choice((None, "tiff_lzw", "tiff_deflate", "jpeg", "group4", "packbits"))
    return options


def _png(width: int, height: int, depth: int, colour: int, content: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def _bomb(drawn: random.Random) -> bytes:
    side = drawn.choice((9_999, 12_000, 60_000, 2**31 - 1))
    packed = zlib.compressobj(9)
    rows = min(side, 2_000) * (side // 8 + 2) if side < 100_000 else 1_000
    return _png(side, side, 1, 0, packed.compress(bytes(rows)) + packed.flush())


def _large_gif(drawn: random.Random) -> bytes:
    buffer = io.BytesIO()
    Image.new("P", (8, 8)).save(buffer, "GIF")
    data = bytearray(buffer.getvalue())
    data[6:10] = struct.pack("<HH", 65535, drawn.choice((1, 1000, 65535)))
    return bytes(data)


def _large_bitmap(drawn: random.Random) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "BMP")
    data = bytearray(buffer.getvalue())
    data[18:26] = struct.pack("<ii", drawn.choice((-8, 2**31 - 1, 30_000)), drawn.choice((-(2**31), 30_000, -8)))
    return bytes(data)


def _scans(drawn: random.Random) -> bytes:
    buffer = io.BytesIO()
    side = drawn.choice((64, 1024))
    Image.frombytes("L", (side, side), drawn.randbytes(side * side)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * drawn.choice((20, 500)) + data[-2:]


def _plain(content: bytes) -> Callable[[random.Random], bytes]:
    return lambda drawn: content


ODD: tuple[Callable[[random.Random], bytes], ...] = (
    *(_bomb, _large_gif, _large_bitmap, _scans),
    *map(_plain, (b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")),
    *map(
        _plain,
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"P6 99999 99999 255\n", b"P5 1 1 65535\n\x01\x02", b"P3 1"),
    ),
    lambda drawn: drawn.randbytes(drawn.choice((1, 100, 5000))),
)


def _name(drawn: random.Random) -> str:
    start = drawn.choice(("", "1", "x", "._x", "9" * 240, "é", "a b", "x#1", "\n"))
    return f"{start}{drawn.randrange(99)}.{drawn.choice(ENDINGS)}"


def _folder(drawn: random.Random, folder: Path) -> Case:
    root = folder / "photos"
    levels = drawn.choice(((0,), (1,), (1,), (1, 2), (0, 1, 2)))
    names = drawn.choice((NAMES, SOUND))
    for _ in range(drawn.randint(0, 5)):
        below = root.joinpath(*drawn.choices(names, k=drawn.choice(levels)))
        below.mkdir(parents=True, exist_ok=True)
        for _ in range(drawn.randint(1, 4)):
            (below / _name(drawn)).write_bytes(image_bytes(drawn))
    root.mkdir(exist_ok=True)
    for odd in drawn.sample(_ODD_ENTRIES, k=drawn.choice((0, 0, 1, 2))):
        odd(drawn, drawn.choice([root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]))
    return Case("folder", str(root) + drawn.choice(("", "", "", "?orient=exif", "#1/2")))


def _deep(drawn: random.Random, at: Path) -> None:
    levels = drawn.choice((5, 300, 900))
    here = os.open(at, os.O_RDONLY)
    for _ in range(levels):  # one by one: the whole path may be longer than the system takes
        with suppress(FileExistsError):
            os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def _new(path: Path, make: Callable[[Path], object]) -> None:
    if not path.exists() and not path.is_symlink():
        make(path)


_ODD_ENTRIES: tuple[Callable[[random.Random, Path], None], ...] = (
    _deep,
    lambda drawn, at: _new(at / "pipe.png", os.mkfifo),
    lambda drawn, at: _new(at / drawn.choice(("x.tar", "x.parquet", "labels.csv")), os.mkfifo),
    lambda drawn, at: _new(at / "gone.png", lambda path: path.symlink_to("nowhere")),
    lambda drawn, at: _new(at / "loop.png", lambda path: path.symlink_to("loop.png")),
    lambda drawn, at: _new(at / "up", lambda path: path.symlink_to("..")),
    lambda drawn, at: _new(at / "endless.png", lambda path: path.symlink_to("/dev/zero")),
    lambda drawn, at: _new(at / "labels.csv", lambda path: path.write_text("id,label\n1,2\n")),
    lambda drawn, at: _new(at / "more.tar", lambda path: path.write_bytes(_tar_bytes(drawn))),
    lambda drawn, at: _new(at / os.fsdecode(b"\xff\xfe.png"), lambda path: path.write_bytes(image_bytes(drawn))),
)


def _tar_bytes(drawn: random.Random) -> bytes:
    buffer = io.BytesIO()
    kind = drawn.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
    sound, levels = drawn.random() < 0.5, drawn.choice((0, 1, 2))
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for _ in range(drawn.randint(0, 6)):
            info, data = _member(drawn), image_bytes(drawn)
            if sound and drawn.random() < 0.9:
                info = tarfile.TarInfo("/".join([*drawn.choices(SOUND, k=levels), _name(drawn)]))
            if info.islnk() and drawn.random() < 0.7:
                info.linkname = drawn.choice(tar.getnames() or ["x.png"])
            info.size = len(data) if info.isreg() else 0
            try:
                tar.addfile(info, io.BytesIO(data))
            except Exception:  # a header that the format does not have
                continue
    return buffer.getvalue()


def _member(drawn: random.Random) -> tarfile.TarInfo:
    levels = drawn.choice((0, 1, 1, 1, 2, 2, 3000)) if drawn.random() < 0.3 else 1
    start = drawn.choice(("", "", "", "/", "../../", "./", "a//", "train/"))
    info = tarfile.TarInfo(start + "/".join([*drawn.choices(NAMES, k=levels), _name(drawn)]))
    if drawn.random() < 0.3:
        info.type = drawn.choice(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"Z", b"S")
        )
        info.linkname = drawn.choice((info.name, "../../etc/passwd", "", "x" * 300))
    if drawn.random() < 0.2:
        key = drawn.choice(
            ("size", "path", "linkpath", "mtime", "uid", "GNU.sparse.map", "GNU.sparse.size", "hdrcharset")
        )
        info.pax_headers = {key: drawn.choice(("", "-1", "abc", "9" * 5000, "1e400", "0,1,2", "\udcff", "/x/../y"))}
    return info


def _tar(drawn: random.Random, folder: Path) -> Case:
    for i in range(drawn.choice((1, 1, 1, 2))):
        data = _tar_bytes(drawn)
        if drawn.random() < 0.15:
            header = tarfile.TarInfo("././@LongLink")
            header.type = drawn.choice(
                (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_SPARSE)
            )
            header.size = drawn.choice((0, 512, 2**40))
            data = header.tobuf(tarfile.GNU_FORMAT) * drawn.choice((1, 3000)) + data
        if drawn.random() < 0.4:
            data = mutated(drawn, data)
        (folder / f"s-{i}.tar").write_bytes(data)
    return Case("tar", str(drawn.choice((folder, folder / "s-0.tar"))) + drawn.choice(("", "?orient=exif")))


def _values(drawn: random.Random, rows: int) -> Any:
    one: Any = drawn.choice(
        (
            *[lambda: drawn.randrange(3)] * 4,
            *[lambda: drawn.choice(("cat", "dog", "9" * 5000, ""))] * 3,
            lambda: drawn.randbytes(4).hex(),
            lambda: drawn.choice((0, None)),
            lambda: 0.5,
            lambda: -1,
            lambda: 2**62,
            lambda: [1, 2],
            lambda: True,
            lambda: {"bytes": image_bytes(drawn), "path": "x"},
            lambda: {"path": "x"},
            lambda: image_bytes(drawn),
        )
    )
    return pa.array([one() for _ in range(rows)])


def _metadata(drawn: random.Random) -> dict[bytes, bytes]:
    nested: Any = []
    for _ in range(50):
        nested = [nested]
    names = drawn.choice((["cat", "dog", "cow"], [1, 2, 3], None, [None], nested, {"0": "cat"}, "cat", [], ["cat"] * 3))
    features = {
        drawn.choice(("label", "labels", "img")): drawn.choice(
            ({"names": names, "_type": "ClassLabel"}, {"_type": "Image"}, [1], None, names)
        )
    }
    document = json.dumps({"info": {"features": features}}).encode()
    found = drawn.choice((document, mutated(drawn, document), b"[" * 20_000, b"1" * 9000, b"\xff", b"null"))
    return drawn.choice(({b"huggingface": found}, {b"classes": b"cat,dog"}, {b"classes": b"\xff,,"}, {}))


def _parquet(drawn: random.Random, folder: Path) -> Case:
    for i in range(drawn.choice((1, 1, 1, 2))):
        rows = drawn.choice((0, 3, 3, 3))
        names = drawn.sample(("label", "labels", "fine", "id", "img", "", "é", "a.b", "x"), k=drawn.randint(0, 3))
        names += drawn.choice((*[[]] * 8, ["image"], names))
        columns = [_values(drawn, rows) for _ in names]
        if drawn.random() < 0.85:
            names, columns = (
                ["image", *names],
                [pa.array([image_bytes(drawn) for _ in range(rows)], pa.binary()), *columns],
            )
        table = pa.Table.from_arrays(columns, names=names).replace_schema_metadata(_metadata(drawn))
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=2)
        data = buffer.getvalue()
        (folder / f"x-{i}.parquet").write_bytes(mutated(drawn, data) if drawn.random() < 0.2 else data)
    asked = drawn.choice((*[""] * 9, "?label=labels", "?image=img", "?label=image", "?image=label&label=id"))
    return Case("parquet", str(drawn.choice((folder, folder / "x-0.parquet"))) + asked)


_BASES = (
    *("digits", "~", "~nosuchuser/x", "x" * 5000, "a\0b", "\udcff", ".", "/", "//", "", " ", "\n", "é" * 200),
    *(
        "/dev/zero",
        "/dev/null",
        "hfds/",
        "hfds/~x",
        f"hfds/{'x' * 300}",
        "torch/",
        "torch/folder",
        "torch/mnist",
        "wds/x",
    ),
)
_TAILS = (
    *(
        "",
        "#1/2",
        "#0/0",
        f"#1/1{'0' * 5000}",
        "#٣/٤",
        "?split=train",
        f"?split={'x' * 500}&root={'y' * 500}",
        "#",
        "?=",
    ),
    *("?orient=exif", "?a=b", "?label=", "?split=train&root=~nosuchuser/", "?split=train&root=/dev"),
)


def _reference(drawn: random.Random, folder: Path) -> Case:
    text = drawn.choice(_BASES) + drawn.choice(_TAILS) + drawn.choice(("", "", drawn.choice(_TAILS)))
    if text.startswith(("/#", "/?", "//", "~#", "~?")) or text in ("/", "~"):
        text = f"{folder}{text.lstrip('/~')}"  # not the whole disk
    return Case("reference", text)


def _map(drawn: random.Random, folder: Path) -> Case:
    json_like = (
        b'{"a": "b"}',
        b'{"a": 1, "a": 2}',
        b"[" * 50_000,
        b'{"a":' * 50_000,
        b'{"a": ' + b"9" * 9000 + b"}",
        b"null",
    )
    tables = (
        b"teacher,student\na,b\n",
        b"a,b,c\n",
        b'"a\n',
        b"\xff",
        "a,b".encode("utf-16"),
        b"\xef\xbb\xbfa\tb\n",
        b"a,\0\n",
    )
    ending = drawn.choice(("json", "json", "csv", "tsv", "txt"))
    path = folder / f"map.{ending}"
    content = drawn.choice(json_like if ending == "json" else tables)
    if drawn.random() < 0.1:
        os.mkfifo(path)
    else:
        path.write_bytes(mutated(drawn, content) if drawn.random() < 0.4 else content)
    return Case("map", drawn.choice((str(path),) * 20 + ("~nosuchuser/map.json", "x" * 5000, "a\0.csv")), is_map=True)


MAKERS: dict[str, Callable[[random.Random, Path], Case]] = {
    "folder": _folder,
    "map": _map,
    "parquet": _parquet,
    "reference": _reference,
    "tar": _tar,
}
