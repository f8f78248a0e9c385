"""The wheel as users have it: built, unpacked into an environment without the source tree, and used from elsewhere."""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import gainfinder

from .conftest import ROOT, build

SOURCE = ROOT / "src" / "gainfinder"
COMMANDS = """
    import sys
    from importlib.metadata import entry_points
    (script,) = entry_points(group="console_scripts", name="gainfinder")
    for line in sys.argv[1:]:
        sys.argv = ["gainfinder", *line.split()]
        try:
            script.load()()
        except SystemExit as end:
            assert not end.code, line
"""
EXTRAS = {"transformers", "datasets", "onnx", "onnxruntime", "open_clip", "sentence_transformers", "ray", "submitit"}
Python = Callable[..., str]


@pytest.fixture
def python(environment: Path, tmp_path: Path) -> Python:
    """Run code in that environment, from an empty folder."""

    def run(code: str, *arguments: str) -> str:
        done = subprocess.run(
            [environment / "bin" / "python", "-I", "-c", textwrap.dedent(code), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def members(path: Path) -> set[str]:
    """Names of a wheel's files, or of an sdist's below its folder."""
    if path.suffix == ".whl":
        return set(zipfile.ZipFile(path).namelist())
    with tarfile.open(path) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    expected = {
        path.relative_to(SOURCE.parent).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "gainfinder/py.typed" in expected
    info = f"gainfinder-{gainfinder.__version__}.dist-info"
    assert members(wheel) == expected | {
        f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }


def test_the_licence_travels_along(wheel: Path) -> None:
    info = f"gainfinder-{gainfinder.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        licence = archive.read(f"{info}/licenses/LICENSE").decode()
        metadata = archive.read(f"{info}/METADATA").decode().partition("\n\n")[0].splitlines()
    assert licence == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence and "Version 2.0, January 2004" in licence and licence.count("\n") == 202
    assert {"License-Expression: Apache-2.0", "License-File: LICENSE", "Requires-Python: >=3.11"} <= set(metadata)


def test_the_sdist_holds_every_file_under_version_control(sdist: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {name for name in listed.split("\0") if name and (ROOT / name).exists()}
    assert len(tracked) > 100 and tracked - members(sdist) == set()


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    again = build("wheel", of=tree, into=tmp_path)
    assert members(again) == members(wheel)
    assert again.read_bytes() == wheel.read_bytes()  # builds are reproducible


def test_every_import_is_a_declared_dependency(wheel: Path) -> None:
    """What works only because a dependency happens to bring it along may be gone in its next version."""
    imported = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add((node.module or "").partition(".")[0])
    imported -= {*sys.stdlib_module_names, "gainfinder", *EXTRAS}
    (information,) = importlib.metadata.distributions(name="gainfinder", path=[str(wheel)])
    required = [text for text in information.requires or () if "extra ==" not in text]
    declared = {normalised(re.split(r"[<>=!~ ;\[]", text)[0]) for text in required}
    providers = importlib.metadata.packages_distributions()
    assert {name for name in imported if not declared & {normalised(one) for one in providers[name]}} == set()


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_command_runs_where_the_source_is_not(python: Python, environment: Path) -> None:
    where = python("import gainfinder, sys; print(gainfinder.__file__, *sys.path, sep='\\n')").split()
    assert Path(where[0]).is_relative_to(environment)
    assert str(SOURCE.parent) not in where
    assert python(COMMANDS, "--version") == f"gainfinder {gainfinder.__version__}\n"
    shown = python(COMMANDS, "--help")
    assert all(f"  {command} " in shown for command in ("demo", "scan", "predict", "transfer", "methods", "doctor"))
    assert "--install-completion" in shown


def test_scan_predict_and_transfer_run(python: Python, zoo: dict[str, str], tmp_path: Path) -> None:
    student, teacher = zoo["resnet"], zoo["vit"]
    common = "--data digits#1/8 --device cpu --workers 0"
    shown = python(  # one process: most of the time goes into importing torch
        COMMANDS,
        f"scan --model {student} --model {teacher} --json {common}",
        f"predict --model {teacher} --out vit.parquet {common}",
        f"transfer --student {student} --teacher table:vit.parquet --out run --no-guard --epochs 1 {common}",
    )
    found, _ = json.JSONDecoder().raw_decode(shown)
    assert len(found["pairs"]) == 2 and found["samples"] > 200
    assert "as a teacher: table:vit.parquet" in shown
    assert (tmp_path / "vit.parquet").exists() and (tmp_path / "run" / "student" / "model.safetensors").exists()


def test_the_public_names_are_there_to_complete(python: Python) -> None:
    shown = python("import gainfinder, sys; print(*dir(gainfinder)); print('torch' in sys.modules)").splitlines()
    assert set(gainfinder.__all__) <= set(shown[0].split()) and shown[1] == "False"
