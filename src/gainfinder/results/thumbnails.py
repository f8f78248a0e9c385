"""Small copies of the images on which a transfer changed the student's mind, for the report.

Kept in the result folder, because a report is made from that folder alone: the images may be elsewhere by then.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from torch import Tensor

from ..data import Images
from ..errors import BrokenImage, RunFolderError
from ..files import write_atomically
from ..metrics import knowledge_gained, knowledge_lost
from ..predictions import Predictions

MOST = 24
"""Images of a kind, at most."""
SIDE = 96
"""Pixels of the longer side; smaller images stay as they are."""


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """One image.

    Attributes:
        id: of the sample.
        kind: `gained` or `lost`; without labels `changed`.
        image: PNG if it was as small as that, else JPEG.
    """

    id: str
    kind: str
    image: bytes


def make_thumbnails(images: Images, before: Predictions, after: Predictions) -> list[Thumbnail]:
    """Thumbnails of images that the student gained and lost, or, without labels, answers differently.

    Of more than `MOST` of a kind those are taken whose hashed ids come first: a sample that nobody has chosen, and the
    same one every time.

    Args:
        images: those that were measured on.
        before: the student's predictions before the transfer.
        after: and after it, for the same images.
    """
    place = {sample_id: i for i, sample_id in enumerate(images.ids)}
    found = []
    for kind, ids in changed_images(before, after).items():
        kept = 0
        for sample_id in sorted(ids, key=_hashed):
            if kept == MOST:
                break
            try:
                image = shrunk(images.read(place[sample_id]))
            except BrokenImage:  # decoded a moment ago, but the disk may have changed
                continue
            found.append(Thumbnail(id=sample_id, kind=kind, image=image))
            kept += 1
    return found


def shrunk(image: Image.Image) -> bytes:
    """An image at thumbnail size, encoded."""
    small = max(image.size) <= SIDE
    copy = image.convert("RGB")
    copy.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    copy.save(out, **({"format": "PNG"} if small else {"format": "JPEG", "quality": 85}))
    return out.getvalue()


def write_thumbnails(path: Path, thumbnails: Sequence[Thumbnail]) -> None:
    """Write thumbnails as Parquet: `id`, `kind`, `image`."""
    schema = pa.schema([("id", pa.string()), ("kind", pa.string()), ("image", pa.binary())])
    table = pa.Table.from_pylist([asdict(one) for one in thumbnails], schema=schema)
    write_atomically(path, lambda partial: pq.write_table(table, partial))


def read_thumbnails(path: Path) -> list[Thumbnail]:
    """Read what `write_thumbnails` wrote; none where there is no file.

    Raises:
        RunFolderError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        rows = pq.read_table(path, columns=["id", "kind", "image"]).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RunFolderError(f"{path}: not a file of thumbnails as gainfinder writes it: {error}") from error
    return [Thumbnail(**row) for row in rows]


def changed_images(before: Predictions, after: Predictions) -> dict[str, list[str]]:
    """Ids of the images that were gained and lost; without labels, of those that are answered differently."""
    if before.target is None:
        return {"changed": _where(before.predicted != after.predicted, before)}
    by = (before.predicted, after.predicted, before.target)
    return {"gained": _where(knowledge_gained(*by), before), "lost": _where(knowledge_lost(*by), before)}


def _where(mask_N: Tensor, predictions: Predictions) -> list[str]:
    return [predictions.ids[i] for i in mask_N.nonzero().flatten().tolist()]


def _hashed(sample_id: str) -> bytes:
    return hashlib.blake2b(sample_id.encode(), digest_size=8).digest()
