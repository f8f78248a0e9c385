"""The data's way through the package: each module imports only what stands above it in this list."""

import ast
from pathlib import Path

import pytest

import gainfinder

SOURCE = Path(gainfinder.__file__).parent
ORDER = (
    "errors",
    "references",
    "flips",
    "intervals",
    "partition",
    "calibration",
    "objectives",
    "contrastive",
    "label_map",
    "files",
    "bank",
    "library_calls",
    "tracking",
    "weight_space",
    "normalisation",
    "models",
    "data",
    "classes",
    "alignment",
    "devices",
    "augmentation",
    "views",
    "view_source",
    "predictions",
    "methods",
    "settings",
    "losses",
    "feature_comparison",
    "targets",
    "checkpoint",
    "learner",
    "training",
    "information",
    "evaluation",
    "breakdown",
    "guard",
    "run_folder",
    "scan_folder",
    "thumbnails",
    "report",
    "pairs",
    "planning",
    "run_models",
    "run_bank",
    "run_guard",
    "run_result",
    "run",
    "run_control",
    "strategies",
    "timing",
    "estimate",
    "doctor",
    "demo",
    "cli",
)
PURE = (
    "flips",
    "partition",
    "calibration",
    "information",
    "objectives",
    "label_map",
    "intervals",
    "classes",
    "methods",
)
MODULES = sorted(path.relative_to(SOURCE).with_suffix("").parts for path in SOURCE.rglob("*.py"))


def stages_imported(path: Path, package: tuple[str, ...]) -> set[str]:
    """The top-level modules of gainfinder that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            target = (*base, *(node.module.split(".") if node.module else ()))
            found |= {target[0]} if target else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gainfinder."):
            found.add((node.module or "").split(".")[1])
    return found - {"__version__"}


@pytest.mark.parametrize("parts", MODULES, ids="/".join)
def test_no_module_imports_what_stands_below_it(parts: tuple[str, ...]) -> None:
    stage = parts[0]
    if stage in {"__init__", "__main__"}:
        return
    assert stage in ORDER, f"{stage} has no place in the order: add it"
    path = SOURCE.joinpath(*parts).with_suffix(".py")
    below = ORDER[ORDER.index(stage) + 1 :]
    assert not stages_imported(path, parts[:-1]) & set(below)


@pytest.mark.parametrize("stage", PURE)
def test_pure_modules_touch_no_file_network_or_model(stage: str) -> None:
    paths = [path for path in (SOURCE / f"{stage}.py", *(SOURCE / stage).rglob("*.py")) if path.exists()]
    assert paths
    for path in paths:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {
            (node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
        }
        assert not names & {"os", "pathlib", "io", "json", "timm", "requests", "logging"}, path
        assert stages_imported(path, path.relative_to(SOURCE).parent.parts) <= {"errors", "references", *PURE}, path


def test_the_library_prints_nothing() -> None:
    for path in SOURCE.rglob("*.py"):
        if path.is_relative_to(SOURCE / "cli"):
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path


def test_the_public_names() -> None:
    assert set(gainfinder.__all__) == {
        "GainfinderError", "flips", "load_images", "load_model", "objectives", "partition", "predict", "scan",
        "transfer", "write_report",
    }  # fmt: skip
    for name in gainfinder.__all__:
        assert getattr(gainfinder, name) is not None
    for name in ("load_images", "load_model", "predict", "scan", "transfer", "write_report"):
        assert callable(getattr(gainfinder, name)), f"{name} is shadowed by a module"
    with pytest.raises(AttributeError, match="no attribute 'transfr'"):
        gainfinder.transfr  # noqa: B018
