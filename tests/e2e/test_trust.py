"""Models with Python code of their own: refused unless they are named, on the command line alone."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import gainfinder
from engines import InProcess
from gainfinder.cli import app
from gainfinder.errors import BadReference, ModelError
from gainfinder.references import trusting
from own_code import write_own_code
from studies import write_study
from transfers import SHORT, same, weights

RUNNER = CliRunner()


@pytest.fixture(scope="module", autouse=True)
def copied_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Code that transformers copies, to import it, goes to a folder of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        cache = str(tmp_path_factory.mktemp("modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", cache)
        patch.setattr(sys, "path", [*sys.path])
        yield


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The model's folder."""
    write_own_code(tmp_path / "own")
    return tmp_path / "own"


def ran(own: Path) -> bool:
    return own.with_name("own-ran").exists()


def command(*words: object) -> tuple[int, str, str]:
    done = RUNNER.invoke(app, [*map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_it_runs_where_it_is_named_and_nowhere_else(own: Path, tmp_path: Path) -> None:
    asked = ("predict", "--model", f"hf:{own}", "--data", "digits#1/8", "--out", tmp_path / "a.parquet")
    code, _, told = command(*asked)
    assert code == 2 and len(told.splitlines()) == 1 and f"give --trust-remote-code {own} (hf:{own}?" in told
    code, _, told = command(*asked, "--trust-remote-code", f"{own}x")
    assert code == 2 and f"--trust-remote-code {own}x names no model of this run; near matches: {own}" in told
    assert not ran(own) and not (tmp_path / "a.parquet").exists()
    code, shown, told = command(*asked, "--trust-remote-code", own)
    assert code == 0 and ran(own) and "predictions of" in shown, told


@pytest.mark.parametrize("kind", ["scan", "rank", "doctor", "fit-head"])
def test_other_commands_take_it_too(own: Path, zoo: dict[str, str], tmp_path: Path, kind: str) -> None:
    words: dict[str, tuple[object, ...]] = {
        "scan": ("--model", f"hf:{own}", "--model", zoo["vit"], "--student", f"hf:{own}"),
        "rank": ("--student", zoo["vit"], "--model", f"hf:{own}"),
        "doctor": ("--student", zoo["vit"], "--teacher", f"hf:{own}", "--batch-size", 16),
        "fit-head": ("--model", f"hf:{own}", "--out", tmp_path / "head"),
    }
    asked = (kind, *words[kind], "--data", "digits#1/8", "--device", "cpu", "--workers", 0)
    _, shown, told = command(*asked)
    assert "asks to run Python code of its own" in shown + told and not ran(own)
    code, shown, told = command(*asked, "--trust-remote-code", own)
    assert code == 0 and ran(own), shown + told
    assert "asks to run Python code" not in shown + told


def test_a_student_of_it_is_loaded_again_with_leave_alone(own: Path, zoo: dict[str, str], tmp_path: Path) -> None:
    asked = [
        "transfer", "--student", f"hf:{own}", "--teacher", zoo["vit"], "--data", "digits#1/4", "--val", "digits#2/4",
        "--out", tmp_path / "out", "--no-guard", "--epochs", 1, "--limit", 64, "--method", "kl", "--device", "cpu",
        "--workers", 0, "--trust-remote-code", own,
    ]  # fmt: skip
    for _ in range(2):  # finished, its student is loaded from its folder
        code, _, told = command(*asked)
        assert code == 0, told
    student = f"hf:{tmp_path}/out/student"
    with pytest.raises(ModelError, match="asks to run Python code of its own"):
        gainfinder.load_model(student)
    (trusted,) = trusting([student], [f"{tmp_path}/out/student"])
    assert same(gainfinder.load_model(trusted).module.state_dict(), weights(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "result.json").read_text())["student_reference"] == trusted


@pytest.mark.parametrize("changed", ["code", "reference"])
def test_leave_for_a_student_is_not_for_code_in_its_result(
    own: Path, zoo: dict[str, str], tmp_path: Path, changed: str
) -> None:
    """Of a folder that another person made or changed, weights are read and no code is run."""
    asked = (f"hf:{own}?trust_remote_code=yes", zoo["vit"], "digits#2/4")
    gainfinder.transfer(*asked, out=tmp_path / "out", **SHORT)
    student = tmp_path / "out" / "student"
    evil = student if changed == "code" else shutil.copytree(student, tmp_path / "evil")
    for file in evil.glob("*.py"):
        file.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'evil-ran')!r}).touch()\n{file.read_text()}")
    path = tmp_path / "out" / "result.json"
    reference = f"hf:{evil}?trust_remote_code=yes"
    path.write_text(json.dumps({**json.loads(path.read_text()), "student_reference": reference}))
    again = gainfinder.transfer(*asked, out=tmp_path / "out", **SHORT)
    assert same(again.student.module.state_dict(), weights(tmp_path / "out"))
    assert not (tmp_path / "evil-ran").exists()
    gainfinder.load_model(reference)
    assert (tmp_path / "evil-ran").exists()  # where that very folder is trusted


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_leave_for_a_model_is_not_for_the_code_of_another(own: Path, file: str) -> None:
    config = json.loads((own / file).read_text())
    config["auto_map"] = {**config.get("auto_map", {}), "AutoImageProcessor": "lab/other--processing.Processor"}
    (own / file).write_text(json.dumps(config))
    with pytest.raises(ModelError, match="its code is that of another repository, 'lab/other', for which leave was"):
        gainfinder.load_model(f"hf:{own}?trust_remote_code=yes")
    assert not ran(own)


