"""A transfer from a file, and a result that is run again."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import gainfinder
from digit_files import digit_folder
from gainfinder.cli import app
from gainfinder.cli.command import written_out
from gainfinder.config import TransferConfig, read_run
from gainfinder.errors import DataError, RunFolderError, SettingsError
from gainfinder.models import load_model
from transfers import SHORT, document, same, weights

RUNNER = CliRunner()
SETTINGS = TransferConfig(**SHORT)
OPTIONS = [
    "--preset=gentle",
    "--epochs=1",
    "--limit=64",
    "--batch-size=32",
    "--workers=0",
    "--device=cpu",
    "--no-guard",
]


@pytest.fixture(scope="module")
def first(zoo: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished transfer."""
    out = tmp_path_factory.mktemp("first") / "better"
    gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", val="digits#1/4", config=SETTINGS, out=out)
    return out


def invoked(*words: object) -> Any:
    return RUNNER.invoke(app, [*map(str, words)])


def test_a_dry_run_writes_a_file_that_runs_the_same_transfer(zoo: dict[str, str], first: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "run.toml", tmp_path / "out"
    asked = ["--student", zoo["vit"], "--teacher", zoo["resnet"], "--data", "digits#2/4", "--val", "digits#1/4"]
    dry = invoked("transfer", *asked, *OPTIONS, "--out", out, "--dry-run", "--write", file)
    assert dry.exit_code == 0 and not out.exists(), dry.output
    done = invoked("transfer", "--config", file)
    assert done.exit_code == 0, done.output
    assert same(weights(out), weights(first))
    assert document(out, "config.json")["request"] == document(first, "config.json")["request"]
    written, command = tmp_path / "again.toml", shlex.split(document(out, "config.json")["environment"]["command"])
    assert "--config" not in command  # the file may be another by then
    assert invoked(*command[1:], "--dry-run", "--write", written).exit_code == 0
    assert read_run(written) == read_run(file)


def test_a_command_holds_what_a_file_says(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        """student = "local-dir:a?classes=@my names.txt"
        teachers = ["b", "c"]
        data = "two words"
        label_maps = ["b.json", "c d.csv"]
        ask = 5
        [settings]
        control = ["copy", "labels"]
        compile = false
        guard = true
        at_most = "1%"
        batch_size = "auto"
        """
    )
    asked = read_run(file).updated({"out": "x"}, {"seed": 3, "adapt_start": False})
    words = shlex.split(written_out(asked))
    assert words[:2] == ["gainfinder", "transfer"]
    command: Any = typer.main.get_command(app)
    params = command.commands["transfer"].make_context("transfer", words[2:]).params
    assert (params["student"], params["teacher"]) == ("local-dir:a?classes=@my names.txt", ["b", "c"])
    assert (params["data"], params["label_map"]) == ("two words", [Path("b.json"), Path("c d.csv")])
    assert (params["out"], params["ask"], params["val"]) == (Path("x"), 5, None)
    assert (params["control"], params["compile"], params["guard"]) == (["copy", "labels"], False, True)
    assert (params["at_most"], params["batch_size"], params["seed"]) == ("0.01", "auto", 3)
    assert params["adapt_start"] is False and params["epochs"] is None


def test_a_rate_that_no_trial_chooses_is_among_what_rules_decided(zoo: dict[str, str], tmp_path: Path) -> None:
    def written(epochs: int) -> str:
        file = tmp_path / f"{epochs}.toml"
        asked = ["--student", zoo["vit"], "--teacher", zoo["resnet"], "--data", "digits#2/4", "--epochs", epochs]
        asked += ["--batch-size", 8]
        dry = invoked("transfer", *asked, "--out", tmp_path / "out", "--device=cpu", "--dry-run", "--write", file)
        assert dry.exit_code == 0, dry.output
        assert ("trials" in dry.stdout) == ("\n# lr = " not in file.read_text())
        return file.read_text()

    assert "\n# lr = " in written(1)
    assert "\n# lr = " not in written(100)


@pytest.mark.parametrize("guard", [["--no-guard"], ["--guard-data", "digits#1/16"]])
def test_a_student_that_was_kept_is_not_advised_against(guard: list[str], zoo: dict[str, str], tmp_path: Path) -> None:
    asked = ["--student", zoo["vit"], "--teacher", zoo["resnet"], "--data", "digits#2/4", "--val", "digits#3/16"]
    options = [one for one in OPTIONS if one != "--no-guard"]
    done = invoked("transfer", *asked, *options, *guard, "--lr", 1e-9, "--labels=none", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert ("keep the old one" in done.output) == (guard == ["--no-guard"])


def test_each_setting_that_it_writes_as_a_comment_changes_nothing(
    zoo: dict[str, str], first: Path, tmp_path: Path
) -> None:
    file = tmp_path / "run.toml"
    config = ["--config", first / "config.json", "--out", tmp_path / "out"]
    assert invoked("transfer", *config, "--dry-run", "--write", file).exit_code == 0
    text = file.read_text(encoding="utf-8")
    assert "\n# lr = " in text
    fixed = tmp_path / "fixed.toml"
    fixed.write_text("\n".join(line.removeprefix("# ") if " = " in line else line for line in text.splitlines()))
    dry = invoked("transfer", "--config", fixed, "--dry-run", "--json")
    assert dry.exit_code == 0, dry.output
    resolved = json.loads(dry.stdout)["config"]
    there = document(first, "config.json")
    assert {**resolved["settings"], "preset": "gentle"} == there["settings"] and resolved["views"] == there["views"]


def test_options_go_over_a_results_configuration(first: Path, tmp_path: Path) -> None:
    config = ["--config", first / "config.json", "--out", tmp_path / "out"]
    dry = invoked("transfer", *config, "--seed", 5, "--guard", "--data", "digits#3/4", "--dry-run", "--json")
    assert dry.exit_code == 0, dry.output
    found = json.loads(dry.stdout)["config"]
    assert (found["settings"]["seed"], found["settings"]["epochs"], found["guard"]["held_out"]) == (5, 1, True)
    assert found["data"]["reference"] == "digits#3/4" and found["val"]["reference"] == "digits#1/4"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no student is given: give --student, or --config"),
        (["--student", "a", "--teacher", "b", "--data", "c"], "no out is given: give --out"),
        (["--student", "a", "--write", "run.toml"], "--write is an option of a dry run: give --dry-run, too"),
        (["--config", "nowhere.toml"], "nowhere.toml: cannot be read as a run"),
    ],
)
def test_what_is_missing_is_one_line(words: list[str], message: str) -> None:
    refused = invoked("transfer", *words)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"gainfinder: {message}") and refused.stderr.count("\n") == 1


