"""Small copies of the images on which a transfer changed the student's prediction, for the report.

Kept in the result folder, because a report is made from that folder alone: the images may be elsewhere by then.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from ..errors import RunFolderError
from ..files import write_atomically
from ..metrics import knowledge_gained, knowledge_lost
from ..predictions import Predictions


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """One image.

    Attributes:
        id: sample id.
        kind: `gained` or `lost`; without labels `changed`.
        image: encoded bytes: PNG if the image was as small as that, else JPEG.
    """

    id: str
    kind: str
    image: bytes


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
    kinds = {"id": str, "kind": str, "image": bytes}
    if any(not isinstance(row[name], kind) for row in rows for name, kind in kinds.items()):
        raise RunFolderError(f"{path}: not a file of thumbnails as gainfinder writes it: values of other types")
    return [Thumbnail(**row) for row in rows]


def changed_images(before: Predictions, after: Predictions) -> dict[str, list[str]]:
    """Ids of the images that were gained and lost; without labels, of those whose predicted class changed."""
    if before.target is None:
        return {"changed": _where(before.predicted != after.predicted, before)}
    by = (before.predicted, after.predicted, before.target)
    return {"gained": _where(knowledge_gained(*by), before), "lost": _where(knowledge_lost(*by), before)}


def _where(mask_N: Tensor, predictions: Predictions) -> list[str]:
    return [predictions.ids[i] for i in mask_N.nonzero().flatten().tolist()]
