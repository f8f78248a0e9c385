"""Files of results that are damaged, nested without end or of other types: one line that names the file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gainfinder.errors import RunFolderError
from gainfinder.results import RunFolder, read_head, read_ranking, read_scan
from gainfinder.study import Failure, StudyFolder, read_measures, read_study
from studies import SMALL

DAMAGED = {
    "cut off": b'{"student": "a"',
    "nested": b"[" * 100_000 + b"]" * 100_000,
    "nested as asked": b'{"student": ' + b"[" * 500 + b"]" * 500 + b"}",
    "a list": b"[]",
    "null": b"null",
    "a number": b"1" * 5000,
    "not UTF-8": b'{"student": "\xff"}',
    "half a letter": b'{"student": "\\ud800", "teachers": 5}',
    "empty": b"",
    "zeros": bytes(100),
}
READERS: dict[str, Callable[[Path], object]] = {
    "config.json": lambda folder: RunFolder(folder).check({"student": {}}),
    "result.json": lambda folder: RunFolder(folder).read_result(),
    "epochs.jsonl": lambda folder: RunFolder(folder).read_epochs(),
    "trials.jsonl": lambda folder: RunFolder(folder).read_trials(),
    "scan.json": read_scan,
    "ranking.json": read_ranking,
    "head.json": read_head,
    "cell.json": lambda folder: read_measures(folder / "cell.json"),
    "study.json": lambda folder: StudyFolder(folder).all_cells(),
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, name: str, kind: str) -> None:
    if (name, kind) in {("epochs.jsonl", "empty"), ("trials.jsonl", "empty"), ("config.json", "half a letter")}:
        return  # no epochs yet; another run's configuration
    (tmp_path / name).write_bytes(DAMAGED[kind])
    with pytest.raises(RunFolderError) as caught:
        READERS[name](tmp_path)
    message = str(caught.value)
    assert name in message and len(message.splitlines()) == 1 and len(message) < 1000


@pytest.mark.parametrize("kind", [kind for kind in DAMAGED if kind != "half a letter"])
def test_damaged_notes_of_workers_count_as_none(tmp_path: Path, kind: str) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    folder = StudyFolder(tmp_path / "out")
    folder.claim(read_study(tmp_path / "small.toml"))
    cell = folder.all_cells()[0]
    for place in ("running", "failed"):
        (folder.path / place / f"{cell.key}.json").write_bytes(DAMAGED[kind])
    assert folder.last_note(cell) == {} and folder.progress(cell) is None and folder.failure(cell) is None


@pytest.mark.parametrize("note", ['{"pid": "x"}', '{"pid": -5}', '{"share": NaN}', '{"epoch": 1e400}', '{"label": 3}'])
def test_notes_of_other_types_count_as_none(tmp_path: Path, note: str) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    folder = StudyFolder(tmp_path / "out")
    folder.claim(read_study(tmp_path / "small.toml"))
    cell = folder.all_cells()[0]
    (folder.path / "running" / f"{cell.key}.json").write_text(note)
    assert folder.last_note(cell) == {}


def test_a_failure_is_kept_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf-very-secret")
    (tmp_path / "small.toml").write_text(SMALL)
    folder = StudyFolder(tmp_path / "out")
    folder.claim(read_study(tmp_path / "small.toml"))
    cell = folder.all_cells()[0]
    folder.fail(cell, Failure(error="401 for hf-very-secret", kind="E", trace="s3://a:bcd@x", when=1.0, host="h"))
    failure = folder.failure(cell)
    assert failure is not None and (failure.error, failure.trace) == ("401 for ***", "s3://***@x")
