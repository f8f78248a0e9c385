"""The bank gives back what was put in, to a stated precision, and nothing that is torn, altered or too much."""

import errno
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forked import forked
from gainfinder.config.choices import size_in_bytes, top_k_of
from gainfinder.errors import BankError, SettingsError
from gainfinder.inference.bank import Bank, BankEntry, EntryKey, entry_bytes
from gainfinder.partition import log_confidences

N, C = 50, 7


def key(view: str = "0", storage: str = "full", model: str = "m") -> EntryKey:
    return EntryKey(model=model, images="i", view=view, storage=storage)


def answers(n: int = N, c: int = C, scale: float = 8.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(n, c, generator=torch.Generator().manual_seed(seed))


def labels(n: int = N, c: int = C) -> np.ndarray:
    return np.random.default_rng(1).integers(0, c, n)


def put(bank: Bank, of: EntryKey, logits: torch.Tensor, block: int = 16, **about: Any) -> BankEntry:
    def blocks() -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        order = np.random.default_rng(2).permutation(len(logits))
        for start in range(0, len(order), block):
            positions = order[start : start + block]
            yield positions, logits[positions]

    return bank.build(of, blocks, images=len(logits), classes=logits.shape[1], **about)


ROWS = torch.arange(N)


def test_full_storage_keeps_logits_up_to_a_constant_and_half_precision(tmp_path: Path) -> None:
    logits = answers(scale=30.0)
    rows = torch.tensor([3, 3, 49, 0])
    found = put(Bank(tmp_path), key(), logits).logits(rows)
    expected = (logits - logits.amax(dim=1, keepdim=True))[rows]
    assert found.dtype == torch.float32 and found.shape == (4, C)
    assert (found - expected).abs().le(2**-11 * expected.abs() + 1e-7).all()
    assert torch.equal(found.argmax(dim=1), logits[rows].argmax(dim=1))


@pytest.mark.parametrize("storage", ["full", "top-3", "exact"])
def test_confidences_are_kept_bit_for_bit(tmp_path: Path, storage: str) -> None:
    logits, target = answers(), labels()
    entry = put(Bank(tmp_path), key(storage=storage), logits, labels_n=target)
    for labelled, by in ((False, None), (True, torch.from_numpy(target))):
        assert torch.equal(entry.log_confidence(ROWS, labelled=labelled), log_confidences(logits[:, None], by)[:, 0])


def test_exact_storage_keeps_logits_bit_for_bit(tmp_path: Path) -> None:
    entry = put(Bank(tmp_path), key(storage="exact"), answers(), about={"broken": ["x: no image"]})
    assert torch.equal(entry.logits(ROWS), answers()) and entry.about == {"broken": ["x: no image"]}


def test_top_k_keeps_the_most_probable_and_spreads_the_rest(tmp_path: Path) -> None:
    logits = answers(scale=2.0)
    found = put(Bank(tmp_path), key(storage="top-3"), logits).logits(ROWS).exp()
    expected = logits.softmax(dim=1)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(N), atol=2e-3, rtol=0)
    top = expected.topk(3, dim=1).indices
    torch.testing.assert_close(found.gather(1, top), expected.gather(1, top), atol=0, rtol=2e-3)
    others = found.scatter(1, top, torch.nan)
    for row in others:
        rest = row[~row.isnan()]
        assert len(rest) == C - 3 and (rest == rest[0]).all()


def test_ties_among_the_most_probable_go_to_the_lowest_class(tmp_path: Path) -> None:
    logits = torch.tensor([[0.0, -5, 0, -5, 1]]).repeat(N, 1)
    found = put(Bank(tmp_path), key(storage="top-2"), logits).logits(ROWS)
    assert (found.topk(2, dim=1).indices == torch.tensor([4, 0])).all()


def test_a_teacher_that_is_sure_beyond_rounding_leaves_finite_logits(tmp_path: Path) -> None:
    logits = torch.zeros(N, C)
    logits[:, 2] = 1e4
    for storage in ("full", "top-1"):
        found = put(Bank(tmp_path), key(storage=storage), logits).logits(ROWS)
        assert found.isfinite().all() and (found.softmax(dim=1)[:, 2] > 0.999).all()


