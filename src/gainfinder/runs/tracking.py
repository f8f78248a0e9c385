"""A run's measures for experiment trackers (TensorBoard, Weights & Biases, MLflow …), by Accelerate's tracker classes.

In the folder that a run gives its trackers:

events.out.tfevents…   what TensorBoard reads; its view of the hyperparameters lies in a folder beside
written.json           of each tracker: how many epochs it has, and whether it has the result (`account`)

Rows are written by what written.json lacks: a resumed run writes no epoch twice, and a tracker that is new to a resumed
or finished run gets all of them. TensorBoard's files go on where they ended; other trackers begin a run of their own
with the epochs that are missing.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType

from ..errors import MissingExtra
from ..files import parse_json, remove_partials, write_json
from ..libraries import first_line, quiet
from ..results import TransferMetrics

_log = logging.getLogger("gainfinder")

PROJECT = "gainfinder"
"""Where a tracker sorts runs by projects: the project of all runs."""
EPOCH_MEASURES = (
    "accuracy", "transfer_delta_pp", "knowledge_gain", "knowledge_loss", "total_delta_pp", "total_gain", "total_loss",
    "agreement", "confidence", "train_loss", "teacher_share", "learning_rate",
)  # fmt: skip
FINAL = "final/"
"""Before the names of the result's numbers."""


def require(names: Sequence[str]) -> None:
    """Find out before any work is done whether the trackers' packages are installed.

    Raises:
        MissingExtra: the package of a tracker is missing.
    """
    optional = {str(kind) for kind in LoggerType}
    there = {str(kind) for kind in get_available_trackers()}
    for name in names:
        if name in optional and name not in there:
            raise MissingExtra(name, "tensorboard" if name == "tensorboard" else None, f"`track={name!r}`")


def needing_folder(names: Sequence[str]) -> list[str]:
    """The trackers that write into the result folder."""
    return [name for name in names if name == "dvclive" or LOGGER_TYPE_TO_CLASS[name].requires_logging_directory]


