"""What trackers are told, read back as their users read it."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from typer.testing import CliRunner

import gainfinder
from gainfinder.cli import app
from gainfinder.config import choices
from gainfinder.data.images import Images
from gainfinder.errors import MissingExtra, SettingsError
from gainfinder.libraries import quiet
from gainfinder.runs import tracking
from killing import KillAfter, Killed
from transfers import SHORT, Run, document

SETTINGS: Run = {**SHORT, "epochs": 3, "limit": 90}
TRACKED: Run = {**SETTINGS, "track": "tensorboard"}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a folder: steps and values by tag."""
    with quiet():
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        read = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def rows(folder: Path) -> list[Run]:
    return [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]


def assert_epochs(found: dict[str, list[tuple[int, float]]], told: list[Run]) -> None:
    """Each measure of each epoch stands there once."""
    tags = {key for row in told for key, value in row.items() if isinstance(value, float)}
    assert tags == {tag for tag in found if not tag.startswith("final/")}
    for tag in tags:
        assert found[tag] == [(row["epoch"], pytest.approx(row[tag], rel=1e-6)) for row in told], tag


def wait_for_the_next_second() -> None:
    """TensorBoard reads files in the order of the seconds they were begun in; a new process takes longer to start."""
    time.sleep(1.01 - time.time() % 1)


class Fake(GeneralTracker):  # type: ignore[misc]
    """A tracker that remembers, and fails where it is told to."""

    name = "fake"
    requires_logging_directory = False
    told: list[tuple[str, Any]] = []  # noqa: RUF012
    fails_at: str | int | None = None

    def __init__(self, run_name: str) -> None:
        super().__init__()
        self.run_name = run_name

    @property
    def tracker(self) -> list[tuple[str, Any]]:
        return self.told

    def start(self) -> None:
        print("a word on stdout")
        self.tell("start", self.run_name)

    def store_init_configuration(self, values: Run) -> None:
        self.tell("config", values)

    def log(self, values: Run, step: int | None = None, **_: Any) -> None:
        self.tell(step, values)

    def finish(self) -> None:
        self.tell("finish", None)

    def tell(self, what: Any, value: Any) -> None:
        self.told.append((what, value))
        if what == self.fails_at:
            raise ConnectionError("the network is gone\nfor good")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    """A tracker of that name, in the place of those that need a network."""
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "fake", Fake)
    monkeypatch.setattr(choices, "TRACKERS", (*choices.TRACKERS, "fake"))
    monkeypatch.setattr(Fake, "told", [])
    monkeypatch.setattr(Fake, "fails_at", None)
    return Fake