def test_more_classes_asked_for_than_there_are_keeps_all(tmp_path: Path) -> None:
    found = put(Bank(tmp_path), key(storage="top-9"), answers()).logits(ROWS)
    assert torch.equal(found, put(Bank(tmp_path / "b"), key(), answers()).logits(ROWS))


def test_one_class(tmp_path: Path) -> None:
    entry = put(Bank(tmp_path), key(), answers(c=1), labels_n=labels(c=1))
    assert (entry.logits(ROWS) == 0).all() and (entry.log_confidence(ROWS, labelled=True) == 0).all()


def test_images_that_never_came_have_rows_of_nan(tmp_path: Path) -> None:
    for storage in ("full", "top-2", "exact"):
        entry = Bank(tmp_path).build(key(storage=storage), lambda: [(np.array([1]), answers(1))], images=3, classes=C)
        assert entry.logits(torch.arange(3)).isnan().all(dim=1).tolist() == [True, False, True]
        assert entry.log_confidence(torch.arange(3), labelled=False).isnan().tolist() == [True, False, True]


def test_labels_that_were_not_there_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="with labels"):
        put(Bank(tmp_path), key(), answers()).log_confidence(ROWS, labelled=True)


def test_keys_differ_in_every_part() -> None:
    keys = [key(), key(view="1"), key(storage="top-3"), key(model="n"), EntryKey(model="m", images="j", view="0")]
    assert len({one.digest for one in keys}) == 5 and key().digest == key().digest


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    put(Bank(tmp_path), key(), answers())
    assert Bank(tmp_path).find(key(view="1")) is None

    def never() -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        raise AssertionError
        yield

    entry = Bank(tmp_path).build(key(), never, images=N, classes=C)
    found = Bank(tmp_path).find(key())
    assert found is not None and torch.equal(entry.logits(ROWS), found.logits(ROWS))