class Tracking:
    """The trackers of one run. One that fails is warned of once and left out from then on; the run goes on.

    Args:
        names: names of the trackers; none in processes that do not write.
        folder: folder for what trackers write, and for the record of what they have.
        run: the run's name.
        config: the resolved run, as in `config.json`.
    """

    def __init__(self, names: Sequence[str], folder: Path, *, run: str, config: Mapping[str, Any]) -> None:
        self.folder = folder
        self.run = run
        self.config = config
        self._names = list(dict.fromkeys(names))
        self._started: dict[str, Any] = {}

    def begin(self) -> None:
        """Start the trackers and log the configuration; otherwise the first write starts them."""
        for name in self._names:
            self._attempt(name, self._tracker, name)

    def epochs(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows of the finished epochs, those that are new; measures that are null are left out."""
        for name in self._names:
            for row in rows[self._written(name)["epochs"] :]:
                if not self._attempt(name, self._write_epoch, name, row):
                    break

    def metrics(self, metrics: TransferMetrics, *, epochs: int) -> None:
        """Write the numbers of a result, unless they are written already, at step `epochs`."""
        for name in self._names:
            if not self._written(name)["account"]:
                self._attempt(name, self._write_metrics, name, metrics, epochs)

    def close(self) -> None:
        """End the trackers."""
        for name in self._names:
            if name in self._started:
                self._attempt(name, self._started[name].finish)
        self._names, self._started = [], {}

    def _tracker(self, name: str) -> Any:
        if name not in self._started:
            written = self._written(name)
            tracker = LOGGER_TYPE_TO_CLASS[name](**self._arguments(name, written["epochs"]))
            tracker.start()
            self._started[name] = tracker
            if name != "tensorboard" or not written["config"]:
                tracker.store_init_configuration({"run": self.run, **hyperparameters(self.config)})
                self._note(name, config=True)
        return self._started[name]

    def _arguments(self, name: str, epochs: int) -> dict[str, Any]:
        """What a tracker's class is made with; what they call run_name is mostly the project."""
        # What a killed process wrote beyond what it noted is hidden: that is written again.
        resumes = any(self.folder.glob("events.out.tfevents.*"))
        arguments: dict[str, dict[str, Any]] = {
            "tensorboard": {"run_name": "", "logging_dir": self.folder, "purge_step": epochs + 1 if resumes else None},
            "wandb": {"run_name": PROJECT, "name": self.run},
            "trackio": {"run_name": PROJECT, "name": self.run},
            "swanlab": {"run_name": PROJECT, "experiment_name": self.run},
            "clearml": {"project_name": PROJECT, "task_name": self.run},
            "mlflow": {"experiment_name": PROJECT, "run_name": self.run},
            "comet_ml": {"run_name": PROJECT},
            "dvclive": {"dir": str(self.folder / "dvclive"), "resume": True},
        }
        if name in arguments:
            return arguments[name]
        return {"run_name": self.run, **({"logging_dir": self.folder} if needing_folder([name]) else {})}

    def _write_epoch(self, name: str, row: Mapping[str, Any]) -> None:
        values = {key: row[key] for key in EPOCH_MEASURES if row.get(key) is not None}
        self._tracker(name).log(values, step=row["epoch"])
        self._note(name, epochs=row["epoch"])

    def _write_metrics(self, name: str, metrics: TransferMetrics, epochs: int) -> None:
        found = numbers(metrics.model_dump(mode="json", exclude={"format_version", "finished"}))
        self._tracker(name).log({f"{FINAL}{key}": value for key, value in found.items()}, step=epochs)
        self._note(name, account=True)

    def _attempt(self, name: str, act: Callable[..., Any], *given: Any) -> bool:
        """Do something with a tracker; False where it failed, which is the last that is heard of it."""
        try:
            with quiet(), redirect_stdout(sys.stderr):  # stdout is for results
                act(*given)
        except Exception as error:  # each tracker has exceptions of its own
            _log.warning("tracking by %s failed (%s); the run goes on without it", name, first_line(error))
            self._names = [other for other in self._names if other != name]
            return False
        return True

    def _written(self, name: str) -> dict[str, Any]:
        nothing = {"config": False, "epochs": 0, "account": False}
        return {**nothing, **_read(self.folder / "written.json").get(name, {})}

    def _note(self, name: str, **done: Any) -> None:
        path = self.folder / "written.json"
        write_json(path, {**_read(path), name: {**self._written(name), **done}})


@contextmanager
def tracking(names: Sequence[str], folder: Path, *, run: str, config: Mapping[str, Any]) -> Iterator[Tracking]:
    """The trackers of a run, ended with the block however it ends; arguments as for `Tracking`."""
    if names:
        remove_partials(folder)
    found = Tracking(names, folder, run=run, config=config)
    try:
        yield found
    finally:
        found.close()


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a result, nested ones too, by name as a path; lists are left out, except for intervals.

    >>> numbers({"accuracy_after": 0.5, "student": "vit", "guard": {"alpha": 1.0}, "transfer_delta_ci_pp": [-1, 2]})
    {'accuracy_after': 0.5, 'guard/alpha': 1.0, 'transfer_delta_ci_pp/low': -1, 'transfer_delta_ci_pp/high': 2}
    """
    found: dict[str, float] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            found.update({f"{key}/{inner}": number for inner, number in numbers(value).items()})
        elif key.endswith(("_ci_pp", "_ci")) and value is not None:
            found[f"{key}/low"], found[f"{key}/high"] = value
        elif isinstance(value, int | float):
            found[key] = value
    return found


def hyperparameters(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """A configuration as trackers take it: flat, each value plain; null ones are left out.

    >>> hyperparameters({"settings": {"lr": 0.1, "views": None}, "teachers": [{"reference": "vit"}], "sizes": [[8, 8]]})
    {'settings.lr': 0.1, 'teachers.1.reference': 'vit', 'sizes': '[[8, 8]]'}
    """
    found: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        inner = value
        if isinstance(value, list | tuple) and all(isinstance(one, Mapping) for one in value):
            inner = {str(number): one for number, one in enumerate(value, start=1)}
        if isinstance(inner, Mapping):
            found.update({f"{key}.{name}": leaf for name, leaf in hyperparameters(inner).items()})
        elif inner is not None:
            found[key] = inner if isinstance(inner, bool | int | float | str) else json.dumps(inner)
    return found


def _read(path: Path) -> dict[str, Any]:
    """What is written so far; empty where the file is missing or damaged, so that everything is written again."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
