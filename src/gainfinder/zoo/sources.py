"""Which models a scan is of: references in a file, timm's models by a pattern; each loaded while another runs."""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import timm

from ..errors import BadReference, GainfinderError
from ..files import read_user_text
from ..models import Classifier, ModelSource, load_copy, parse_model_ref
from ..references import refuse_trust, suggest


def read_model_list(path: Path) -> list[str]:
    """The model references in a text file, one a line; empty lines and those that begin with # are passed over.

    Args:
        path: the file, UTF-8.

    Raises:
        BadReference: the file cannot be read, names no model, or a line is no reference.
    """
    try:
        lines = read_user_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise BadReference(
            f"{path}: the list of models cannot be read ({error}); expected a reference a line"
        ) from error
    found = []
    for number, line in enumerate(lines, start=1):
        reference = line.strip()
        if not reference or reference.startswith("#"):
            continue
        try:
            parse_model_ref(reference)
        except BadReference as error:
            raise BadReference(f"{path}, line {number}: {error}") from error
        refuse_trust(reference, where=f"{path}, line {number}")
        found.append(reference)
    if not found:
        raise BadReference(f"{path}: names no model; expected a reference a line")
    return found


def timm_models(pattern: str, *, limit: int | None = None) -> list[str]:
    """The names of timm's pretrained models that match a pattern, in timm's order.

    Args:
        pattern: shell pattern such as `resnet*`, as `timm.list_models` takes it.
        limit: the first so many at most.

    Raises:
        BadReference: none matches.
    """
    found: list[str] = timm.list_models(pattern, pretrained=True)
    if not found:
        near = suggest(pattern.strip("*"), timm.list_models())
        raise BadReference(f"timm has no pretrained model that matches {pattern!r}{near}")
    return found if limit is None else found[:limit]


def load_ahead(
    sources: Sequence[ModelSource],
) -> Generator[tuple[ModelSource, Classifier | GainfinderError], None, None]:
    """Load models one after another, each while the caller is busy with the one before.

    At most two are in memory, the caller's and the next.

    Args:
        sources: references, classifiers or modules; of the latter two copies are given.

    Yields:
        Each source with its classifier, or with the reason that it cannot be loaded.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            coming = pool.submit(_loaded, sources[0]) if sources else None
            for number, source in enumerate(sources):
                assert coming is not None
                found = coming.result()
                coming = pool.submit(_loaded, sources[number + 1]) if number + 1 < len(sources) else None
                yield source, found
                del found
        finally:  # the caller has stopped: do not wait for the next
            pool.shutdown(wait=False, cancel_futures=True)


def _loaded(source: ModelSource) -> Classifier | GainfinderError:
    try:
        return load_copy(source)
    except GainfinderError as error:
        return error
