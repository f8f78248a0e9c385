"""JPEG decoders against Pillow, what the package decodes with: images a second, and whether the pixels are the same.

    pip install simplejpeg torchcodec
    python -m benchmarks.decoders.compare --images IMAGES --out benchmarks/decoders/compare.csv

On CIFAR-10 images of 32×32 (`IMAGES/test.parquet`) and on photo-like ones of 500×375, quality 90, that it makes itself.
Three kinds of work: `own` (the decoder's own result: a PIL image, an array, a tensor), `pil` (a PIL image, what the
package goes on with) and `view` (the evaluation crop of that image). In this process, of one thread, and in two worker
processes that hand nothing back. In each round every decoder has its turn, the first of them another one each time.
Prints, in Markdown, medians over the rounds, the agreement with Pillow also on JPEGs out of the ordinary, and what of a
view's processor time is decoding. Decoders that are not installed are left out.
"""

import argparse
import functools
import importlib
import importlib.metadata
import io
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image, features

from benchmarks.lab import rows
from gainfinder.data import decode
from gainfinder.models import Preprocessing
from gainfinder.views import evaluation_crop

WORKS = ("own", "pil", "view")
PARTS = 8
"""Pieces that the two workers take in turn."""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """How images are decoded.

    Attributes:
        read: the decoder's own result of a JPEG's bytes, for a view resized to this shorter edge, RGB.
        image: the PIL image of that result.
        shrinks: whether the result may be smaller than the JPEG.
    """

    read: Callable[[bytes, int], Any]
    image: Callable[[Any], Image.Image] = lambda result: result
    shrinks: bool = False


@dataclass(frozen=True, kw_only=True)
class Case:
    """Images and their view.

    Attributes:
        jpegs: the images' bytes.
        crop: of the view.
        decoders: those measured on it; all if None.
    """

    jpegs: Sequence[bytes]
    crop: Preprocessing
    decoders: Sequence[str] | None = None

    @property
    def edge(self) -> int:
        """The shorter edge, in pixels, that the view is cropped from."""
        return int(self.crop.view_size[0] / self.crop.crop_pct)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cifar", type=int, default=2000, help="how many CIFAR images")
    parser.add_argument("--photos", type=int, default=128, help="how many photo-like images")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"{args.out} is there already: rounds of two runs do not belong into one file")
    decoders = installed()
    cifar = pq.read_table(args.images / "test.parquet")["image"][: args.cifar].to_pylist()
    cifar = [one["bytes"] if isinstance(one, dict) else one for one in cifar]
    photos = [photo(args.seed + i) for i in range(args.photos)]
    print(f"photos: {statistics.mean(map(len, photos)) / 1000:.0f} kB on average")
    cases = {
        "cifar-32": Case(jpegs=cifar, crop=crop(32, 1.0)),
        "photo-224": Case(jpegs=photos, crop=crop(224, 0.875)),
        "photo-112": Case(jpegs=photos, crop=crop(112, 0.875), decoders=("pillow", "pillow-draft")),
    }
    measured = measure(cases, decoders, rounds=args.rounds, out=args.out)
    for name in cases:
        print_medians([row for row in measured if row["images"] == name], name)
    print_kinds(decoders)


# --- decoders


def installed() -> dict[str, Decoder]:
    """The decoders that can be used here, by name; says of the others why not."""
    found = {}
    for name, load in LOADERS.items():
        try:
            found[name] = load()
        except (AttributeError, ImportError) as error:  # not installed, or of a version that decodes no images
            print(f"{name}: skipped, {error}")
            continue
        package = name.split("-")[0]
        print(f"{name}: {package} {importlib.metadata.version(package)}")
    print(f"Pillow's libjpeg-turbo: {features.version('libjpeg_turbo')}")
    return found


def load_pillow() -> Decoder:
    """As the package does it."""
    return Decoder(read=lambda data, edge: decode(io.BytesIO(data)))


def load_pillow_bare() -> Decoder:
    """Without warnings held back, and without the copy that `convert` makes of an RGB image."""

    def read(data: bytes, edge: int) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")

    return Decoder(read=read)


