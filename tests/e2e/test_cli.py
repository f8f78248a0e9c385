"""The command line as a user meets it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

import gainfinder
from digit_files import digit_folder
from forked import forked_command
from gainfinder.cli import app
from gainfinder.models import PredictionTable, load_teacher
from transfers import interruptible, reproducible, same, weights

RUNNER = CliRunner()
LAUNCH = [sys.executable, "-m", "gainfinder"]


PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}


def start(arguments: list[str]) -> "subprocess.Popen[str]":
    return forked_command(arguments, **PIPES)


def start_anew(arguments: list[str]) -> "subprocess.Popen[str]":
    """Start a new interpreter, as a shell does."""
    with interruptible():
        return subprocess.Popen([*LAUNCH, *arguments], text=True, **PIPES)


def command(zoo: dict[str, str], out: Path, *more: str) -> list[str]:
    return [
        "transfer", "--student", zoo["vit"], "--teacher", zoo["resnet"], "--data", "digits#2/4", "--val", "digits#1/4",
        "--epochs", "2", "--batch-size", "32", "--limit", "200", "--workers", "0", "--device", "cpu",
        "--out", str(out), *more,
    ]  # fmt: skip


def test_transfer_prints_one_json_document_on_stdout(zoo: dict[str, str], run_folder: Path) -> None:
    result = RUNNER.invoke(app, [*command(zoo, run_folder), "--json"])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document == json.loads((run_folder / "result.json").read_text())
    expected = {
        "student", "teachers", "method", "accuracy_before", "accuracy_after", "transfer_delta_pp",
        "transfer_delta_ci_pp", "knowledge_gain", "knowledge_loss", "positive_flips", "negative_flips",
        "transfer_rate", "teacher_share", "resumed_epochs", "out",
    }  # fmt: skip
    assert expected <= document.keys()
    assert document["student"] == zoo["vit"] and document["out"] == str(run_folder)
    assert "epoch 2: loss" in result.stderr


def test_transfer_shows_a_table(zoo: dict[str, str], run_folder: Path) -> None:
    result = RUNNER.invoke(app, command(zoo, run_folder))
    assert result.exit_code == 0
    assert "transfer delta (95 % interval)" in result.stdout
    assert f"local-dir:{run_folder}/student" in result.stdout.replace("\n", "")


def test_scan_gives_every_ordered_pair_once(zoo: dict[str, str]) -> None:
    models = [part for name in zoo for part in ("--model", zoo[name])]
    result = RUNNER.invoke(app, ["scan", *models, "--data", "digits#1/4", "--workers", "0", "--json"])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    accuracy = {model["model"]: model["accuracy"] for model in document["models"]}
    assert list(accuracy) == list(zoo.values())
    pairs = {(pair["student"], pair["teacher"]): pair for pair in document["pairs"]}
    assert len(pairs) == len(document["pairs"]) == 6
    assert all(student != teacher for student, teacher in pairs)
    for (student, teacher), pair in pairs.items():
        assert pair["delta_acc_pp"] == pytest.approx(100 * (accuracy[teacher] - accuracy[student]))
        assert pair["positive_flips"] - pair["negative_flips"] == pytest.approx(pair["delta_acc_pp"] / 100)
        assert pair["positive_flips"] == pairs[teacher, student]["negative_flips"]
        assert pair["oracle_accuracy"] == pytest.approx(accuracy[student] + pair["positive_flips"])
        best = max(pair["routed_accuracy"], pair["mean_accuracy"])
        assert pair["headroom_pp"] == pytest.approx(100 * (best - accuracy[student]))


def test_a_scan_too_large_for_its_logits_does_without_means(
    zoo: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = gainfinder.scan(list(zoo.values()), "digits#1/4", device="cpu", workers=0)
    monkeypatch.setattr("gainfinder.zoo.scan.LOGITS_BYTES", 4 * 3 * whole.samples * 10 - 1)
    found = gainfinder.scan(list(zoo.values()), "digits#1/4", device="cpu", workers=0)
    assert "the ensembles of mean probabilities are left out: the logits of 3 models" in caplog.text
    for one, pair in zip(whole.pairs, found.pairs, strict=True):
        assert pair.mean_accuracy is None and one.mean_accuracy is not None
        assert (pair.oracle_accuracy, pair.routed_accuracy) == (one.oracle_accuracy, one.routed_accuracy)
    assert all(model.mean_accuracy is None for model in found.models)


def test_predict_writes_ids_logits_and_labels(zoo: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "vit.parquet"
    arguments = ["predict", "--model", zoo["vit"], "--data", "digits#1/4", "--out", str(out), "--workers", "0"]
    assert RUNNER.invoke(app, arguments).exit_code == 0
    table = pq.read_table(out)
    assert table.column_names == ["id", "logits", "label"] and len(table["logits"][0].as_py()) == 10
    again = RUNNER.invoke(app, arguments)
    assert again.exit_code == 2 and "exists already" in again.stderr
    assert RUNNER.invoke(app, [*arguments, "--force"]).exit_code == 0


def predict(model: str, out: Path, *more: str) -> tuple[str, str]:
    """What `gainfinder predict` writes to stdout and stderr."""
    arguments = ["predict", "--model", model, "--data", "digits#1/4", "--out", str(out), "--workers", "0", *more]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout, result.stderr


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_predictions_become_a_teacher(zoo: dict[str, str], tmp_path: Path, suffix: str) -> None:
    model, out = zoo["vit"], tmp_path / f"vit.{suffix}"
    shown, _ = predict(model, out)
    assert shown.endswith(f"\nas a teacher: table:{out}\n") and ", accuracy 0." in shown
    expected = gainfinder.predict(model, "digits#1/4", workers=0)
    full = load_teacher(f"table:{out}")
    assert isinstance(full, PredictionTable) and full.class_names == tuple("0123456789")
    torch.testing.assert_close(full.lookup(expected.ids), expected.logits, rtol=0, atol=0)
    document = json.loads(predict(model, out, "--top-k", "3", "--force", "--json")[0])
    assert document["top_k"] == 3 and document["samples"] == len(expected)
    first = load_teacher(f"table:{out}" + ("?num_classes=10" if suffix == "csv" else ""))
    assert isinstance(first, PredictionTable) and first.is_top_k
    probs, classes = expected.logits.softmax(dim=1).topk(3, dim=1)
    torch.testing.assert_close(first.lookup(expected.ids).exp().gather(1, classes), probs)


def test_what_a_csv_of_the_first_classes_needs_is_said(zoo: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "vit.csv"
    assert (
        f"as a teacher: table:{out}?classes=@FILE, a class name a line" in predict(zoo["vit"], out, "--top-k", "2")[0]
    )
    assert out.read_text().splitlines()[0].replace('"', "") == "id,label,class_1,prob_1,class_2,prob_2"
    result = RUNNER.invoke(
        app, ["scan", "--model", zoo["vit"], "--model", f"table:{out}", "--data", "digits#1/4", "--workers", "0"]
    )
    assert result.exit_code == 2
    assert result.stderr == (
        f"gainfinder: 'table:{out}' is a table of predictions, no model: these are compared in a folder of their own\n"
    )
    assert RUNNER.invoke(app, ["predict", "--model", "x", "--data", "y", "--out", "z", "--top-k", "0"]).exit_code == 2


def test_dry_run_resolves_and_writes_nothing(zoo: dict[str, str], run_folder: Path) -> None:
    result = RUNNER.invoke(app, [*command(zoo, run_folder), "--dry-run", "--json"])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["config"]["settings"]["lr"] == 1.5e-4
    assert all(document["estimate"][key] > 0 for key in ("time_s", "memory_mb", "disk_mb", "result_mb"))
    assert not run_folder.exists()
    assert "time: about" in RUNNER.invoke(app, [*command(zoo, run_folder), "--dry-run"]).stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--student", "resnet81"), "near matches: resnet"),
        (("--student", "local-dir:/no/such/folder"), "/no/such/folder"),
        (("--student", "file:/no/such/file.py:make"), "/no/such/file.py"),
        (("--data", "/no/such/folder"), "/no/such/folder"),
        (("--data", "wds/imagenet"), "wds/"),
        (("--method", "kl-pd"), "near matches: kl-dp"),
        (("--batch-size", "0"), "batch-size is 0: expected 1 or more"),
        (("--augment", "mixup"), "augment is 'mixup'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    zoo: dict[str, str], run_folder: Path, change: tuple[str, str], message: str
) -> None:
    result = RUNNER.invoke(app, [*command(zoo, run_folder), *change])
    assert result.exit_code == 2
    assert message in result.stderr and "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1 and result.stdout == ""
    assert not run_folder.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["transfer", "--techer", "x"], 2, "gainfinder: No such option: --techer"),
        (["scan", "--model", "x"], 2, "gainfinder: a scan needs images: give --data beside the models"),
        (["scan", "--model", "x", "--model", "y", "--data", "/no/such"], 2, "gainfinder: /no/such does not exist"),
    ],
)
def test_mistakes_in_options_are_one_line_too(arguments: list[str], code: int, message: str) -> None:
    begin = start_anew if arguments[0] == "transfer" else start
    process = begin(arguments)
    out, error = process.communicate()
    assert process.returncode == code and error.startswith(message)
    assert error.count("\n") == 1 and out == ""


def test_broken_images_are_named_skipped_and_counted(zoo: dict[str, str], tmp_path: Path) -> None:
    data = digit_folder(tmp_path / "data", 100, broken=2)
    more = ("--data", str(data), "--limit", "60", "--epochs", "1")
    asked = command(zoo, tmp_path / "run", *more)
    refused = RUNNER.invoke(app, asked)
    assert refused.exit_code == 2 and "cannot be decoded" in refused.stderr and "--max-broken" in refused.stderr
    result = RUNNER.invoke(app, [*asked, "--max-broken", "0.1", "--out", str(tmp_path / "again"), "--json"])
    assert result.exit_code == 0, result.stderr
    named = json.loads(result.stdout)["broken_images"]
    assert 1 <= len(named) <= 2 and all(name.split(":")[0] in result.stderr for name in named)
    scanned = RUNNER.invoke(
        app, ["scan", "--model", zoo["vit"], "--model", zoo["resnet"], "--data", str(data), "--max-broken", "0.1",
              "--workers", "0", "--json"]
    )  # fmt: skip
    document = json.loads(scanned.stdout)
    assert document["samples"] == 98 and len(document["broken_images"]) == 2
    assert str(data / "0" / "0000.png") in scanned.stderr


def test_help_does_not_import_torch() -> None:
    code = """
