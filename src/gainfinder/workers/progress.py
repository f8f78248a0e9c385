"""How far a worker is with its cell, noted in the study's folder for whoever looks."""

import os
import socket
import threading
import time
from typing import Any

from ..runs import Callback
from ..study import Cell, StudyFolder

INTERVAL_S = 0.5
"""A note is renewed as often as this while work goes on …"""
BEAT_S = 10.0
"""… and as often as this where a stage says nothing."""


class CellProgress(Callback):
    """Notes the stage, epoch and measures of a cell, and how much was trained in all attempts at it.

    Args:
        folder: the study's folder.
        cell: the cell.
        worker: number of the worker.
    """

    def __init__(self, folder: StudyFolder, cell: Cell, *, worker: int) -> None:
        self.folder = folder
        self.cell = cell
        earlier = folder.last_note(cell)
        self.spent_s = float(earlier.get("spent_s", 0.0))
        self.began_s = time.monotonic()
        self.note: dict[str, Any] = {
            "cell": cell.key,
            "label": cell.label,
            "worker": worker,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "stage": "loading",
            "trained": int(earlier.get("trained", 0)),
            "epoch": 0,
            "epochs": None,
            "share": 0.0,
            "delta_pp": None,
        }
        self._training = False
        self._images, self._done = 0, 0
        self._written_s = 0.0
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._beat = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> "CellProgress":
        self._write()
        self._beat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._beat.join()

    @property
    def seconds(self) -> float:
        """Seconds of work on the cell, those of lost workers included."""
        return self.spent_s + time.monotonic() - self.began_s

    @property
    def trained(self) -> int:
        """Views learned from, those of lost workers included."""
        return int(self.note["trained"])

    def stage(self, name: str, images: int) -> None:
        self._training = False
        self._images, self._done = images, 0
        self._change(stage=name, share=0.0)

    def epoch_begins(self, epoch: int, of: int, images: int, done: int) -> None:
        self._training = True
        self._images, self._done = images, done
        # Its last note may be older than the checkpoint that a lost worker left.
        self.note["trained"] = max(self.note["trained"], (epoch - 1) * images + done)
        self._change(epoch=epoch, epochs=of)

    def advance(self, images: int) -> None:
        self._done += images
        if self._training:
            self.note["trained"] += images
        self._change(share=min(1.0, self._done / max(1, self._images)))

    def epoch(self, row: dict[str, Any]) -> None:
        self.note["delta_pp"] = row.get("transfer_delta_pp")
        self._write()

    def _change(self, **values: Any) -> None:
        self.note.update(values)
        if time.monotonic() - self._written_s >= INTERVAL_S:
            self._write()

    def _write(self) -> None:
        with self._lock:
            self._written_s = time.monotonic()
            self.folder.note_progress(self.cell, {**self.note, "spent_s": self.seconds})

    def _renew(self) -> None:
        while not self._over.wait(BEAT_S):
            self._write()