def load_pillow_draft() -> Decoder:
    """Shrunk in loading by 2, 4 or 8, as far as the view's shorter edge allows."""

    def read(data: bytes, edge: int) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (edge, edge))
        return image.convert("RGB")

    return Decoder(read=read, shrinks=True)


def load_torchvision() -> Decoder:
    """Its `decode_jpeg`, of a buffer that is not copied."""
    torchvision = importlib.import_module("torchvision.io")
    decode_jpeg, rgb = torchvision.decode_jpeg, torchvision.ImageReadMode.RGB

    def read(data: bytes, edge: int) -> torch.Tensor:
        pixels: torch.Tensor = decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), mode=rgb)
        return pixels

    return Decoder(read=read, image=of_tensor)


def load_torchcodec() -> Decoder:
    """Its `decode_jpeg`, since 0.16."""
    decode_jpeg = importlib.import_module("torchcodec.decoders").decode_jpeg
    return Decoder(read=lambda data, edge: decode_jpeg(data, mode="RGB"), image=of_tensor)


def load_simplejpeg() -> Decoder:
    """With the exact transform and interpolated chroma, its defaults."""
    decode_jpeg = importlib.import_module("simplejpeg").decode_jpeg
    return Decoder(read=lambda data, edge: decode_jpeg(data, "RGB"), image=Image.fromarray)


def of_tensor(tensor: torch.Tensor) -> Image.Image:
    """The PIL image of uint8 (3, H, W)."""
    return Image.fromarray(tensor.permute(1, 2, 0).numpy())


LOADERS: dict[str, Callable[[], Decoder]] = {
    "pillow": load_pillow,
    "pillow-bare": load_pillow_bare,
    "torchvision": load_torchvision,
    "torchcodec": load_torchcodec,
    "simplejpeg": load_simplejpeg,
    "pillow-draft": load_pillow_draft,
}


# --- images


def crop(size: int, crop_pct: float) -> Preprocessing:
    """An evaluation crop, bicubic."""
    return Preprocessing(input_size=(3, size, size), crop_pct=crop_pct)


def photo(seed: int, size: tuple[int, int] = (500, 375), **options: Any) -> bytes:
    """A photo-like JPEG, quality 90: smooth fields from coarse to fine, in grey and weaker in colour, and grain."""
    return encoded(Image.fromarray(fields(seed, size)), **options)


def encoded(image: Image.Image, **options: Any) -> bytes:
    """A JPEG, quality 90."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def fields(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Pixels, uint8 (H, W, 3)."""
    draw = np.random.default_rng(seed)
    pixels = np.full((size[1], size[0], 3), 128.0)
    for octave in range(7):
        grid = (3 * 2**octave, 4 * 2**octave)
        grey, colour = draw.normal(size=grid), draw.normal(size=(*grid, 3))
        for channel in range(3):
            field = Image.fromarray((grey + 0.4 * colour[..., channel]).astype(np.float32))
            pixels[..., channel] += 42 * 0.62**octave * np.asarray(field.resize(size, Image.Resampling.BICUBIC))
    pixels += draw.normal(scale=4.0, size=(*pixels.shape[:2], 1))
    return pixels.round().clip(0, 255).astype(np.uint8)