import sys
from gainfinder.cli import app
try:
    app(["transfer", "--help"])
finally:
    assert "torch" not in sys.modules and "timm" not in sys.modules
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--teacher" in shown.stdout


def wait_for(path: Path, process: subprocess.Popen[str], limit_s: float = 300) -> None:
    end = time.monotonic() + limit_s
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[1]
        time.sleep(0.005)


@pytest.mark.parametrize(("how", "begin"), [(signal.SIGKILL, start_anew), (signal.SIGINT, start)])
def test_killed_or_interrupted_and_started_again(
    zoo: dict[str, str], tmp_path: Path, how: signal.Signals, begin: Callable[[list[str]], "subprocess.Popen[str]"]
) -> None:
    more = ("--checkpoint-every", "2", "--epochs", "6", "--augment", "crop-flip")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert RUNNER.invoke(app, command(zoo, whole, *more)).exit_code == 0
    process = begin(command(zoo, broken, *more))
    wait_for(broken / "checkpoint.pt", process)
    os.killpg(process.pid, how)
    error = process.communicate(timeout=300)[1]
    if how == signal.SIGINT:
        assert process.returncode == 130 and "Traceback" not in error
    assert not (broken / "result.json").exists()
    again = RUNNER.invoke(app, command(zoo, broken, *more))
    assert again.exit_code == 0, again.stderr
    assert reproducible(whole) == reproducible(broken)
    assert same(weights(whole), weights(broken))
    assert not list(broken.rglob(".partial-*"))


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def launch(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run under `accelerate launch` on two processes. Its --cpu starts several only under MPI; this is its own way to
    start them without, which works on a CPU as well."""
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
                "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", free_port()]  # fmt: skip
    whole = [sys.executable, "-m", *launcher, "-m", "gainfinder", *arguments]
    return subprocess.run(whole, capture_output=True, text=True, check=False)


def fork_two(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run on two processes as a launcher would, whose variables they get, without its start and theirs."""
    whole = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    both = [
        forked_command(arguments, environment={**whole, "RANK": rank, "LOCAL_RANK": rank}, **PIPES)
        for rank in ("0", "1")
    ]
    with ThreadPoolExecutor() as pool:  # neither waits for room in its pipe while the other is read
        said = list(pool.map(lambda process: process.communicate(timeout=300), both))
    out, error = ("".join(texts) for texts in zip(*said, strict=True))
    return subprocess.CompletedProcess(arguments, max(abs(one.returncode) for one in both), out, error)


@pytest.mark.parametrize("kept", [False, True])
def test_two_processes_give_the_same_student_up_to_float_error(zoo: dict[str, str], tmp_path: Path, kept: bool) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    mixed = ("--mixup", "0.7")
    assert RUNNER.invoke(app, command(zoo, alone, *mixed)).exit_code == 0
    extras = ["--bank", str(tmp_path / "bank"), "--micro-batch", "7", "--track", "tensorboard"]
    on_two = fork_two if kept else launch
    done = on_two(command(zoo, together, *mixed, *(extras if kept else [])))
    assert done.returncode == 0, done.stderr
    if kept:
        assert reproducible(together)["bank"]["made"] == 4  # of two models in two epochs, whose images are mixed
        assert len(list((together / "tracking").glob("events.*"))) == 1  # one process tells
    assert json.loads((together / "config.json").read_text())["environment"]["processes"] == 2
    one, other = weights(alone), weights(together)
    for name in one:
        assert one[name].allclose(other[name], atol=2e-4 if kept else 1e-5), name
    assert reproducible(alone)["teacher_share"] == pytest.approx(reproducible(together)["teacher_share"], abs=0.01)
    assert reproducible(alone)["samples"] == reproducible(together)["samples"]
    assert done.stdout.count("transfer delta") == 1  # one process speaks


def test_two_processes_choose_the_same_recipe(
    zoo: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gainfinder.runs.trials.SHARE", 1.0)  # trials of 10 and 20 steps in a run of no more than 80
    alone, together = tmp_path / "alone", tmp_path / "together"
    more = ("--epochs", "4", "--limit", "80", "--batch-size", "4", "--guard-data", "digits#3/16")
    assert RUNNER.invoke(app, command(zoo, alone, *more)).exit_code == 0
    done = fork_two(command(zoo, together, *more))
    assert done.returncode == 0, done.stderr
    one, other = reproducible(alone), reproducible(together)
    assert one["learning_rate"] == other["learning_rate"] and len(one["trials"]) == len(other["trials"]) > 4
    for tried, again in zip(one["trials"], other["trials"], strict=True):
        assert tried["guard_loss"] == pytest.approx(again["guard_loss"], rel=1e-3)


def test_several_cpu_processes_with_batch_norm_are_refused(zoo: dict[str, str], run_folder: Path) -> None:
    done = fork_two(command({"vit": zoo["resnet"], "resnet": zoo["vit"]}, run_folder))
    assert done.returncode != 0
    assert "batch-norm layers, whose statistics 2 CPU processes cannot share" in done.stderr
    assert not run_folder.exists()
