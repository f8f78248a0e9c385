"""What an earlier version left on disk (`before/`) is read: results, an unfinished run, a bank, a scan, predictions.

Only the command line and the Python API are used. Keys that were renamed since stand in `renamed.json`.
"""

import json
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from compare import carried_over, leaves
from safetensors.torch import load_file

import gainfinder
from gainfinder.cli import main

HERE = Path(__file__).parent
TEXTS: dict[str, str] = tomllib.loads((HERE / "before" / "commands.toml").read_text(encoding="utf-8"))
RENAMED: dict[str, Any] = json.loads((HERE / "renamed.json").read_text(encoding="utf-8"))
CLOSE = 1e-4
"""Weights that another processor learns differ by less."""

Say = Callable[..., tuple[str, str]]


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what was left, and the working directory: all references in it are relative."""
    folder = tmp_path / "before"
    shutil.copytree(HERE / "before", folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command; gives what it wrote to stdout and stderr."""

    def run(*words: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["gainfinder", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert not ended.value.code, shown.err
        return shown.out, shown.err

    return run


def command(name: str, **changed: str) -> list[str]:
    """The words of a command of `commands.toml` in today's spelling, the values of some options changed.

    A transfer has the rules of then, which are a preset today.
    """
    text = TEXTS[name].replace("{nets}", TEXTS["nets"]).replace("{short}", TEXTS["short"])
    words = shlex.split(" ".join(RENAMED["options"].get(word, word) for word in text.split()))
    for option, value in changed.items():
        words[words.index(f"--{option}") + 1] = value
    return [*words, "--preset", "gentle"] if words[0] == "transfer" else words


def read(path: Path) -> Any:
    """A document, or a list of those in a .jsonl file."""
    text = path.read_text(encoding="utf-8")
    return [json.loads(row) for row in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def lost(old: Any, new: Any) -> dict[Any, str]:
    """What an older document tells and a newer one does not; it may tell more, and by new names."""
    told = dict(leaves(new))
    return {at: value for at, value in carried_over(old, told, (), RENAMED).items() if told.get(at) != value}


def assert_close(weights: Path, expected: Path) -> None:
    one, other = load_file(weights), load_file(expected)
    assert one.keys() == other.keys()
    for key, tensor in one.items():
        assert tensor.allclose(other[key], rtol=0, atol=CLOSE), key


def test_a_finished_transfer_is_told_again(before: Path, say: Say) -> None:
    run = before / "finished"
    account, kept = read(run / "result.json"), {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    shown, said = say(*command("finished"), "--json")
    assert "epoch " not in said
    assert account["control"]["beyond_pp"] > 0 and account["guard"]["points"]
    assert lost({**account, "resumed_epochs": 3}, json.loads(shown)) == {}
    assert kept == {path: path.read_bytes() for path in kept}
    assert "5.59 pp" in say(*command("finished"))[0]


def test_a_finished_transfer_is_returned_from_python(before: Path) -> None:
    (before / "finished" / "report.html").touch()  # to be made anew takes longer than all else
    nets = [f"file:models/nets.py:{name}@models/{name}.safetensors" for name in ("student", "teacher")]
    result = gainfinder.transfer(
        nets[0], nets[1], "digits#3/12", val="digits#1/12", guard_data="digits#2/12", out="finished", method="kl-dp",
        control=True, preset="gentle",
        batch_size=16, epochs=3, lr=5e-2, augment="crop-flip", views=1, bank="bank", device="cpu", workers=0,
    )  # fmt: skip
    account = read(before / "finished" / "result.json")
    assert lost({**account, "resumed_epochs": 3}, result.account) == {}
    again = gainfinder.predict(result.student, "digits#1/12", device="cpu", workers=0)
    assert again.accuracy == pytest.approx(
        account["accuracy_after"], abs=0.01
    )  # a near tie may fall otherwise elsewhere
    assert lost(read(before / "finished" / "epochs.jsonl"), [row.to_dict() for row in result.epochs]) == {}


def test_reports_are_made(before: Path, say: Say) -> None:
    for folder, figure in (("finished", "77.02%"), ("scan", "75.16%")):
        say("report", folder)
        assert figure in (before / folder / "report.html").read_text(encoding="utf-8")
        assert list((before / folder / "figures").glob("*.svg"))


def test_an_unfinished_transfer_goes_on(before: Path, say: Say) -> None:
    run = before / "unfinished"
    rows = read(run / "epochs.jsonl")
    assert 1 <= len(rows) < 5 and not (run / "result.json").exists()
    shown, said = say(*command("unfinished"), "--json")
    assert json.loads(shown)["resumed_epochs"] == len(rows)
    assert json.loads(shown)["seconds"] is None, "what it had worked before is not known"
    assert "epoch 1: " not in said and "epoch 5: " in said
    whole = read(run / "epochs.jsonl")
    assert len(whole) == 5 and lost(rows, whole) == {}
    assert_close(run / "student" / "model.safetensors", before / "expected" / "model.safetensors")
    assert not (run / "checkpoint.pt").exists()


@pytest.mark.parametrize("name", ["finished", "unfinished"])
def test_without_its_preset_it_is_refused_and_says_how_to_go_on(
    before: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    kept = {path: path.read_bytes() for path in (before / name).rglob("*") if path.is_file()}
    monkeypatch.setattr(sys, "argv", ["gainfinder", *command(name)[:-2]])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and f"gainfinder: {name}: holds a different run; nothing was changed" in said
    assert "settings.optimizer: sgd in the folder, adamw asked for" in said
    assert said.endswith("an earlier version made it, whose rules preset 'gentle' (--preset gentle) still has\n")
    assert kept == {path: path.read_bytes() for path in kept}
    assert {path.name for path in (before / name).rglob("*") if path.is_file()} - {path.name for path in kept} <= {
        ".lock"
    }


def test_answers_in_a_bank_are_found(before: Path, say: Say) -> None:
    entries = {path.name for path in (before / "bank").iterdir()}
    words = command("finished", method="kl-dp-u", out="another")
    at = words.index("--control")
    del words[at : at + 2]
    bank = json.loads(say(*words, "--json")[0])["bank"]
    assert bank["entries"] == 2
    made_with = read(before / "finished" / "config.json")["environment"]["torch"]
    if made_with == version("torch"):  # a model's key has torch's own description of it, which may be another's
        assert bank["made"] == 0
        assert {path.name for path in (before / "bank").iterdir() if path.is_dir()} == entries


def test_predictions_teach(before: Path, say: Say) -> None:
    """As the model whose predictions they are does: the images are seen as they are."""
    shown, _ = say(*command("unfinished", teacher="table:teacher.parquet", out="taught"), "--json")
    assert json.loads(shown)["teachers"] == ["table:teacher.parquet"]
    assert_close(before / "taught" / "student" / "model.safetensors", before / "expected" / "model.safetensors")


def test_a_scan_may_be_made_anew(before: Path, say: Say) -> None:
    old = read(before / "scan" / "scan.json")
    say("report", "scan")
    assert "All pairs" in (before / "scan" / "report.html").read_text(encoding="utf-8")
    say(*command("scan"))
    pairs = pq.read_table(before / "scan" / "pairs.parquet").to_pylist()  # a file of their own since
    new = {**read(before / "scan" / "scan.json"), "pairs": pairs}
    for pair in (*old["pairs"], *new["pairs"]):  # since summed in another order
        pair["flip_entropy"] = None if pair["flip_entropy"] is None else round(pair["flip_entropy"], 12)
    assert lost({**old, "environment": {}}, {**new, "environment": {}}) == {}
