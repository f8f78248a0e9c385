"""The data's way through the package: each module imports only what stands above it in this list."""

import ast
import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gainfinder

SOURCE = Path(gainfinder.__file__).parent
ORDER = (
    "startup",
    "redaction",
    "errors",
    "_version",
    "references",
    "files",
    "libraries",
    "partition",
    "config",
    "predictions",
    "metrics",
    "losses",
    "classes",
    "data",
    "models",
    "devices",
    "views",
    "inference",
    "training",
    "results",
    "study",
    "runs",
    "heads",
    "zoo",
    "profiling",
    "workers",
    "report",
    "integrations",
    "sharing",
    "api",
    "demo",
    "cli",
)
"""Packages and loose modules; a package's own modules may import each other as long as no circle comes of it."""
LOOSE_AT_MOST = 11
PURE = ("partition", "config", "predictions", "metrics", "losses", "classes")
"""They touch no model, image or network: what they import at run time has none of `HEAVY` in it."""
READ_ALONE = ("results", "study", "report")
"""They read what a run left, without what made it: none of `HEAVY` but PIL either."""
HEAVY = {"torchvision", "timm", "accelerate", "transformers", "PIL", "huggingface_hub"}
FORBIDDEN = {"os", "pathlib", "io", "json", "timm", "requests", "logging"}
ALLOWED = {"config": {"pathlib"}}
"""A setting can be a path."""
READERS = {
    "config/run_file.py",
    "config/toml_file.py",
    "predictions/files.py",
    "predictions/value.py",
    "classes/map_file.py",
}
"""The files of pure packages that may know files."""
MODULES = sorted(path.relative_to(SOURCE).with_suffix("").parts for path in SOURCE.rglob("*.py"))
PACKAGES = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))


def targets_imported(path: Path, package: tuple[str, ...]) -> set[tuple[str, ...]]:
    """The modules of gainfinder that a file imports from, as tuples of names below the package's root."""
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            target = (*base, *(node.module.split(".") if node.module else ()))
            found |= {target} if target else {(alias.name,) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gainfinder."):
            found.add(tuple((node.module or "").split(".")[1:]))
    return found


def stages_imported(path: Path, package: tuple[str, ...]) -> set[str]:
    """The top-level modules of gainfinder that a file imports."""
    return {target[0] for target in targets_imported(path, package)}


@pytest.mark.parametrize("parts", MODULES, ids="/".join)
def test_no_module_imports_what_stands_below_it(parts: tuple[str, ...]) -> None:
    stage = parts[0]
    if stage in {"__init__", "__main__"}:
        return
    assert stage in ORDER, f"{stage} has no place in the order: add it"
    path = SOURCE.joinpath(*parts).with_suffix(".py")
    below = ORDER[ORDER.index(stage) + 1 :]
    assert not stages_imported(path, parts[:-1]) & set(below)


@pytest.mark.parametrize("parts", MODULES, ids="/".join)
def test_nobody_reaches_into_another_package(parts: tuple[str, ...]) -> None:
    path = SOURCE.joinpath(*parts).with_suffix(".py")
    for target in targets_imported(path, parts[:-1]):
        inner = target[0] in PACKAGES and len(target) > 1
        assert not inner or target[0] == parts[0], f"{path} imports {'.'.join(target)}: import from {target[0]}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_takes_and_gives(package: str) -> None:
    text = ast.get_docstring(ast.parse((SOURCE / package / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert package == "cli" or ("In: " in text and "Out: " in text)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_imports(package: str) -> None:
    text = ast.get_docstring(ast.parse((SOURCE / package / "__init__.py").read_text(encoding="utf-8"))) or ""
    said = re.search(r"^Imports: ([\w,\s]+)\.$", text, flags=re.MULTILINE)
    assert said is not None
    paths = [SOURCE.joinpath(*parts).with_suffix(".py") for parts in MODULES if parts[0] == package]
    found = set().union(*(stages_imported(path, path.relative_to(SOURCE).parent.parts) for path in paths))
    assert re.split(r",\s+", said[1]) == [stage for stage in ORDER if stage in found - {package, "_version"}]


def test_few_modules_lie_loose() -> None:
    loose = {parts[0] for parts in MODULES if len(parts) == 1} - {"__init__", "__main__"}
    assert len(loose) <= LOOSE_AT_MOST, sorted(loose)


@pytest.mark.parametrize("stage", PURE)
def test_pure_modules_touch_no_file_network_or_model(stage: str) -> None:
    paths = [path for path in (SOURCE / f"{stage}.py", *(SOURCE / stage).rglob("*.py")) if path.exists()]
    assert paths
    for path in paths:
        if str(path.relative_to(SOURCE)) in READERS:
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {
            (node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
        }
        assert not names & {"os", "pathlib", "io", "json", "timm", "requests", "logging"} - ALLOWED.get(stage, set()), (
            path
        )


@functools.cache
def libraries_loaded(stages: tuple[str, ...]) -> dict[str, set[str]]:
    """What importing packages one after another loads, in a process of their own: after each, all that is there."""
    code = f"import importlib, sys\nfor stage in {stages}: importlib.import_module('gainfinder.' + stage); "
    code += "print(stage, *sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in out.splitlines()]
    return {stage: {name.split(".")[0] for name in names} for stage, *names in lines}


@pytest.mark.parametrize("stage", PURE)
def test_the_currency_comes_without_models_and_images(stage: str) -> None:
    assert not libraries_loaded(PURE)[stage] & HEAVY


@pytest.mark.parametrize("stage", READ_ALONE)
def test_results_are_read_without_models_and_images(stage: str) -> None:
    assert not libraries_loaded(READ_ALONE)[stage] & (HEAVY - {"PIL"})


def test_the_library_prints_nothing() -> None:
    for path in SOURCE.rglob("*.py"):
        if path.is_relative_to(SOURCE / "cli"):
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path


def test_the_public_names() -> None:
    assert set(gainfinder.__all__) == {
        "Callback", "Classifier", "GainfinderError", "Predictions", "TransferConfig", "TransferLoss", "TransferMetrics",
        "TransferResult", "TransferSpec", "TransferTask", "ask", "certify", "export", "fit_head", "flips",
        "list_results", "load_images", "load_model", "load_samples", "objectives", "partition", "predict", "push",
        "rank", "repeat", "run", "run_study", "scan", "study_rows", "transfer", "write_report",
    }  # fmt: skip
    for name in gainfinder.__all__:
        assert getattr(gainfinder, name) is not None
    functions = {name for name in gainfinder.__all__ if name.islower()} - {"flips", "objectives", "partition"}
    for name in functions:
        assert callable(getattr(gainfinder, name)), f"{name} is shadowed by a module"
    with pytest.raises(AttributeError, match="no attribute 'transfr'"):
        gainfinder.transfr  # type: ignore[attr-defined]  # noqa: B018


def names_imported(path: Path) -> set[tuple[str, str]]:
    """What a file outside the package imports of it: module and name, no name where a module is imported whole."""
    found: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {(node.module or "", alias.name) for alias in node.names}
    return {(module, name) for module, name in found if module.split(".")[0] == "gainfinder"}


def test_benchmarks_use_public_names_alone() -> None:
    paths = sorted((Path(__file__).parents[1] / "benchmarks").rglob("*.py"))
    assert paths
    for path in paths:
        for module, name in names_imported(path):
            assert module.count(".") <= 1, f"{path} imports {module}, an inner module: import from its package"
            public = importlib.import_module(module)
            assert not name or name in public.__all__, f"{path} imports {name}, which {module} does not export"
