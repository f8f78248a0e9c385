"""A small share of tests/campaigns/fuzz_models.py: changed model files are loaded or refused in one line."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("transformers")
if sys.platform != "linux":
    pytest.skip("cases run in forked processes, whose memory is limited", allow_module_level=True)

from model_fuzzing import KINDS, make_seeds, outcome_of, run_case

RUNS = 4


def test_changed_files_are_loaded_or_refused_in_one_line(tmp_path: Path) -> None:
    seeds = make_seeds(tmp_path / "seeds")
    for kind in KINDS:
        for number in range(RUNS):
            found = run_case(
                seeds[kind], tmp_path / "seeds" / kind, tmp_path / f"{kind}{number}", number=f"suite/{number}"
            )
            assert found.good, f"{kind} suite/{number}: {found.word} {found.text}"


def test_what_hangs_or_crashes_is_seen(tmp_path: Path) -> None:
    import os
    import time

    hangs = outcome_of(lambda: time.sleep(60), tmp_path / "a", timeout_s=0.5)
    crashes = outcome_of(os.abort, tmp_path / "b", timeout_s=20)
    fails = outcome_of(lambda: print(1 // 0), tmp_path / "c", timeout_s=20)
    assert [found.word for found in (hangs, crashes, fails)] == ["HANG", "CRASH", "TRACEBACK"]