def kinds() -> dict[str, list[bytes]]:
    """JPEGs out of the ordinary."""
    image = Image.fromarray(fields(0, (500, 375)))
    turned = Image.Exif()
    turned[0x0112] = 6
    usual = encoded(image)
    return {
        "any settings": [varied(seed) for seed in range(200)],
        "progressive": [encoded(image, progressive=True)],
        "restart markers": [encoded(image, restart_marker_blocks=4)],
        "1×1": [photo(0, (1, 1))],
        "turned by EXIF": [encoded(image, exif=turned)],
        "grey": [encoded(image.convert("L"))],
        "RGB inside": [encoded(image, keep_rgb=True, subsampling=0)],
        "CMYK": [encoded(image.convert("CMYK"))],
        "cut off": [usual[: len(usual) * i // 10] for i in range(1, 10)],
        "a byte changed": [damaged(photo(seed, (100, 75)), seed) for seed in range(200)],
        "no JPEG": [b"", b"text", usual[2:]],
    }


def varied(seed: int) -> bytes:
    """A JPEG of any size up to 300×300, quality from 20 to 100, subsampling and scans."""
    draw = np.random.default_rng(seed)
    width, height = (int(edge) for edge in draw.integers(1, 301, 2))
    file = io.BytesIO()
    Image.fromarray(fields(seed, (width, height))).save(
        file,
        "JPEG",
        quality=int(draw.integers(20, 101)),
        subsampling=int(draw.integers(3)),
        progressive=bool(draw.integers(2)),
    )
    return file.getvalue()


def damaged(data: bytes, seed: int) -> bytes:
    """One byte changed, anywhere."""
    draw = np.random.default_rng(seed)
    changed = bytearray(data)
    changed[draw.integers(len(data))] ^= int(draw.integers(1, 256))
    return bytes(changed)


# --- measuring


def measure(cases: Mapping[str, Case], decoders: Mapping[str, Decoder], *, rounds: int, out: Path) -> list[Row]:
    """Rows of all rounds, written as they come."""
    set_up(cases)
    measured = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=set_up, initargs=(cases,)) as pool:
        tasks = []
        for name, case in cases.items():
            for work in WORKS:
                names = [one for one in decoders if case.decoders is None or one in case.decoders]
                tasks.append((name, work, names, {one: agreement(case, decoders, one) for one in names}))
                for one in names:  # warm
                    spend(name, one, work, 0, PARTS)
                    list(pool.map(spend, *zip(*[(name, one, work, 0, PARTS)] * 4, strict=True)))
        for turn in range(rounds):
            for name, work, names, agreements in tasks:
                first = turn % len(names)
                for one in names[first:] + names[:first]:
                    for processes in (1, 2):
                        seconds, cpu = timed(pool if processes == 2 else None, name, one, work)
                        count = len(cases[name].jpegs)
                        row = {
                            "images": name,
                            "decoder": one,
                            "work": work,
                            "processes": processes,
                            "round": turn,
                            "images_per_s": round(count / seconds, 1),
                            "cpu_ms_per_image": round(1000 * cpu / count, 4),
                            **agreements[one],
                        }
                        rows.append(out, row)
                        measured.append(row)
    return measured


def timed(pool: ProcessPoolExecutor | None, case: str, decoder: str, work: str) -> tuple[float, float]:
    """Seconds on the clock and of the processors."""
    start = time.perf_counter()
    if pool is None:
        cpu = spend(case, decoder, work, 0, 1)
    else:
        parts = [(case, decoder, work, part, PARTS) for part in range(PARTS)]
        cpu = sum(pool.map(spend, *zip(*parts, strict=True)))
    return time.perf_counter() - start, cpu


def set_up(cases: Mapping[str, Case]) -> None:
    """Of each process: its images, one thread, and no warnings of buffers that cannot be written or old interfaces."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    CASES.update(cases)


def spend(case: str, decoder: str, work: str, part: int, parts: int) -> float:
    """Do the work for every so many-th of the images; seconds of the processor."""
    images, how = CASES[case], loaded(decoder)
    edge, view = images.edge, evaluation_crop(images.crop)
    start = time.process_time()
    for data in images.jpegs[part::parts]:
        result = how.read(data, edge)
        if work != "own":
            result = how.image(result)
        if work == "view":
            view(result)
    return time.process_time() - start


CASES: dict[str, Case] = {}


@functools.cache
def loaded(decoder: str) -> Decoder:
    """A decoder by its name, once a process."""
    return LOADERS[decoder]()


def agreement(case: Case, decoders: Mapping[str, Decoder], decoder: str) -> Row:
    """Share of images whose pixels all equal Pillow's, and the largest difference; of views where decoders shrink."""
    ours, theirs = decoders["pillow"], decoders[decoder]
    differences = []
    for data in case.jpegs:
        pair: list[Any] = [how.image(how.read(data, case.edge)) for how in (ours, theirs)]
        if theirs.shrinks:
            pair = [evaluation_crop(case.crop)(image) for image in pair]
        differences.append(difference(*pair))
    return {
        "compared": "views" if theirs.shrinks else "pixels",
        "equal": round(statistics.mean(one == 0 for one in differences), 4),
        "largest_difference": max(differences),
    }


def difference(one: Any, other: Any) -> int:
    """The largest absolute difference of pixels; 256 where the sizes differ."""
    a, b = np.asarray(one).astype(int), np.asarray(other).astype(int)
    return int(abs(a - b).max()) if a.shape == b.shape else 256


# --- tables


def print_medians(measured: Sequence[Row], name: str) -> None:
    """The medians of one case, and how many times Pillow's speed: median, least and most of the rounds' ratios."""
    for processes, title in ((1, "one process"), (2, "two workers")):
        titles = ["equal", "largest difference", *WORKS, *(f"{work}, processor ms" for work in WORKS)]
        print(f"\n{name}, {title}, images/s (times Pillow's, least to most of the rounds):\n")
        print(f"| decoder | {' | '.join(titles)} |")
        print("|---" * (1 + len(titles)) + "|")
        for decoder in dict.fromkeys(row["decoder"] for row in measured):
            of_it = next(row for row in measured if row["decoder"] == decoder)
            cells = [f"{of_it['equal']:.0%} of {of_it['compared']}", str(of_it["largest_difference"])]
            for work in WORKS:
                own = by_round(measured, decoder, work, processes, "images_per_s")
                pillow = by_round(measured, "pillow", work, processes, "images_per_s")
                ratios = [a / b for a, b in zip(own, pillow, strict=True)]
                ratio = f" ({statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f})"
                cells.append(f"{statistics.median(own):,.0f}{'' if decoder == 'pillow' else ratio}")
            for work in WORKS:
                cpu = by_round(measured, decoder, work, processes, "cpu_ms_per_image")
                cells.append(f"{statistics.median(cpu):.3f}")
            print(f"| `{decoder}` | {' | '.join(cells)} |")
    decoding, view = (by_round(measured, "pillow", work, 1, "cpu_ms_per_image") for work in ("own", "view"))
    shares = [a / b for a, b in zip(decoding, view, strict=True)]
    print(
        f"\nPillow, processor time an image: {statistics.median(decoding):.3f} ms decoding, "
        f"{statistics.median(view):.3f} ms with the view: {statistics.median(shares):.0%} "
        f"({min(shares):.0%} to {max(shares):.0%}) is decoding."
    )


def by_round(measured: Sequence[Row], decoder: str, work: str, processes: int, column: str) -> list[float]:
    """A column of one task, in the order of the rounds."""
    task = (decoder, work, processes)
    return [row[column] for row in measured if (row["decoder"], row["work"], row["processes"]) == task]


def print_kinds(decoders: Mapping[str, Decoder]) -> None:
    """What each decoder makes of JPEGs out of the ordinary: how many of them as Pillow does, and what of the others."""
    names = [name for name, how in decoders.items() if not how.shrinks]
    print(f"\n| JPEG | {' | '.join(f'`{name}`' for name in names)} |")
    print("|---" * (1 + len(names)) + "|")
    for kind, files in kinds().items():
        cells = []
        for name in names:
            found = Counter(compared(decoders["pillow"], decoders[name], data) for data in files)
            cells.append(", ".join(f"{count} {outcome}" for outcome, count in found.most_common()))
        print(f"| {kind} | {' | '.join(cells)} |")


def compared(pillow: Decoder, other: Decoder, data: bytes) -> str:
    """How another decoder's outcome compares with Pillow's."""
    expected, found = attempted(pillow, data), attempted(other, data)
    if expected is None or found is None:
        return "both refuse" if expected is found else "refused" if found is None else "decoded, Pillow refuses"
    largest = difference(expected, found)
    return "equal" if largest == 0 else "of other size" if largest == 256 else "of other pixels"


def attempted(how: Decoder, data: bytes) -> Image.Image | None:
    """The image, or None where the decoder refuses it."""
    try:
        return how.image(how.read(data, 1))
    except Exception:  # each library has errors of its own
        return None


if __name__ == "__main__":
    main()
