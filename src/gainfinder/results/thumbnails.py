"""Small copies of the images, or excerpts of the texts, on which a transfer changed the prediction, for the report.

Kept in the result folder, because a report is made from that folder alone: the samples may be elsewhere by then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from ..errors import RunFolderError
from ..files import write_atomically
from ..metrics import knowledge_gained, knowledge_lost
from ..predictions import Predictions

Content: TypeAlias = bytes | tuple[str, ...]
"""What is shown of a sample: an encoded image (PNG if it was as small as that, else JPEG), a text, or two of a pair."""
_IMAGE, _TEXTS = pa.field("image", pa.binary()), pa.field("texts", pa.list_(pa.string()))


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """One sample.

    Attributes:
        id: sample id.
        kind: `gained` or `lost`; without labels `changed`.
        content: what is shown of it.
    """

    id: str
    kind: str
    content: Content


def write_thumbnails(path: Path, thumbnails: Sequence[Thumbnail]) -> None:
    """Write thumbnails as Parquet: `id`, `kind`, and `image`, or of texts the list `texts`."""
    shown = _TEXTS if any(isinstance(one.content, tuple) for one in thumbnails) else _IMAGE
    schema = pa.schema([("id", pa.string()), ("kind", pa.string()), shown])
    rows = [{"id": one.id, "kind": one.kind, shown.name: one.content} for one in thumbnails]
    table = pa.Table.from_pylist(rows, schema=schema)
    write_atomically(path, lambda partial: pq.write_table(table, partial))


def read_thumbnails(path: Path) -> list[Thumbnail]:
    """Read what `write_thumbnails` wrote; none where there is no file.

    Raises:
        RunFolderError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        shown = _TEXTS.name if _TEXTS.name in pq.read_schema(path).names else _IMAGE.name
        rows = pq.read_table(path, columns=["id", "kind", shown]).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RunFolderError(f"{path}: not a file of thumbnails as gainfinder writes it: {error}") from error
    found = [(row["id"], row["kind"], _content(row[shown])) for row in rows]
    if any(not isinstance(name, str) or not isinstance(kind, str) or content is None for name, kind, content in found):
        raise RunFolderError(f"{path}: not a file of thumbnails as gainfinder writes it: values of other types")
    return [Thumbnail(id=name, kind=kind, content=content) for name, kind, content in found if content is not None]


def changed_samples(before: Predictions, after: Predictions) -> dict[str, list[str]]:
    """Ids of the samples that were gained and lost; without labels, of those whose predicted class changed."""
    if before.target is None:
        return {"changed": _where(before.predicted != after.predicted, before)}
    by = (before.predicted, after.predicted, before.target)
    return {"gained": _where(knowledge_gained(*by), before), "lost": _where(knowledge_lost(*by), before)}


def _content(value: object) -> Content | None:
    """What a cell of the file shows; None where it holds something else."""
    if isinstance(value, bytes):
        return value
    return tuple(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else None


def _where(mask_N: Tensor, predictions: Predictions) -> list[str]:
    return [predictions.ids[i] for i in mask_N.nonzero().flatten().tolist()]