@pytest.mark.parametrize("reason", [errno.EROFS, errno.EACCES])
def test_a_bank_that_may_only_be_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    put(Bank(tmp_path), key(), answers())

    def refuse(path: Path) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(Path, "touch", refuse)
    entry = Bank(tmp_path).find(key())
    assert entry is not None and not entry.logits(ROWS).isnan().any()


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "torn":
        path.write_bytes(content[: len(content) // 2])
    elif how == "garbage":
        path.write_bytes(b"\x00garbage")
    else:
        content[-3] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["missing", "torn", "garbage", "altered"])
@pytest.mark.parametrize("name", ["meta.json", "logits.npy", "exact.npy", "classes.npy", "log_probs.npy"])
def test_a_damaged_entry_is_removed_and_made_again(tmp_path: Path, name: str, how: str) -> None:
    of = key(storage="full" if name == "logits.npy" else "top-3")
    bank = Bank(tmp_path)
    expected = put(bank, of, answers()).logits(ROWS)
    path = tmp_path / of.digest / name
    if name == "meta.json" and how == "altered":
        path.write_text(path.read_text().replace('"images": 50', '"images": 49'))
    else:
        damage(path, how)
    for other in (bank, Bank(tmp_path)):  # one that has seen it whole, and a new one
        assert other.find(of) is None
    assert torch.equal(put(bank, of, answers()).logits(ROWS), expected)


def test_a_description_of_another_entry_is_not_taken(tmp_path: Path) -> None:
    put(Bank(tmp_path), key(), answers())
    (tmp_path / key().digest).rename(tmp_path / key(view="1").digest)
    assert Bank(tmp_path).find(key(view="1")) is None


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        yield np.arange(3), answers(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Bank(tmp_path).build(key(), failing, images=N, classes=C)
    assert Bank(tmp_path).find(key()) is None
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    put(Bank(tmp_path), key(), answers())


def build(folder: Path, wait_s: float) -> None:
    def blocks() -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        (folder / f"builder-{os.getpid()}").touch()
        yield np.arange(25), torch.zeros(25, 7)
        time.sleep(wait_s)
        yield np.arange(25, 50), torch.ones(25, 7)

    entry = Bank(folder / "bank").build(key(), blocks, images=50, classes=7)
    assert not entry.logits(torch.arange(50)).isnan().any()


def test_a_build_that_is_killed_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    process = forked(build, tmp_path, 60)
    while not list(tmp_path.glob("builder-*")):
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    bank = Bank(tmp_path / "bank")
    assert bank.find(key()) is None and bank.size() == 0
    entry = put(bank, key(), answers())
    assert not entry.logits(ROWS).isnan().any()
    assert sorted(path.name for path in (tmp_path / "bank").iterdir()) == [key().digest, f"{key().digest}.lock"]


def test_two_processes_make_an_entry_once(tmp_path: Path) -> None:
    both = [forked(build, tmp_path, 0.5) for _ in range(2)]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert len(list(tmp_path.glob("builder-*"))) == 1


@pytest.mark.parametrize(("classes", "storage"), [(7, "full"), (1000, "full"), (1000, "top-20"), (10, "exact")])
def test_the_size_is_known_before(tmp_path: Path, classes: int, storage: str) -> None:
    put(Bank(tmp_path), key(storage=storage), answers(c=classes), labels_n=labels())
    said, found = entry_bytes(N, classes, storage), Bank(tmp_path).size()
    assert said - 16384 <= found <= said


def test_entries_used_least_recently_make_room(tmp_path: Path) -> None:
    put(Bank(tmp_path), key("first"), answers())
    a_size = Bank(tmp_path).size()
    bank = Bank(tmp_path, limit=2 * a_size + entry_bytes(N, C) + 100)
    for at, view in enumerate(["second", "third"]):
        put(bank, key(view), answers())
        os.utime(tmp_path / key(view).digest / "meta.json", (at + 10, at + 10))
    os.utime(tmp_path / key("first").digest / "meta.json", (5, 5))
    held = bank.find(key("first"))  # used again: now the second is the one used least recently
    put(bank, key("fourth"), answers())
    there = [view for view in ("first", "second", "third", "fourth") if bank.find(key(view)) is not None]
    assert there == ["first", "third", "fourth"]
    put(bank, key("fifth"), answers(), keep=[key("third"), key("fourth")])
    assert bank.find(key("first")) is None and bank.find(key("third")) is not None
    assert held is not None and not held.logits(ROWS).isnan().any()  # whoever reads it goes on


def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    bank = Bank(tmp_path, limit=entry_bytes(N, C) + 100)
    with pytest.raises(BankError, match=r"limit is 0.02 MB: raise `bank_limit`") as refused:
        bank.require([entry_bytes(N, C)] * 2)
    assert "\n" not in str(refused.value)
    put(bank, key("first"), answers())
    with pytest.raises(BankError, match="raise `bank_limit`, or keep fewer classes"):
        put(bank, key("second"), answers(), keep=[key("first")])
    assert bank.find(key("first")) is not None
    with pytest.raises(BankError, match="are free there: choose another `bank`"):
        Bank(tmp_path).require([10**18])


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BankError, match=r"file.*cannot be written"):
            put(Bank(folder), key(), answers())
        with pytest.raises(BankError, match=r"file.*cannot be written"):
            Bank(folder).require([1])


def test_what_was_kept_is_compared_with_new_answers(tmp_path: Path) -> None:
    logits = answers(scale=3.0)
    for storage, least in (("full", 0.0), ("top-3", 0.0)):
        entry = put(Bank(tmp_path), key(storage=storage), logits)
        assert least <= entry.difference(ROWS, logits) < 0.02
        other = logits.clone()
        other[7, logits[7].argmax()] -= 1
        assert entry.difference(ROWS, other) > 0.1


def test_sizes_and_storages_are_read() -> None:
    assert (size_in_bytes("20GB"), size_in_bytes("1.5 kib")) == (20_000_000_000, 1536)
    for text in ("20", "GB", "-1GB", "1PB"):
        with pytest.raises(SettingsError, match="is no size"):
            size_in_bytes(text)
    assert top_k_of("top-5") == 5
    for text in ("top-0", "top-", "half", "top-5.5"):
        with pytest.raises(SettingsError, match="expected full, or top-K"):
            top_k_of(text)


def test_the_description_says_what_an_entry_is(tmp_path: Path) -> None:
    put(Bank(tmp_path), key(), answers(), labels_n=labels())
    meta = json.loads((tmp_path / key().digest / "meta.json").read_text())
    assert (meta["images"], meta["classes"], meta["labelled"], meta["key"]["model"]) == (N, C, True, "m")
