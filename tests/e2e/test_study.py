"""Studies: what is missing on disk is what is left to do, however a study was stopped, and by whatever worker."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

import gainfinder
import gainfinder.workers
from digit_files import digit_folder
from engines import InProcess
from forked import fork_workers, forked, forked_command, run_module
from gainfinder.cli import app
from gainfinder.data import Images
from gainfinder.errors import RunFolderError, SettingsError
from gainfinder.inference.crops import CropFiles
from gainfinder.study import CellState, StudyFolder, read_study, study_cells, study_rows
from gainfinder.workers import run_study
from gainfinder.workers.worker import RESULTS
from once import made_once
from studies import LONGER, result_of, write_study
from transfers import reproducible, same, weights

RUNNER = CliRunner()
PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}


def ran(file: Path, out: Path, *overrides: str, retry: bool = False) -> StudyFolder:
    run_study(read_study(file, overrides), out, backend=InProcess(), retry=retry)
    return StudyFolder(out)


def times(folder: StudyFolder) -> dict[str, int]:
    """When each cell's result was written."""
    return {cell.key: (folder.run_folder(cell).result).stat().st_mtime_ns for cell in folder.all_cells()}


@pytest.fixture
def file(tmp_path: Path, zoo: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # a worker goes to the folder of its task
    return write_study(tmp_path / "small.toml", zoo)


@pytest.fixture
def finished(file: Path, zoo: dict[str, str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """The study, done, in a folder of the test's own: it is run once for all of them."""

    def run(folder: Path) -> None:
        ran(write_study(folder / "small.toml", zoo), folder / "out")

    shutil.copytree(made_once(tmp_path_factory, "finished-study", run) / "out", tmp_path / "out")
    return StudyFolder(tmp_path / "out")


def test_cells_are_what_single_transfers_give(finished: StudyFolder, tmp_path: Path) -> None:
    folder = finished
    cells = folder.all_cells()
    assert len(cells) == 6 and set(folder.states(cells).values()) == {CellState.DONE}
    for cell in (cells[1], cells[-1]):  # late ones, with predictions, crops and models of earlier ones at hand
        alone = gainfinder.run(
            cell.spec.model_copy(update={"config": cell.spec.config.replace(bank=tmp_path / "b")}), tmp_path / cell.key
        )
        assert same(weights(folder.run_folder(cell).path), weights(alone))
        kept = folder.run_folder(cell).read_result()
        assert kept is not None
        assert reproducible({**kept.to_dict(), "bank": None}) == reproducible({**alone.account, "bank": None})


def test_pixels_are_digested_once_for_all_cells_of_a_worker(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digested: Counter[tuple[int, ...]] = Counter()
    add_content = Images._add_content

    def counted(images: Images, digest: Any, indices: Iterable[int]) -> None:
        indices = list(indices)
        digested[tuple(images.positions[indices].tolist())] += 1
        add_content(images, digest, indices)

    monkeypatch.setattr(Images, "_add_content", counted)
    folder = ran(file, tmp_path / "out")
    assert digested and set(digested.values()) == {1}
    one, *others = [json.loads((folder.run_folder(cell).config).read_text()) for cell in folder.all_cells()]
    assert all(other["data"] == one["data"] and other["val"] == one["val"] for other in others)


def test_a_row_for_each_cell(finished: StudyFolder) -> None:
    folder = finished
    rows = study_rows(folder)
    assert [(row.student, row.teacher, row.variant, row.state) for row in rows][:2] == [
        ("vit", "convnext", "kl", "done"),
        ("vit", "convnext", "dp", "done"),
    ]
    for row in rows:
        metrics = folder.run_folder(next(c for c in folder.all_cells() if c.key == row.cell)).read_result()
        assert (
            row.transfer_delta_pp
            == metrics.transfer_delta_pp
            == pytest.approx(100 * (row.accuracy_after - row.accuracy_before))
        )
        assert row.delta_acc_pp == pytest.approx(100 * (row.positive_flips - row.negative_flips))
        assert row.knowledge_gain - row.knowledge_loss == pytest.approx(row.transfer_delta_pp / 100)
        assert (row.epochs, row.images_seen) == (2, 128) and row.seconds > 0
        assert row.student_family == {"vit": "Transformer", "resnet": "CNN"}[row.student]


def test_what_is_missing_is_what_is_left_to_do(finished: StudyFolder, file: Path, tmp_path: Path) -> None:
    folder = finished
    before, cells = times(folder), folder.all_cells()
    shutil.rmtree(folder.run_folder(cells[2]).path)
    assert folder.state(cells[2]) == CellState.MISSING
    ran(file, tmp_path / "out")
    after = times(folder)
    assert [key for key in before if after[key] != before[key]] == [cells[2].key]
    ran(file, tmp_path / "out", "axes.seed=[0, 1]", 'study.students=["vit"]')
    grown = folder.all_cells()
    assert len(grown) == 8 and {key: times(folder)[key] for key in after if key in times(folder)} == {
        cell.key: after[cell.key] for cell in grown if cell.key in after
    }


def test_a_cell_that_fails_keeps_its_error_and_is_tried_again_on_request(file: Path, tmp_path: Path) -> None:
    wrong = f"models.resnet=local-dir:{tmp_path}/later"
    folder = ran(file, tmp_path / "out", wrong)
    failed = [cell for cell in folder.all_cells() if folder.state(cell) == CellState.FAILED]
    assert {cell.label for cell in failed} == {
        f"{student} from {teacher}; {variant}"
        for student, teacher in (("vit", "resnet"), ("resnet", "convnext"))
        for variant in ("kl", "dp")
    }
    failure = folder.failure(failed[0])
    assert failure is not None and "later" in failure.error and failure.kind == "ModelError"
    assert "later" in folder.log(failed[0]).read_text()
    assert {row.error for row in study_rows(folder) if row.state == "failed"} == {failure.error}
    shutil.copytree(Path(str(read_study(file).reference("resnet")).removeprefix("local-dir:")), tmp_path / "later")
    ran(file, tmp_path / "out", wrong)
    assert folder.state(failed[0]) == CellState.FAILED
    ran(file, tmp_path / "out", wrong, retry=True)
    assert {folder.state(cell) for cell in folder.all_cells()} == {CellState.DONE}


def test_results_alone_can_be_kept(file: Path, tmp_path: Path) -> None:
    folder = ran(file, tmp_path / "out", "study.keep=results")
    for cell in folder.all_cells():
        assert {child.name for child in folder.run_folder(cell).path.iterdir()} <= set(RESULTS)
    rows = study_rows(folder)
    assert all(row.transfer_delta_pp is not None and row.transfer_rate_top_100 is not None for row in rows)


def test_another_study_or_other_files_are_not_overwritten(file: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep")
    with pytest.raises(RunFolderError, match=r"holds files but no study of gainfinder \(mine.txt\)"):
        ran(file, tmp_path / "other")
    StudyFolder(tmp_path / "out").claim(read_study(file))
    with pytest.raises(RunFolderError, match="holds the study 'small', not 'another'"):
        ran(file, tmp_path / "out", "study.name=another")
    with pytest.raises(SettingsError, match="limit and subset"):
        ran(file, tmp_path / "new", "settings.subset=0.5")
    assert not (tmp_path / "new").exists()


def test_finished_cells_are_copied_to_a_mirror(file: Path, tmp_path: Path) -> None:
    run_study(
        read_study(file, ['study.students=["vit"]']),
        tmp_path / "out",
        backend=InProcess(),
        mirror=f"file://{tmp_path}/mirror",
    )
    folder = StudyFolder(tmp_path / "out")
    for cell in folder.all_cells():
        own, copied = folder.run_folder(cell).path, tmp_path / "mirror" / "cells" / cell.key
        for name in ("result.json", "cell.json", "student/model.safetensors"):
            assert (copied / name).read_bytes() == (own / name).read_bytes()


def start(file: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    return forked_command(["study", "run", str(file), "--out", str(out), *options], **PIPES)


def start_with_forked_workers(file: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    """As `start`; its workers are what they are but for the start of an interpreter and its imports."""
    return forked(run_with_forked_workers, ["study", "run", str(file), "--out", str(out), *options], **PIPES)


def run_with_forked_workers(arguments: list[str]) -> None:
    fork_workers(pytest.MonkeyPatch())
    run_module("gainfinder", arguments)


def wait_for(condition: Callable[[], object], timeout_s: float = 240.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def running_workers(folder: StudyFolder) -> list[int]:
    notes = [folder.progress(cell) for cell in folder.all_cells()]
    return [int(note["pid"]) for note in notes if note is not None]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_killed_workers_and_a_killed_study_end_with_the_same_bits(
    file: Path, tmp_path: Path, undisturbed: StudyFolder
) -> None:
    options = [*(f"--set={one}" for one in LONGER), "--workers=2", "--threads=1"]
    folder = StudyFolder(tmp_path / "out")
    process = start_with_forked_workers(file, folder.path, *options)
    wait_for(lambda: folder.document.exists() and running_workers(folder))
    os.kill(running_workers(folder)[0], signal.SIGKILL)  # the study replaces it
    wait_for(lambda: any(folder.is_done(cell) for cell in folder.all_cells()))
    workers = running_workers(folder)
    process.kill()  # nobody is there to stop the workers
    process.communicate()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in workers))
    process = start_with_forked_workers(file, folder.path, *options)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    for cell in folder.all_cells():
        (metrics, state), (expected, expected_state) = result_of(folder, cell), result_of(undisturbed, cell)
        assert metrics == expected and same(state, expected_state)


def test_two_workers_decode_images_once_and_end_with_the_same_bits(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = digit_folder(tmp_path / "pictures", 120, broken=1)
    few = (
        'study.students=["vit"]', f'data.data="{pictures}#1/2"', f'data.val="{pictures}#2/2"',
        "settings.limit=40", "settings.max_broken=0.1",
    )  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(CropFiles, "crops", lambda _keeper, _images, _spec, decode: decode())
        without = ran(file, tmp_path / "calm", *few)
    assert not (without.bank / "crops").exists()
    folder = StudyFolder(tmp_path / "out")
    process = start(file, folder.path, *(f"--set={one}" for one in few), "--workers=2", "--threads=1")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert len(list(folder.bank.glob("crops/*/meta.json"))) == 2  # transfer images, and those measured on
    for cell in folder.all_cells():
        (metrics, state), (expected, expected_state) = result_of(folder, cell), result_of(without, cell)
        assert metrics == expected and same(state, expected_state)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's workers run here: a process of its own takes seconds to start."""
    monkeypatch.setattr(gainfinder.workers, "make_backend", lambda *_, **__: InProcess())


@pytest.mark.usefixtures("in_process")
def test_the_command_plans_runs_and_shows(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    few = ["--set", 'study.students=["vit"]', "--set", 'study.teachers=["resnet"]']
    planned = RUNNER.invoke(app, ["study", "plan", str(file), "--out", str(out), "--json", *few])
    assert planned.exit_code == 0, planned.output
    found = json.loads(planned.stdout)
    assert (found["cells"], found["done"], found["timed"]) == (2, 0, 2) and found["hours"] > 0
    assert not out.exists()
    done = RUNNER.invoke(app, ["study", "run", str(file), "--out", str(out), *few])
    assert done.exit_code == 0 and "2 cells done, 0 failed" in done.stdout, done.output
    shown = RUNNER.invoke(app, ["study", "status", str(out), "--json"])
    now = json.loads(shown.stdout)
    assert (now["done"], now["failed"], now["missing"], now["running"]) == (2, 0, 0, [])
    rows = study_rows(StudyFolder(out))
    assert now["best_delta_pp"] == max(row.transfer_delta_pp or 0.0 for row in rows)
    assert RUNNER.invoke(app, ["study", "plan", str(file), "--out", str(out), "--timed", "0", *few]).exit_code == 0
    report = json.loads(RUNNER.invoke(app, ["study", "report", str(out), "--json"]).stdout)
    assert "2 cells: 2 done." in Path(report["report"]).read_text(encoding="utf-8")
    assert (Path(report["tables"]) / "table-1.tex").exists() and (Path(report["figures"]) / "figure-4a.svg").exists()
    handed = RUNNER.invoke(app, ["study", "report", str(out), "--format", "csv"])
    assert handed.stdout.startswith(str(out / "report" / "rows.csv")), handed.output
    refused = RUNNER.invoke(app, ["study", "report", str(out), "--format", "xml"])
    assert refused.exit_code == 2 and "expected parquet or csv" in refused.stderr


@pytest.mark.usefixtures("in_process")
def test_a_study_with_failed_cells_says_so_and_ends_with_1(file: Path, tmp_path: Path) -> None:
    few = ["--set", 'study.students=["vit"]', "--set", "models.resnet=local-dir:nowhere"]
    found = RUNNER.invoke(app, ["study", "run", str(file), "--out", str(tmp_path / "out"), *few])
    assert found.exit_code == 1 and "2 cells done, 2 failed" in found.stdout
    assert "failed: vit from resnet; kl: " in found.stdout
    few += ["--set", 'study.teachers=["resnet"]']
    planned = RUNNER.invoke(app, ["study", "plan", str(file), "--out", str(tmp_path / "new"), *few])
    assert planned.exit_code == 2 and "2 of the cells tried cannot be run; the first: vit from resnet" in planned.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "settings.epoch=1"], "unknown key 'epoch'; near matches: epochs"),
        (["--on", "cloud"], "--on is 'cloud': expected one of local, ray, slurm"),
        (["--engine", "num_gpus"], "--engine is 'num_gpus': expected NAME=VALUE"),
        (["--engine", "num_gpus=1"], "engine options (num_gpus) are for ray and slurm"),
    ],
)
def test_mistakes_are_one_line(file: Path, tmp_path: Path, options: list[str], message: str) -> None:
    found = RUNNER.invoke(app, ["study", "run", str(file), "--out", str(tmp_path / "out"), *options])
    assert found.exit_code == 2 and message in found.output and "Traceback" not in found.output
    assert not (tmp_path / "out").exists()


def test_status_of_what_is_no_study_is_refused(tmp_path: Path) -> None:
    found = RUNNER.invoke(app, ["study", "status", str(tmp_path)])
    assert found.exit_code == 2 and "holds no study" in found.output


def test_cells_are_known_before_anything_is_written(file: Path, tmp_path: Path) -> None:
    assert len(study_cells(read_study(file), tmp_path / "out")) == 6 and not (tmp_path / "out").exists()