def test_a_result_is_repeated_bit_for_bit(first: Path) -> None:
    done = invoked("repeat", first)
    out = first.with_name("better-repeat")
    assert done.exit_code == 0, done.output
    assert same(weights(out), weights(first))
    assert "nothing differs that is known before" in done.stdout and "repeated, bit for bit" in done.stdout
    assert re.search(
        r"^images compared by their contents: 16 of 64 learned from, 16 of \d+ measured on$", done.stdout, re.M
    )
    assert "finished repetition" not in done.stdout


def test_a_finished_repetition_is_compared_and_said_to_be(first: Path) -> None:
    """Under other conditions than those of now, which nothing was run under."""
    out = first.with_name("better-repeat")
    if not out.exists():
        gainfinder.repeat(first)
    kept = (out / "config.json").read_bytes()
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        dry, again = invoked("repeat", first, "--dry-run"), invoked("repeat", first)
    finally:
        torch.set_num_threads(threads)
    assert dry.exit_code == again.exit_code == 0 and "threads" not in dry.stdout + again.stdout
    assert "holds a finished repetition, which would be compared, and nothing run" in dry.stdout
    assert "holds a finished repetition, which is compared, and nothing is run; another --out runs it" in again.stdout
    assert f"bit for bit: {first}, compared with the repetition that was there, in {out}" in again.stdout
    found = gainfinder.repeat(first)
    assert found.repeated and not found.ran and found.environment == ()
    assert kept == (out / "config.json").read_bytes()


def test_an_image_that_was_changed_is_named(zoo: dict[str, str], tmp_path: Path) -> None:
    """Of 40 images the contents of 16 are in the digest; the second is none of them."""
    val, out = digit_folder(tmp_path / "val", 40, broken=0), tmp_path / "first"
    gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", val=str(val), config=SETTINGS, out=out)
    changed = sorted(val.rglob("*.png"))[1]
    with Image.open(changed) as image:
        ImageOps.invert(image.convert("L")).save(changed)
    name = changed.relative_to(val).as_posix()
    done = invoked("repeat", out)
    assert done.exit_code == 1, done.output
    assert "nothing differs that is known before" in done.stdout and "16 of 40 measured on" in done.stdout
    assert "weights: the same, bit for bit" in done.stdout
    assert (
        f"images: 1 of 40 are not as they were ('{name}'): of the same weights, these answer otherwise" in done.stdout
    )
    assert f"then: the initial student, the teacher {zoo['resnet']}, the new student\n" in done.stdout
    with pytest.raises(DataError, match=r"answers 1 of 40 images .* otherwise than when the result was measured"):
        gainfinder.export(out, tmp_path / "student.onnx")
    assert not (tmp_path / "student.onnx").exists()


