"""What a worker is told: a few plain values, which any engine can carry to it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """A worker of a study.

    Attributes:
        out: the study's folder.
        directory: folder that relative references start from.
        number: number of the worker, from 0.
        workers: number of workers; they begin at different places.
        threads: number of torch's threads; None leaves it to torch.
        mirror: URL of a folder that finished cells are copied to, too (any that fsspec knows); None for none.
    """

    out: str
    directory: str
    number: int = 0
    workers: int = 1
    threads: int | None = None
    mirror: str | None = None

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return Path(self.out)

    def to_json(self) -> str:
        """The task as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "WorkerTask":
        """What `to_json` wrote."""
        return cls(**json.loads(text))
