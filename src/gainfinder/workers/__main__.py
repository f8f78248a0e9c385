"""A worker process of this machine: `python -m gainfinder.workers TASK`, the task as JSON. It ends with its parent."""

import os
import sys
import threading

from ..startup import keep_imports
from .task import WorkerTask
from .worker import work

LOST = 1


def _end_with_parent() -> None:
    """The parent holds the other end of standard input, which closes when it ends, however it ends."""
    # Not by sys.stdin, whose lock a thread may not hold while the interpreter ends.
    while os.read(0, 1):
        pass
    os._exit(LOST)  # checkpoints are written atomically: there is nothing to clean up


def main() -> None:
    """Run the task that the command line gives."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_imports()
    work(WorkerTask.from_json(sys.argv[1]))


if __name__ == "__main__":
    main()
