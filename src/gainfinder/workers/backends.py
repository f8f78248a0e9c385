"""Engines that workers run on: this machine, a Ray cluster, Slurm. Thin: they start, watch and stop, no more."""

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import MissingExtra, SettingsError
from ..libraries import first_line
from .task import WorkerTask
from .worker import work

ENGINES = ("local", "ray", "slurm")
GRACE_S = 10.0
"""Time that a local worker gets to stop by itself."""


class Handle(Protocol):
    """A worker that was started."""

    def poll(self) -> str | None:
        """None while it runs, an empty text where it ended well, else what became of it."""

    def stop(self) -> None:
        """End it; its cell goes on from its last checkpoint when somebody takes it."""


class Backend(Protocol):
    """An engine that runs workers."""

    name: str
    outlives: bool
    """Whether its workers go on when the process that started them ends."""
    devices: int
    """Number of GPUs that workers are shared out among; 1 where the engine places them, or without GPU."""

    def start(self, task: WorkerTask) -> Handle:
        """Start a worker."""

    def close(self) -> None:
        """Let go of the engine."""


def make_backend(name: str, *, out: Path, options: Mapping[str, str] | None = None) -> Backend:
    """The engine of a name.

    Args:
        name: `local`, `ray` or `slurm`.
        out: the study's folder.
        options: of the engine: for Ray `address`, `num_cpus`, `num_gpus` and further options of a remote function; for
            Slurm those of submitit, such as `slurm_partition` and `timeout_min`.

    Raises:
        SettingsError: there is no engine of that name, or one that takes no options got some.
        MissingExtra: its package is not installed.
    """
    given = dict(options or {})
    if name == "ray":
        return RayBackend(given)
    if name == "slurm":
        return SlurmBackend(out / "slurm", given)
    if name != "local":
        raise SettingsError(f"`on` is {name!r}: expected one of {', '.join(ENGINES)}")
    if given:
        raise SettingsError(f"engine options ({', '.join(given)}) are for ray and slurm: leave them out, or give `on`")
    return LocalBackend()


class LocalBackend:
    """Processes of this machine; with several GPUs each takes the next one.

    They end with the process that started them, however it ends: its end closes their standard input.
    """

    name = "local"
    outlives = False

    def __init__(self) -> None:
        self.gpus = _visible_devices()
        self.devices = max(1, len(self.gpus))

    def start(self, task: WorkerTask) -> Handle:
        """Start a worker."""
        environment = dict(os.environ)
        if task.threads is not None:
            environment["OMP_NUM_THREADS"] = str(task.threads)
        if len(self.gpus) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[task.number % len(self.gpus)]
        return _LocalHandle(task, environment)

    def close(self) -> None:
        """Nothing to let go of."""


class _LocalHandle:
    def __init__(self, task: WorkerTask, environment: Mapping[str, str]) -> None:
        log = task.folder / "logs" / f"worker-{task.number}.log"
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gainfinder.workers", task.to_json()],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the study, which then stops its workers
            )
        self.log = log

    def poll(self) -> str | None:
        """As `Handle.poll`: how its process ended."""
        code = self.process.poll()
        if code is None:
            return None
        self._hang_up()
        if code == 0:
            return ""
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"worker process {self.process.pid} {how}; see {self.log}"

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._hang_up()

    def _hang_up(self) -> None:
        assert self.process.stdin is not None, "it is a pipe"
        with suppress(OSError):
            self.process.stdin.close()


class RayBackend:
    """Tasks of a Ray cluster: the one at `address`, by default one started here. Ray places the workers.

    Nodes share the study's folder. Packages and models have to be there for each of them, as for any Ray job.
    """

    name = "ray"
    outlives = False
    devices = 1

    def __init__(self, options: Mapping[str, str]) -> None:
        try:
            import ray  # noqa: PLC0415
        except ImportError as error:
            raise MissingExtra("ray", "ray", "running a study on Ray") from error
        given: dict[str, Any] = {key: _number(value) for key, value in options.items()}
        self.ray = ray
        self.owns = not ray.is_initialized()
        address = given.pop("address", None)
        if self.owns:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
        resources = {"num_cpus": 1, **given}
        self._work = ray.remote(max_retries=0, **resources)(_work)

    def start(self, task: WorkerTask) -> Handle:
        """Start a worker."""
        return _RayHandle(self.ray, self._work.remote(task.to_json()))

    def close(self) -> None:
        """Disconnect, and stop the cluster that was started here."""
        if self.owns:
            self.ray.shutdown()


@dataclass
class _RayHandle:
    ray: Any
    reference: Any
    ended: str | None = field(default=None)

    def poll(self) -> str | None:
        """As `Handle.poll`: what Ray says of its task; asked again, the same."""
        if self.ended is None:
            ready, _ = self.ray.wait([self.reference], timeout=0)
            if ready:
                try:
                    self.ray.get(ready[0])
                    self.ended = ""
                except Exception as error:  # the worker's own errors come as Ray's, as those of lost nodes do
                    self.ended = f"Ray: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
        return self.ended

    def stop(self) -> None:
        self.ray.cancel(self.reference, force=True)


class SlurmBackend:
    """Jobs of Slurm by submitit, one a worker. They go on when the process that submitted them ends.

    Args:
        folder: what submitit keeps of the jobs.
        options: of submitit; `cluster` (`slurm`, `local`, `debug`) chooses its executor.
    """

    name = "slurm"
    outlives = True
    devices = 1

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        try:
            import submitit  # noqa: PLC0415
        except ImportError as error:
            raise MissingExtra("submitit", "slurm", "running a study on Slurm") from error
        self.submitit = submitit
        self.folder = folder
        self.options: dict[str, Any] = {key: _number(value) for key, value in options.items()}
        self.executor: Any = None
        with tempfile.TemporaryDirectory() as scratch:  # options are refused before the study's folder is made
            self._make(Path(scratch))

    def _make(self, folder: Path) -> Any:
        given = dict(self.options)
        try:
            executor = self.submitit.AutoExecutor(folder=folder, cluster=given.pop("cluster", None))
            executor.update_parameters(name="gainfinder", **{"timeout_min": 24 * 60, **given})
        except (AssertionError, AttributeError, NameError, TypeError, ValueError) as error:  # as submitit checks them
            raise SettingsError(f"Slurm options: {first_line(error)}") from error
        return executor

    def start(self, task: WorkerTask) -> Handle:
        """Start a worker."""
        self.executor = self.executor or self._make(self.folder)
        return _SlurmHandle(self.executor.submit(_work, task.to_json()))

    def close(self) -> None:
        """Nothing to let go of: jobs go on by themselves."""


@dataclass
class _SlurmHandle:
    job: Any

    def poll(self) -> str | None:
        """As `Handle.poll`: what Slurm says of its job."""
        if not self.job.done():
            return None
        error = self.job.exception()
        return "" if error is None else f"job {self.job.job_id}: {str(error).strip().splitlines()[0]}"

    def stop(self) -> None:
        self.job.cancel(check=False)


def _work(text: str) -> int:
    return work(WorkerTask.from_json(text))


def _number(value: str) -> Any:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _visible_devices() -> list[str]:
    """The GPUs that workers are shared out among, as `CUDA_VISIBLE_DEVICES` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [one.strip() for one in given.split(",") if one.strip()]
    import torch  # noqa: PLC0415

    return [str(number) for number in range(torch.cuda.device_count())]
