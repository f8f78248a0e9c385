"""Result folders written by hand, without any model."""

import json
from pathlib import Path
from typing import Any

IMAGES = {"reference": "digits", "samples": 4}
CONFIG = {"student": {"reference": "small"}, "teachers": [{"reference": "big"}], "data": IMAGES, "val": IMAGES,
          "settings": {"method": "kl-dp"}}  # fmt: skip
MEASURED: dict[str, Any] = {
    "samples": 4, "agreement": 0.75, "accuracy_before": 0.5, "accuracy_after": 0.75, "transfer_delta_pp": 25.0,
    "transfer_delta_ci_pp": [0.0, 75.0], "knowledge_gain": 0.25, "knowledge_gain_ci": [0.05, 0.7],
    "knowledge_loss": 0.0, "knowledge_loss_ci": [0.0, 0.49], "positive_flips": 0.5, "negative_flips": 0.5,
    "transfer_rate": 0.5, "agreement_with_teachers": [[0.0, 0.25]], "dropped_mass": [0.0],
    "confidence_before": 0.58, "confidence_after": 0.58,
}  # fmt: skip
RESULT = {"format_version": 1, "student": "small", "teachers": ["big"], "method": "kl-dp", **MEASURED}


GUARD = {"alpha": 0.0, "bn_reestimated": False, "points": [], "images": 9, "labelled": True, "held_out": True}
ANSWERED = {
    "verdict": "better", "kept": True, "alpha": 1.0, "bn_reestimated": False, "answers": 9, "decided_after": 9,
    "right_new": 8, "right_old": 1, "evidence_better": 25.0, "evidence_not_better": 0.1, "delta_pp": 5.0,
    "delta_ci_pp": [1.0, 9.0], "changed": 20, "images": 90, "level": 0.05, "seed": 0, "reference": "digits",
}  # fmt: skip


def put(folder: Path, **changes: Any) -> Path:
    """A finished result."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "epochs.jsonl").write_text("")
    (folder / "result.json").write_text(json.dumps({**RESULT, **changes}))
    return folder
