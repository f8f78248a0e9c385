"""Shell completion, asked as the shells ask: the command that TAB starts, with what is typed in the environment."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.core
import typer.main
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from forked import forked
from gainfinder import config
from gainfinder.cli import app, main
from gainfinder.cli.completion import CHOICES
from gainfinder.errors import SettingsError

SOURCE = Path(config.__file__).parents[2]
RUN = "import sys; sys.argv[0] = 'gainfinder'; from gainfinder.cli import main; main()"


@pytest.fixture
def gainfinder(tmp_path: Path) -> dict[str, str]:
    """An environment whose `gainfinder` runs the package under test."""
    script = tmp_path / "bin" / "gainfinder"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(RUN)} "$@"\n')
    script.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("_GAINFINDER", "_TYPER"))}
    return {**kept, "PATH": f"{script.parent}:{os.environ['PATH']}", "PYTHONPATH": str(SOURCE)}


def asked_by(shell: str, line: str) -> dict[str, str]:
    """What a shell's completion function puts into the environment for a line typed so far."""
    asked = {"_GAINFINDER_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line}
    return asked | ({"_TYPER_COMPLETE_FISH_ACTION": "get-args"} if shell == "fish" else {})


def complete(environment: dict[str, str], shell: str, line: str, folder: Path) -> list[str]:
    """The lines that a shell's completion function gets for a line typed so far."""
    done = subprocess.run(
        ["gainfinder"],
        env={**environment, **asked_by(shell, line)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return answers(done.stdout)


def complete_here(shell: str, line: str, folder: Path) -> list[str]:
    """As `complete`, by a process that is forked from this one: to start an interpreter takes longer than all else."""
    process = forked(be_the_command, environment=asked_by(shell, line), cwd=folder, stdout=subprocess.PIPE)
    out, _ = process.communicate()
    assert process.returncode == 0
    return answers(out)


def be_the_command() -> None:
    sys.argv[:] = ["gainfinder"]
    vars(sys.modules["__main__"])["__package__"] = None  # a script, and not `python -m`
    main()


def answers(out: str) -> list[str]:
    return [line.partition("\t")[0] for line in out.splitlines() if line]


def bash(environment: dict[str, str], lines: list[list[str]], folder: Path) -> list[list[str]]:
    """COMPREPLY of each line after the installed function completed its last word."""
    asked = (
        f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; COMPREPLY=()\n"
        '_gainfinder_completion gainfinder; echo "${COMPREPLY[@]}"\n'
        for words in lines
    )
    script = f'eval "$(_GAINFINDER_COMPLETE=source_bash gainfinder)"\ncomplete -p gainfinder >&2\n{"".join(asked)}'
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    # where the function finds nothing, bash's own completion of paths takes over
    assert "-o default -F _gainfinder_completion" in done.stderr
    return [line.split() for line in done.stdout.removesuffix("\n").split("\n")]


def test_the_choices_are_those_that_settings_accept() -> None:
    """Of each setting that is a choice, all its words are offered and taken, and no other is."""
    for name, words in CHOICES.items():
        for word in words:
            assert vars(config.TransferConfig.model_validate({name: word}))[name] in (word, (word,))
        with pytest.raises(SettingsError, match=words[0]):
            config.TransferConfig.model_validate({name: "nothing-of-the-kind"})
    assert set(CHOICES) == {
        "augment", "both", "control", "decide_on", "device", "labels", "optimizer", "order", "precision", "preset",
        "schedule", "strategy", "student_mode", "track",
    }  # fmt: skip
    assert CHOICES["preset"] == tuple(config.PRESETS)
    assert CHOICES["track"] == tuple(sorted(LOGGER_TYPE_TO_CLASS))


def test_every_command_completes_its_choices() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    commands = group.commands
    context = typer.Context(commands["transfer"], resilient_parsing=True)
    met = set()
    for command in commands.values():
        for option in command.params:
            if option.name in CHOICES:
                met.add(option.name)
                found = [item.value for item in option.shell_complete(context, "")]
                assert found == list(CHOICES[option.name]), f"{command.name} --{option.name}"
    assert met == set(CHOICES)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_values(gainfinder: dict[str, str], tmp_path: Path) -> None:
    expected = {
        ("tr",): ["transfer"],
        ("transfer", "--stu"): ["--student", "--student-mode"],
        ("transfer", "--method", ""): [method.name for method in config.METHODS],
        ("transfer", "--data", "photos", "--strategy", "s"): ["sequential", "soup"],
        ("scan", "--model", "h"): ["hf:", "hf-hub:"],
        # left to bash: paths, also those behind a colon, at which bash parts words
        ("transfer", "--data", ""): [],
        ("scan", "--model", "local-dir", ":", "pho"): [],
        ("scan", "--model", "loc"): [],  # else a space would stand between it and the path
    }
    found = bash(gainfinder, [["gainfinder", *words] for words in expected], tmp_path)
    assert found == list(expected.values())


def test_other_shells_complete_references(gainfinder: dict[str, str], tmp_path: Path) -> None:
    for name in ("nets/old", "nets/.hidden", "notes"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("nets/own.py", "nets/own.onnx", "nets/own.csv"):
        (tmp_path / name).touch()

    def completed(line: str) -> list[str]:
        return complete_here("fish", f"gainfinder {line}", tmp_path)

    assert completed("doctor --teacher ") == complete(gainfinder, "fish", "gainfinder doctor --teacher ", tmp_path)
    assert completed("doctor --teacher ") == [
        "local-dir:", "hf:", "file:", "onnx:", "table:", "hf-hub:", "torchvision:"
    ]  # fmt: skip
    assert "table:" not in completed("doctor --student ")
    assert completed("scan --model local-dir:n") == ["local-dir:nets/", "local-dir:notes/"]
    assert completed("scan --model file:nets/") == ["file:nets/old/", "file:nets/own.py"]
    assert completed("scan --model onnx:nets/ow") == ["onnx:nets/own.onnx"]
    assert completed("doctor --teacher table:nets/ow") == ["table:nets/own.csv"]
    assert completed("doctor --student table:nets/ow") == []
    assert completed("scan --model file:nowhere/") == completed("scan --model torchvision:res") == []
    assert completed(f"scan --model file:{tmp_path}/nets/own") == [f"file:{tmp_path}/nets/own.py"]


def test_zsh_gets_values_with_their_meaning_and_else_files(gainfinder: dict[str, str], tmp_path: Path) -> None:
    (only,) = complete(gainfinder, "zsh", "gainfinder transfer --method kl-w", tmp_path)
    kl_warmup = config.find_method("kl-warmup")
    assert only == f"""_arguments '*: :(("kl-warmup":"{kl_warmup.summary}"))'"""
    assert complete(gainfinder, "zsh", "gainfinder transfer --out ", tmp_path) == ["_files"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(gainfinder: dict[str, str], shell: str) -> None:
    done = subprocess.run(
        ["gainfinder"],
        env={**gainfinder, "_GAINFINDER_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"_GAINFINDER_COMPLETE=complete_{shell}" in done.stdout
    parser = shutil.which(shell)
    if parser is not None:
        subprocess.run([parser, "-n"], input=done.stdout, text=True, check=True)


@pytest.mark.parametrize(
    "asked",
    [
        {
            "COMP_WORDS": "gainfinder\ntransfer\n--method\nkl",
            "COMP_CWORD": "3",
            "_GAINFINDER_COMPLETE": "complete_bash",
        },
        None,
    ],
    ids=["completion", "help"],
)
def test_completion_and_help_import_no_torch(gainfinder: dict[str, str], asked: dict[str, str] | None) -> None:
    code = RUN.replace("main()", "import atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); main()")
    done = subprocess.run(
        [sys.executable, "-c", code, *([] if asked else ["transfer", "--help"])],
        env={**gainfinder, **(asked or {})},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("kl-dp-u" if asked else "--teacher") in done.stdout
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "gainfinder" in loaded and not loaded & {"torch", "timm", "numpy", "sklearn", "PIL", "pyarrow"}