def test_what_differs_is_told(first: Path, zoo: dict[str, str], tmp_path: Path) -> None:
    """Other weights of the teacher and another version of torch, as on another machine some weeks later."""
    teacher = tmp_path / "teacher"
    source = Path(zoo["resnet"].removeprefix("local-dir:"))
    teacher.mkdir()
    for file in source.iterdir():
        (teacher / file.name).write_bytes(file.read_bytes())
    reference, out = f"local-dir:{teacher}", tmp_path / "first"
    gainfinder.transfer(zoo["vit"], reference, "digits#2/4", val="digits#1/4", config=SETTINGS, out=out)
    state = load_file(teacher / "model.safetensors")
    name = next(name for name in state if name.endswith("fc.weight") or name.endswith("head.weight"))
    save_file({**state, name: -state[name]}, teacher / "model.safetensors")
    config = document(out, "config.json")
    config["environment"]["torch"] = "1.0"
    (out / "config.json").write_text(json.dumps(config))
    found = gainfinder.repeat(out, out=tmp_path / "second")
    assert not found.repeated and found.weights_differ and found.largest_logit_difference
    assert len(found.settings) == 1 and found.ran and found.other_images is None
    assert found.settings[0].startswith(f"the weights of the teacher {reference} are others (digest ")
    assert found.environment == (f"torch: 1.0 then, {torch.__version__.split('+')[0]} now",)
    done = invoked("repeat", out, "--out", tmp_path / "second")
    assert done.exit_code == 1
    assert "not the same: the weights of the teacher" in done.stdout and "not repeated bit for bit" in done.stdout
    save_file({**state, name: 2 * state[name]}, teacher / "model.safetensors")  # since the repetition, too
    dry = invoked("repeat", out, "--out", tmp_path / "second", "--dry-run")
    assert dry.exit_code == 0 and "not the same: the weights of the teacher" in dry.stdout
    assert "second holds an earlier repetition, under other conditions" in dry.stdout and "another --out" in dry.stdout
    refused = invoked("repeat", out, "--out", tmp_path / "second")
    assert refused.exit_code == 2 and refused.stdout == "" and refused.stderr.count("\n") == 1
    assert "second: holds an earlier repetition, under other conditions; nothing was changed." in refused.stderr
    assert "Differing: the weights of the teacher" in refused.stderr and refused.stderr.endswith("another --out\n")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("student/model.safetensors", lambda whole: whole[:-100], r"model\.safetensors: not as gainfinder wrote it"),
        ("predictions/after.parquet", lambda whole: whole[:-100], r"after\.parquet: not a file of predictions"),
        ("config.json", lambda whole: b"[1,2]", r"config\.json: not as gainfinder wrote it"),
    ],
)
def test_what_is_damaged_is_told_before_anything_is_run(
    first: Path, tmp_path: Path, name: str, damage: Callable[[bytes], bytes], message: str
) -> None:
    folder, out = tmp_path / "run", tmp_path / "again"
    shutil.copytree(first, folder)
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(RunFolderError, match=message):
        gainfinder.repeat(folder, out=out)
    dry = invoked("repeat", folder, "--out", out, "--dry-run")
    assert dry.exit_code == 2 and "TOML" not in dry.stderr and not out.exists()


def test_what_cannot_be_repeated_is_refused(first: Path, zoo: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no finished transfer"):
        gainfinder.repeat(tmp_path)
    with pytest.raises(RunFolderError, match="is the result to repeat"):
        gainfinder.repeat(first, out=first)
    student = load_model(zoo["vit"])
    gainfinder.transfer(student, zoo["resnet"], "digits#2/4", val="digits#1/4", config=SETTINGS, out=tmp_path / "run")
    with pytest.raises(SettingsError, match="does not hold what was asked for"):
        gainfinder.repeat(tmp_path / "run")


def test_steps_of_a_sequence_hold_no_request_of_their_own(zoo: dict[str, str], tmp_path: Path) -> None:
    teachers = [zoo["resnet"], zoo["resnet"]]
    gainfinder.transfer(zoo["vit"], teachers, "digits#2/4", val="digits#1/4", config=SETTINGS, out=tmp_path / "run")
    assert document(tmp_path / "run", "config.json")["request"]["teachers"] == teachers
    assert document(tmp_path / "run" / "steps" / "1", "config.json")["request"] is None
