"""The defaults that the paper index shows are those of the program."""

import re
from pathlib import Path
from typing import Any

import pytest

from gainfinder.config import DEFAULTS, PRESETS, WEIGHT_DECAY, ResolvedConfig, TransferConfig, resolve_settings
from gainfinder.config.methods import default_method, find_method
from gainfinder.config.resolution import EPOCHS, IMAGES_SEEN, MIXUP, MIXUP_EPOCHS, PATIENCE, PATIENCE_SHARE

PAGE = Path(__file__).parents[2] / "docs" / "paper.md"
ROW = re.compile(r"^\| `(?P<name>\w+)`(?: of `(?P<method>[\w-]+)`)? \| (?P<here>[^|]+) \| (?P<preset>[^|]+) \|", re.M)
SETTINGS = PAGE.read_text(encoding="utf-8").partition("## Settings")[2].partition("## Equations")[0]
ROWS = list(ROW.finditer(SETTINGS))


def resolved(*, preset: Any, method: str | None) -> ResolvedConfig:
    """The settings of a run as long as the paper's."""
    asked = TransferConfig(preset=preset, method=method)
    return resolve_settings(asked, labelled=True, images=128_117, view_size=(224, 224), mirrorable=True)


def shown(cell: str) -> Any:
    text = cell.strip().strip("`")
    return float(text) if re.fullmatch(r"[\d.]+", text) else text


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['name']}-{row['method']}")
def test_a_setting_is_the_programs(row: re.Match[str]) -> None:
    for column, preset in (("here", None), ("preset", "paper")):
        value = shown(row[column])
        of_run = vars(resolved(preset=preset, method=row["method"]))
        asked = vars(TransferConfig.model_validate({"preset": preset}))
        found = of_run[row["name"]] if row["name"] in of_run else asked[row["name"]]
        if isinstance(value, float) or value in ("plateau", "constant", "sgd", "train", "sequential", "ascending"):
            assert value == found, f"{column}: {row['name']} is {found}"


def test_rules_are_the_programs() -> None:
    """Rows that tell a rule in words."""
    cells = {row["name"]: (row["here"], row["preset"]) for row in ROWS if row["method"] is None}
    for cell, preset in zip(cells["method"], (None, "paper"), strict=True):
        methods = [default_method(labelled=labelled, preset=preset) for labelled in (True, False)]
        assert cell == f"`{methods[0]}`; without labels `{methods[1]}`"
    assert find_method("kl-dp").paper_lr == 1e-4 and find_method("xe-kl-mcl").paper_lr == 1e-2
    assert cells["lr"] == ("chosen by trials, else 3e-4 · √(batch / 128)", "1e-4 · batch / 256")
    default = resolved(preset=None, method=None)
    assert default.recipes and (default.optimizer, default.lr) == ("adamw", 3e-4)
    assert cells["optimizer"][0] == f"`{default.optimizer}`"
    assert cells["epochs"][0] == f"at most {IMAGES_SEEN:,} / images, from {EPOCHS[0]} to {EPOCHS[1]}"
    assert cells["patience"][0] == f"{PATIENCE_SHARE} of the epochs, at least {PATIENCE}"
    assert cells["weight_decay"][0] == "0.05 by AdamW, 1e-3 by SGD" and WEIGHT_DECAY == {"adamw": 0.05, "sgd": 1e-3}
    assert cells["mixup"][0].startswith(f"{MIXUP}, but 0 below {MIXUP_EPOCHS} epochs")
    assert cells["trials"] == ("where no rate is given", "no") and not resolved(preset="paper", method=None).recipes
    assert cells["slow_momentum"] == ("1 − 0.5 / interpolations, at least 0.9", "0.9999")
    assert cells["augment"][1] == "`paper`" == f"`{PRESETS['paper']['augment']}`"
    assert TransferConfig().guarded and not TransferConfig(preset="paper").guarded and cells["guard"] == ("on", "off")
    assert TransferConfig().subset is None and cells["subset"] == ("all images", "all images")


def test_every_default_has_a_row() -> None:
    names = {row["name"] for row in ROWS}
    assert {*DEFAULTS, *PRESETS["paper"]} <= names
    assert {"lr", "temperature", "distill_weight", "label_smoothing", "slow_momentum", "warmup_epochs"} <= names