@pytest.fixture(scope="module")
def tracked(zoo: dict[str, str], val: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guarded run that TensorBoard is told of."""
    out = tmp_path_factory.mktemp("tracked") / "run"
    gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", val=val, out=out, **{**TRACKED, "guard": True})
    return out


def test_tensorboard_gets_what_epochs_jsonl_holds(tracked: Path) -> None:
    told, found = rows(tracked), scalars(tracked / "tracking")
    assert len(told) == 3
    assert_epochs(found, told)
    assert found["learning_rate"][0][1] > found["learning_rate"][2][1] > 0
    assert {"accuracy", "knowledge_gain", "knowledge_loss", "train_loss", "teacher_share", "agreement"} <= found.keys()


def test_tensorboard_gets_the_results_numbers(tracked: Path) -> None:
    result, found = document(tracked, "result.json"), scalars(tracked / "tracking")
    for key in ("accuracy_before", "accuracy_after", "transfer_delta_pp", "positive_flips", "samples"):
        assert found[f"final/{key}"] == [(3, pytest.approx(result[key]))]
    low, high = result["transfer_delta_ci_pp"]
    assert found["final/transfer_delta_ci_pp/low"] == [(3, pytest.approx(low))]
    assert found["final/transfer_delta_ci_pp/high"] == [(3, pytest.approx(high))]
    assert found["final/guard/alpha"] == [(3, result["guard"]["alpha"])]
    assert "final/format_version" not in found


def test_tensorboard_gets_the_resolved_configuration(tracked: Path) -> None:
    config = document(tracked, "config.json")
    (path,) = (tracked / "tracking").rglob("hparams.yml")
    found = yaml.safe_load(path.read_text())
    assert found["run"] == "run"
    assert found["settings.lr"] == config["settings"]["lr"] and found["settings.method"] == "kl-dp"
    assert found["teachers.1.digest"] == config["teachers"][0]["digest"]
    assert found["data.samples"] == 90 and found["environment.torch"] == config["environment"]["torch"]


@pytest.mark.parametrize(("killed_after", "every"), [(100, None), (150, 1), (200, None)])
def test_a_resumed_run_tells_no_epoch_twice(
    zoo: dict[str, str], val: Images, run_folder: Path, killed_after: int, every: int | None
) -> None:
    asked = {**TRACKED, "out": run_folder, "checkpoint_every": every, "val": val}
    with pytest.raises(Killed):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", callbacks=[KillAfter(killed_after)], **asked)
    assert len(scalars(run_folder / "tracking")["accuracy"]) == killed_after // 90
    wait_for_the_next_second()
    gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", **asked)
    gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", **asked)  # finished before
    assert_epochs(scalars(run_folder / "tracking"), rows(run_folder))
    assert len(list((run_folder / "tracking").rglob("hparams.yml"))) == 1


def test_a_kill_between_an_epochs_row_and_the_note_of_it_is_made_up_for(
    zoo: dict[str, str], val: Images, run_folder: Path
) -> None:
    asked = {**TRACKED, "out": run_folder, "val": val}
    with pytest.raises(Killed):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", callbacks=[KillAfter(200)], **asked)
    note = run_folder / "tracking" / "written.json"
    assert json.loads(note.read_text()) == {"tensorboard": {"config": True, "epochs": 2, "account": False}}
    wait_for_the_next_second()
    note.write_text(json.dumps({"tensorboard": {"config": True, "epochs": 1, "account": False}}))
    gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", **asked)
    assert_epochs(scalars(run_folder / "tracking"), rows(run_folder))


def test_what_tracks_a_run_is_no_part_of_it(
    zoo: dict[str, str], val: Images, run_folder: Path, fake: type[Fake]
) -> None:
    """Resumed with another tracker, which gets the epochs before, too; and finished without it, told afterwards."""
    asked = {**SETTINGS, "out": run_folder, "val": val}
    with pytest.raises(Killed):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", callbacks=[KillAfter(100)], **asked)
    assert not (run_folder / "tracking").exists()
    done = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", track=["fake", "fake"], **asked)
    assert [what for what, _ in fake.told] == ["start", "config", 1, 2, 3, 3, "finish"]
    assert fake.told[0][1] == "run"
    assert fake.told[2][1]["accuracy"] == done.epochs[0].accuracy
    again = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", track=("tensorboard", "fake"), **asked)
    assert_epochs(scalars(run_folder / "tracking"), rows(run_folder))
    assert "final/accuracy_after" in scalars(run_folder / "tracking")
    assert len(fake.told) == 7 and again.account == {**done.account, "resumed_epochs": 3}


@pytest.mark.parametrize(("method", "taught"), [("kl-dp-u", {"teacher_share"}), (None, set())])
def test_without_labels_only_what_is_known_is_told(
    zoo: dict[str, str], fake: type[Fake], method: str | None, taught: set[str]
) -> None:
    images = gainfinder.load_images("digits#2/4").without_labels()
    val = images.select(range(30))
    asked = {**SETTINGS, "labels": "none", "track": ("fake",), "method": method}
    gainfinder.transfer(zoo["vit"], zoo["resnet"], images, val=val, **asked)
    told = [value for what, value in fake.told if isinstance(what, int)]
    assert told[0].keys() == {"agreement", "confidence", "train_loss", "learning_rate"} | taught
    assert "final/agreement" in told[3] and None not in told[3].values()
    assert fake.told[0] == ("start", "run")  # no folder is kept: a scratch one


def test_each_step_of_a_sequence_is_tracked_and_the_whole(
    zoo: dict[str, str], val: Images, run_folder: Path, fake: type[Fake]
) -> None:
    teachers = [zoo["resnet"], zoo["convnext"]]
    asked = {**SETTINGS, "track": ("tensorboard", "fake"), "val": val, "out": run_folder, "epochs": 2, "order": "given"}
    with pytest.raises(Killed):
        gainfinder.transfer(zoo["vit"], teachers, "digits#2/4", callbacks=[KillAfter(300)], **asked)
    wait_for_the_next_second()
    gainfinder.transfer(zoo["vit"], teachers, "digits#2/4", **asked)
    for step in "12":
        folder = run_folder / "steps" / step
        found = scalars(folder / "tracking")
        assert_epochs(found, rows(folder))
        after = document(folder, "result.json")["accuracy_after"]
        assert found["final/accuracy_after"] == [(2, pytest.approx(after))]
    whole = scalars(run_folder / "tracking")
    assert whole["final/accuracy_after"] == [(4, pytest.approx(document(run_folder, "result.json")["accuracy_after"]))]
    assert all(tag.startswith("final/") for tag in whole)
    names = [value for what, value in fake.told if what == "start"]
    assert names == ["run-step-1", "run-step-2", "run-step-2", "run"]


@pytest.mark.parametrize("fails_at", ["start", "config", 1, 2, "finish"])
def test_a_tracker_that_fails_does_not_lose_the_run(
    zoo: dict[str, str],
    *,
    val: Images,
    run_folder: Path,
    fake: type[Fake],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    fails_at: Any,
) -> None:
    monkeypatch.setattr(fake, "fails_at", fails_at)
    asked = {**SETTINGS, "track": ("fake", "tensorboard"), "val": val, "out": run_folder}
    done = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", **asked)
    assert [record.getMessage() for record in caplog.records if "tracking" in record.getMessage()] == [
        "tracking by fake failed (ConnectionError: the network is gone); the run goes on without it"
    ]
    assert fake.told[-1][0] == fails_at
    assert len(done.epochs) == 3
    assert_epochs(scalars(run_folder / "tracking"), rows(run_folder))
    assert capsys.readouterr().out == "", "stdout is for results"


def test_a_tracker_is_refused_in_one_line_before_any_work(zoo: dict[str, str], run_folder: Path) -> None:
    arguments = ["transfer", "--student", zoo["vit"], "--teacher", zoo["resnet"], "--data", "digits", "--out"]
    result = CliRunner().invoke(app, [*arguments, str(run_folder), "--track", "tensorbord"])
    assert result.exit_code == 2 and result.stdout == "" and not run_folder.exists()
    assert result.stderr == (
        "gainfinder: track is 'tensorbord'; near matches: tensorboard; expected some of aim, clearml, comet_ml, "
        "dvclive, mlflow, swanlab, tensorboard, trackio, wandb\n"
    )


@pytest.mark.parametrize(
    ("name", "command"), [("tensorboard", "pip install 'gainfinder[tensorboard]'"), ("wandb", "pip install wandb")]
)
def test_a_missing_package_is_named_before_any_work(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, command: str
) -> None:
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    with pytest.raises(MissingExtra) as caught:
        gainfinder.transfer("no-such-model", "no-such-model", "/no/such/data", out=run_folder, track=(name,))
    assert str(caught.value) == f"`track={name!r}` needs the package {name!r}: install it with `{command}`"
    assert not run_folder.exists()


def test_files_of_a_tracker_need_a_folder_that_stays(zoo: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="'tensorboard' writes into the result folder, and none is kept"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits", **TRACKED)
