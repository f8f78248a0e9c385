"""In the source tree nothing reads a file in a way that could run code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gainfinder

SOURCE = Path(gainfinder.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
UNSAFE_CALLS = {"jit.load", "hub.load", "export.load"}
KEYWORDS = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
"""A keyword that a call must have, and its value."""
MAY_BE_TRUSTED = {"from_transformers.py", "processors.py"}
"""Modules that load a model of the user's choice, who may trust its code."""
EXEC = {"models/from_file.py", "demo.py"}
"""The user's own Python files are run, and the source of a network that the demonstration holds."""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_reads_a_file_that_could_run_code(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not {alias.name.partition(".")[0] for alias in node.names} & UNSAFE_MODULES
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert (node.module or "").partition(".")[0] not in UNSAFE_MODULES
    for name, call in calls(tree):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if name in KEYWORDS:
            keyword, value = KEYWORDS[name]
            found = given.get(keyword)
            assert isinstance(found, ast.Constant) and found.value is value, f"line {call.lineno}"
        assert not any(name == unsafe or name.endswith(f".{unsafe}") for unsafe in UNSAFE_CALLS), f"line {call.lineno}"
        assert name != "eval"
        assert name != "exec" or str(path.relative_to(SOURCE)) in EXEC, f"line {call.lineno}"
        if name.endswith(".from_pretrained"):
            trusted = given.get("trust_remote_code")
            asked = isinstance(trusted, ast.Name) and trusted.id == "trusted" and path.name in MAY_BE_TRUSTED
            assert asked or (isinstance(trusted, ast.Constant) and trusted.value is False), f"line {call.lineno}"


def test_the_check_sees_the_calls_it_is_about() -> None:
    names = [name for path in FILES for name, _ in calls(ast.parse(path.read_text(encoding="utf-8")))]
    assert names.count("torch.load") >= 2 and names.count("np.load") >= 2 and names.count("exec") == 2
