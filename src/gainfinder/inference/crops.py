"""Crops of images on disk: what a run has decoded, the next one reads.

An entry of the bank's folder (`store.py`) holds the evaluation crops of some images, in their order:

    crops/KEY/HxW.npy     uint8 (N, 3, H, W), of the images that could be decoded, for each size
    crops/KEY/rows.npy    int64 (n,), the row of each image, or -1

and its description the reasons of the others. The key is of all that the bits depend on: the encoded images themselves,
the crop, and the libraries that decode, resize and crop.

Shapes: n images, N of them decoded, H and W height and width.
"""

import contextlib
import functools
import hashlib
import json
import logging
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import PIL.features
import timm
import torch
import torchvision

from ..data import Samples, content_digest, is_encoded
from ..errors import RunFolderError
from ..views import CachedCrops, Views, ViewSource, ViewSpec, layout
from .store import CROPS, SPARE_BYTES, Store

FORMAT = 1
"""To be raised when images are decoded or cropped in another way."""
_CODECS = ("libjpeg_turbo", "jpg", "jpg_2000", "libtiff", "webp", "avif")
"""Parts of Pillow whose versions may change pixels."""
_log = logging.getLogger("gainfinder")


class CropFiles:
    """Keeps crops in a bank's folder; a run does without where they cannot be kept, and tells it once.

    Args:
        store: the bank's entries. Crops take what room is left and push out older crops alone.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._used: set[str] = set()
        self._told = False

    def crops(self, images: Samples, spec: ViewSpec, decode: Callable[[], CachedCrops]) -> CachedCrops:
        """The crops of some images: mapped into memory if they are on disk, else decoded, and then kept.

        Waits for another process that decodes the same. Images without encoded content are decoded and not kept.

        Args:
            images: the images.
            spec: specification of their views, whose crops are the same in each epoch.
            decode: makes the crops, on the CPU.

        Returns:
            Crops on the CPU.
        """
        if (content := content_digest(images)) is None:
            return decode()
        key = _key(content, spec)
        digest = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=16).hexdigest()
        self._used.add(digest)
        find = functools.partial(
            self._store.find, f"{CROPS}/{digest}", key, functools.partial(_opened, images=images, spec=spec)
        )
        if (found := find()) is not None:
            return found
        with contextlib.ExitStack() as stack:
            try:
                if not self._store.make_room(_bytes(images, spec), keep=self._used, crops_alone=True):
                    raise OSError("no room is left beside the models' logits")
                stack.enter_context(self._store.locked(f"{CROPS}/{digest}"))
            except OSError as error:
                self._tell(error)
                return decode()
            if (found := find()) is not None:  # another process has made it meanwhile
                return found
            made = decode()
            self._write(f"{CROPS}/{digest}", key, made, images)
            found = find()
            return made if found is None else found

    def _write(self, name: str, key: dict[str, Any], made: CachedCrops, images: Samples) -> None:
        if made.crops is None:
            return
        renderings = made.crops.renderings

        def fill(folder: Path) -> dict[str, Any]:
            """Write the arrays, and say what is broken."""
            np.save(folder / "rows.npy", made.rows_n.numpy())
            for part in renderings:
                np.save(folder / _file_of(part.shape[-2], part.shape[-1]), part.numpy())
            return {"broken": [[at, images.where(at), reason] for at, reason in made.broken.items()]}

        try:
            self._store.write(name, key, fill)
        except (OSError, RunFolderError) as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self._told:
            reason = getattr(error, "strerror", None) or error
            _log.warning("%s: decoded images are not kept there, the run goes on: %s", self._store.folder, reason)
        self._told = True


def crop_bytes(source: ViewSource) -> int:
    """The most bytes that the crops of a source take on disk; 0 where they are not kept."""
    return _bytes(source.images, source.spec) if source.fits and is_encoded(source.images) else 0


def _bytes(images: Samples, spec: ViewSpec) -> int:
    return len(images) * (8 + spec.crop_bytes) + SPARE_BYTES


def _key(content: str, spec: ViewSpec) -> dict[str, Any]:
    """All that crops depend on, as JSON gives it back."""
    libraries = {"pillow": PIL.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__}
    codecs = {name: PIL.features.version(name) for name in _CODECS}
    crops = [spec.crop_at(size).described() for size in spec.sizes]
    # Resizing computes in floating point, which other processors may round in another way.
    key = {"format": FORMAT, "images": content, "crops": crops, **libraries, **codecs, "machine": platform.machine()}
    found: dict[str, Any] = json.loads(json.dumps(key))
    return found


def _opened(folder: Path, meta: dict[str, Any], *, images: Samples, spec: ViewSpec) -> CachedCrops:
    broken = {}
    for at, where, reason in meta["broken"]:
        if images.where(at) != where:  # the reason names the place, and they have moved
            raise ValueError("of images elsewhere")
        broken[at] = reason
    # Mapped for copying on write: that shares the pages as reading does, and torch knows no tensors that cannot be
    # written.
    mapped = [
        np.load(folder / _file_of(*shape[1:]), mmap_mode="c", allow_pickle=False)
        for shape, _ in map(layout, spec.sizes)
    ]
    rows_n = torch.from_numpy(np.load(folder / "rows.npy", allow_pickle=False))
    return CachedCrops(
        crops=Views.of([torch.from_numpy(part) for part in mapped], spec.sizes), rows_n=rows_n, broken=broken
    )


def _file_of(height: int, width: int) -> str:
    return f"{height}x{width}.npy"
