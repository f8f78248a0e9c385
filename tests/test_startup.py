"""What a program imports is passed over by the garbage collector; what a user's process holds is left alone."""

import gc
import subprocess
import sys

STARTED = """
import gc, sys
from gainfinder.startup import heavy_imports
with heavy_imports():
    assert not gc.isenabled()
    import torch
print(gc.isenabled(), gc.get_freeze_count() > 10_000, gc.get_count()[0] < 10_000)
"""


def test_imports_of_a_program_are_passed_over() -> None:
    done = subprocess.run([sys.executable, "-c", STARTED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True"]


def test_a_process_that_has_torch_is_left_as_it_is() -> None:
    import torch  # noqa: F401

    from gainfinder.startup import heavy_imports

    before = gc.get_freeze_count()
    with heavy_imports():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before