def test_a_result_cannot_name_other_code(zoo: dict[str, str], tmp_path: Path) -> None:
    """A folder that another person made, in which the command goes on."""
    (tmp_path / "evil.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=tmp_path / "out", **SHORT)
    path = tmp_path / "out" / "result.json"
    for changed in (f"file:{tmp_path}/evil.py:net", f"hf:{tmp_path}/x?trust_remote_code=yes"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "student_reference": changed}))
        again = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=tmp_path / "out", **SHORT)
        with pytest.raises(ModelError, match=r"result\.json: .* runs other Python code than"):
            _ = again.student
    assert not (tmp_path / "ran").exists()


def run_study(file: Path, out: Path, *more: object) -> tuple[int, str, str]:
    few = ("--set", 'study.students=["resnet"]', "--set", 'study.teachers=["vit"]', "--set", "settings.epochs=1")
    return command("study", "run", file, "--out", out, *few, *more)


def test_no_file_gives_leave(own: Path, zoo: dict[str, str], tmp_path: Path) -> None:
    trusted = f"hf:{own}?trust_remote_code=yes"
    (tmp_path / "models.txt").write_text(f"{zoo['vit']}\n{trusted}\n")
    code, _, told = command("scan", "--models", tmp_path / "models.txt", "--data", "digits#1/8")
    assert code == 2 and "models.txt, line 2: " in told and f"give --trust-remote-code {own}" in told
    study = write_study(tmp_path / "small.toml", zoo)
    study.write_text(study.read_text().replace('"local-dir:{zoo}/vit"', f'"{trusted}"'))
    code, _, told = run_study(study, tmp_path / "out")
    assert code == 2 and "small.toml, line " in told and f"give --trust-remote-code {own}" in told
    assert not ran(own) and not (tmp_path / "out").exists()


def test_a_study_is_given_leave_by_its_command(
    own: Path, zoo: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gainfinder.workers.make_backend", lambda *_, **__: InProcess())
    monkeypatch.chdir(tmp_path)
    study = write_study(tmp_path / "small.toml", zoo)
    text = study.read_text().replace('"local-dir:{zoo}/vit"', '"hf:{place}/own"')
    study.write_text(text.replace("[paths]", f'[paths]\nplace = "{tmp_path}"'))
    code, shown, _ = run_study(study, tmp_path / "out")
    assert code == 1 and "asks to run Python code of its own" in shown and not ran(own)
    shutil.rmtree(tmp_path / "out")
    code, shown, told = run_study(study, tmp_path / "out", "--trust-remote-code", own)
    assert code == 0 and "2 cells done, 0 failed" in shown, shown + told
    code, _, told = run_study(study, tmp_path / "out", "--trust-remote-code", "lab/net")
    assert code == 2 and "names no model of this run" in told


def test_leave_is_yes_or_left_out() -> None:
    with pytest.raises(BadReference, match=r"trust_remote_code in 'hf:lab/net\?.*expected yes, or leave it out"):
        gainfinder.load_model("hf:lab/net?trust_remote_code=no")
    with pytest.raises(BadReference, match="unknown setting 'trust_remote_code'"):
        gainfinder.load_model("resnet18?trust_remote_code=yes")
