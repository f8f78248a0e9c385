"""An engine of studies for tests: its workers run in this process, one after another."""

from gainfinder.workers import WorkerTask, work


class InProcess:
    """Runs each worker to its end when it is started."""

    name = "here"
    outlives = False
    devices = 1

    def start(self, task: WorkerTask) -> "InProcess":
        work(task)
        return self

    def poll(self) -> str:
        return ""

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass
