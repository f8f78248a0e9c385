"""Result folders of every kind, made once a module."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import gainfinder
from gainfinder.data.images import Images

SETTINGS: dict[str, Any] = {
    "epochs": 2, "batch_size": 32, "limit": 200, "lr": 3e-2, "workers": 0, "device": "cpu", "method": "kl-dp-u",
}  # fmt: skip


@pytest.fixture(scope="session")
def results(zoo: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders: `transfer`, `guarded`, `sequence`, `soup`, `unlabelled`, `control`, `scan`."""
    folder = tmp_path_factory.mktemp("results")
    student, teacher, other = zoo["convnext"], zoo["vit"], zoo["resnet"]
    data = {"data": "digits#2/4", "val": "digits#1/4"}
    bare: Images = replace(gainfinder.load_images("digits#1/4"), labels=None, num_classes=None)
    gainfinder.transfer(student, teacher, **data, out=folder / "transfer", guard=False, control=True, **SETTINGS)
    gainfinder.transfer(student, teacher, **data, out=folder / "guarded", guard_data="digits#3/4", **SETTINGS)
    gainfinder.transfer(student, [teacher, other], **data, out=folder / "sequence", guard=False, **SETTINGS)
    gainfinder.transfer(
        student, [teacher, other], **data, out=folder / "soup", guard=False, strategy="soup", **SETTINGS
    )
    unlabelled = {"data": "digits#2/4", "val": bare, "labels": "none"}
    gainfinder.transfer(student, teacher, **unlabelled, out=folder / "unlabelled", guard=False, **SETTINGS)
    gainfinder.transfer(student, student, **data, out=folder / "control", guard=False, **SETTINGS)
    gainfinder.scan(list(zoo.values()), "digits#1/4", device="cpu", workers=0, out=folder / "scan")
    return {path.name: path for path in folder.iterdir()}
