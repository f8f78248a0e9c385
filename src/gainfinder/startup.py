"""How the programs of this package start: what they import stays, so that no garbage is looked for in it."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Around the imports of a program that take seconds: the garbage collector waits, and passes over them afterwards.

    torch, timm and what they need make half a million objects that are never garbage, and to look through them again
    and again takes 5 to 14 % of a short command (benchmarks/speed/README.md). For processes that are gainfinder's own:
    in another one the objects that are passed over would be the user's. Where torch is there already, nothing is
    changed.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        keep_imports()
        gc.enable()


def keep_imports() -> None:
    """Have the garbage collector pass over all that is there, for the rest of this process."""
    gc.freeze()
    # Some extension modules complain of objects that are still there at the very end.
    atexit.register(gc.unfreeze)
