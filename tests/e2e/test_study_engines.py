"""Studies on engines: a Ray cluster of two nodes of which one is lost, and Slurm's stand-in of submitit."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines import InProcess
from gainfinder.errors import MissingExtra, SettingsError
from gainfinder.study import StudyFolder, read_study
from gainfinder.workers import make_backend, run_study
from studies import LONGER, result_of, write_study
from transfers import same

FEW = (*LONGER, 'study.teachers=["convnext"]')
"""Two cells of them."""


@pytest.fixture
def file(tmp_path: Path, zoo: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_study(tmp_path / "small.toml", zoo)


def assert_same(one: StudyFolder, other: StudyFolder) -> None:
    for cell in one.all_cells():
        (metrics, state), (expected, expected_state) = result_of(one, cell), result_of(other, cell)
        assert metrics == expected and same(state, expected_state)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, list[Any]]]:
    """A Ray cluster whose head has no processor, and its two nodes with one each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield found, [found.add_node(num_cpus=1) for _ in range(2)]
    ray.shutdown()
    found.shutdown()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_study_on_two_nodes_of_which_one_is_lost_goes_on_here(
    file: Path, tmp_path: Path, undisturbed: StudyFolder, cluster: tuple[Any, list[Any]]
) -> None:
    out = tmp_path / "out"
    lost: list[Any] = []
    ray_cluster, nodes = cluster

    def lose_a_node() -> None:
        folder = StudyFolder(out)
        notes = [note for cell in folder.all_cells() if (note := folder.progress(cell)) is not None]
        if not lost and len({note["pid"] for note in notes}) == 2 and any(note["trained"] for note in notes):
            lost.append(nodes[0])
            ray_cluster.remove_node(nodes[0], allow_graceful=False)

    backend = make_backend("ray", out=out, options={"address": ray_cluster.address})
    summary = run_study(read_study(file, FEW), out, backend=backend, workers=2, threads=1, on_poll=lose_a_node)
    assert lost and summary.lost >= 1 and (summary.done, summary.failed) == (2, 0)
    # Begun on Ray and grown here: by the same files.
    run_study(read_study(file, LONGER), out, backend=InProcess(), threads=1)
    assert len(StudyFolder(out).all_cells()) == 4
    assert_same(StudyFolder(out), undisturbed)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there are no such signals")
def test_jobs_of_slurm_do_a_study_and_a_lost_one_is_submitted_again(
    file: Path, tmp_path: Path, undisturbed: StudyFolder
) -> None:
    pytest.importorskip("submitit")
    out = tmp_path / "out"
    lost: list[int] = []

    def lose_a_job() -> None:
        folder = StudyFolder(out)
        notes = [note for cell in folder.all_cells() if (note := folder.progress(cell)) is not None]
        if not lost and notes:
            lost.append(int(notes[0]["pid"]))
            os.kill(lost[0], signal.SIGKILL)

    backend = make_backend("slurm", out=out, options={"cluster": "local", "timeout_min": "5"})
    summary = run_study(read_study(file, FEW), out, backend=backend, workers=1, threads=1, on_poll=lose_a_job)
    assert summary.lost == 1 and (summary.done, summary.failed) == (2, 0)
    assert_same(StudyFolder(out), undisturbed)


def test_an_engine_without_its_package_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (("ray", "ray"), ("submitit", "slurm")):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(MissingExtra, match=rf"gainfinder\[{name}\]"):
            make_backend(name, out=tmp_path)


def test_options_that_slurm_does_not_know_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    with pytest.raises(SettingsError, match="Slurm options"):
        make_backend("slurm", out=tmp_path, options={"cluster": "local", "patition": "gpu"})
