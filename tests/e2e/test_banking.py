"""Transfers that replay kept answers learn what transfers that ask the models learn, and models are asked once."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor
from typer.testing import CliRunner

import gainfinder
from digit_files import digit_folder
from gainfinder.cli import app
from gainfinder.data.images import Images
from gainfinder.errors import BankError, SettingsError
from gainfinder.views import CachedCrops, ViewSource
from killing import KillAtEpoch, KillAtStage, Killed
from transfers import SHORT, Run, counted, same, weights

SETTINGS: Run = {**SHORT, "epochs": 2, "limit": 96, "lr": 5e-2, "augment": "crop-flip"}
HALF = 2e-2
"""Learned from logits in half precision, weights that moved by some tenths are off by less than this."""


def transfer(zoo: dict[str, str], val: Images | str, **about: Any) -> Any:
    models = {"student": zoo["convnext"], "teacher": zoo["resnet"]}
    return gainfinder.transfer(**{**models, "data": "digits#2/4", "val": val, **SETTINGS, **about})


def change(result: Any, start: dict[str, Tensor]) -> Tensor:
    return torch.cat([(tensor - start[name]).flatten() for name, tensor in weights(result).items()])


def moved(result: Any, reference: str) -> float:
    start = timm.create_model(reference, pretrained=True).state_dict()
    return max(float((tensor - start[name]).abs().max()) for name, tensor in weights(result).items())


@pytest.mark.parametrize("storage", ["full", "top-4"])
@pytest.mark.parametrize("method", ["kl", "kl-dp", "kl-dp-u", "kl-dp-soft-u", "kl-prod-u", "dist-dp-u", "xe-kl"])
def test_replayed_and_asked_answers_teach_the_same(
    zoo: dict[str, str], val: Images, tmp_path: Path, method: str, storage: str
) -> None:
    asked = transfer(zoo, val, method=method)
    replayed = transfer(zoo, val, method=method, bank=tmp_path, bank_storage=storage, bank_check=40)
    assert replayed.metrics.teacher_share == pytest.approx(asked.metrics.teacher_share, abs=1e-6)
    if method in ("kl-dp", "kl-dp-u"):  # each sample has the very same teacher, ties included
        assert replayed.metrics.teacher_share == asked.metrics.teacher_share
    tolerance = HALF if storage == "full" else 10 * HALF
    for one, other in zip(replayed.epochs, asked.epochs, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=tolerance, abs=tolerance)
    assert moved(asked, zoo["convnext"]) > 0.03
    if storage == "full":
        start = timm.create_model(zoo["convnext"], pretrained=True).state_dict()
        ours, theirs = (change(run, start) for run in (replayed, asked))
        assert (ours - theirs).norm() < HALF * theirs.norm()
        assert replayed.metrics.bank.largest_difference < 0.02


def test_models_are_asked_once(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    teacher = timm.create_model(zoo["resnet"], pretrained=True)
    with counted(teacher) as seen:
        first = transfer(zoo, val, teacher=teacher, method="kl-dp-u", bank=tmp_path)
        assert sum(seen) >= 2 * 96 + len(val)
        assert (first.metrics.bank.entries, first.metrics.bank.made) == (4, 4)
        seen.clear()
        again = transfer(zoo, val, teacher=teacher, method="kl-dp-u", bank=tmp_path)
        other = transfer(zoo, val, teacher=teacher, method="kl-dp", bank=tmp_path, seed=1, view_seed=0)
        assert max(seen) <= 4  # blank images and noise, when it is loaded: a batch of views has more
    assert again.metrics.bank.made == other.metrics.bank.made == 0
    assert same(weights(again), weights(first))
    assert again.metrics.accuracy_before == first.metrics.accuracy_before
    assert again.metrics.positive_flips == first.metrics.positive_flips
    assert again.metrics.negative_flips == first.metrics.negative_flips


def test_an_entry_serves_a_model_as_teacher_and_as_student(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    transfer(zoo, val, method="kl-dp-u", bank=tmp_path)
    back = transfer(zoo, val, student=zoo["resnet"], teacher=zoo["convnext"], method="kl-dp-u", bank=tmp_path)
    assert (back.metrics.bank.entries, back.metrics.bank.made) == (4, 0)


@pytest.mark.parametrize(("views", "entries"), [(None, 3), (2, 2), (1, 1)])
def test_as_many_views_are_kept_as_are_shown(
    zoo: dict[str, str], val: Images, tmp_path: Path, views: int | None, entries: int
) -> None:
    done = transfer(zoo, val, method="kl", bank=tmp_path, views=views, epochs=3)
    assert done.metrics.bank.entries == entries
    asked = transfer(zoo, val, method="kl", views=views, epochs=3)
    losses = [[row.train_loss for row in run.epochs] for run in (done, asked)]
    assert losses[0] == pytest.approx(losses[1], rel=HALF)


def test_without_augmentation_one_view_is_enough(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    done = transfer(zoo, val, method="kl", bank=tmp_path, augment="none", epochs=3)
    assert done.metrics.bank.entries == 1


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"limit": 95}, {"augment": "rrc"}, {"labels": "none"}, {"bank_storage": "top-3"}]
)
def test_other_views_images_or_storage_are_other_entries(
    zoo: dict[str, str], val: Images, tmp_path: Path, change: Run
) -> None:
    transfer(zoo, val, method="kl", bank=tmp_path, epochs=1)
    assert transfer(zoo, val, method="kl", bank=tmp_path, epochs=1, **change).metrics.bank.made == 1


def test_changed_weights_are_another_model(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    teacher = timm.create_model(zoo["resnet"], pretrained=True)
    transfer(zoo, val, teacher=teacher, method="kl", bank=tmp_path, epochs=1)
    with torch.no_grad():
        teacher.fc.bias[0] += 1e-3
    assert transfer(zoo, val, teacher=teacher, method="kl", bank=tmp_path, epochs=1).metrics.bank.made == 1


def test_a_damaged_entry_is_made_again(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    first = transfer(zoo, val, method="kl-dp-u", bank=tmp_path / "bank")
    for path in (tmp_path / "bank").glob("*/logits.npy"):
        content = bytearray(path.read_bytes())
        content[-5] ^= 0x40
        path.write_bytes(content)
    again = transfer(zoo, val, method="kl-dp-u", bank=tmp_path / "bank")
    assert again.metrics.bank.made == 4
    assert same(weights(again), weights(first))


def test_killed_while_the_bank_is_filled_it_goes_on(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    whole = transfer(zoo, val, method="kl-dp-u", bank=tmp_path / "one")
    about = {"method": "kl-dp-u", "bank": tmp_path / "two", "out": tmp_path / "run"}
    with pytest.raises(Killed):
        transfer(zoo, val, callbacks=[KillAtStage("bank, view 2")], **about)
    done = transfer(zoo, val, **about)
    assert done.metrics.bank.made == 2 and done.metrics.bank.entries == 4  # those of the first view were whole
    assert same(weights(done), weights(whole))


def test_a_run_goes_on_where_the_bank_was_removed(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    whole = transfer(zoo, val, method="kl-dp-u", bank=tmp_path / "bank")
    about = {"method": "kl-dp-u", "bank": tmp_path / "bank", "out": tmp_path / "run"}
    with pytest.raises(Killed):
        transfer(zoo, val, callbacks=[KillAtEpoch(2)], **about)
    shutil.rmtree(tmp_path / "bank")
    done = transfer(zoo, val, **about)
    assert same(weights(done), weights(whole))


def test_in_a_sequence_only_given_models_are_kept(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    teachers = [zoo["resnet"], zoo["vit"]]
    about = {"teacher": teachers, "method": "kl-dp-u", "order": "given", "epochs": 1}
    done = transfer(zoo, val, bank=tmp_path / "bank", out=tmp_path / "run", **about)
    steps = [json.loads((tmp_path / f"run/steps/{step}/result.json").read_text())["bank"] for step in (1, 2)]
    assert [(bank["entries"], bank["made"]) for bank in steps] == [(2, 2), (1, 1)]
    assert (done.metrics.bank.entries, done.metrics.bank.made) == (3, 3)
    asked = transfer(zoo, val, **about)
    assert asked.metrics.bank is None
    assert done.epochs[-1].train_loss == pytest.approx(asked.epochs[-1].train_loss, rel=HALF)


def test_a_bank_that_is_too_small_is_refused_before_any_work(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    with pytest.raises(BankError, match="raise `bank_limit`"):
        transfer(zoo, val, method="kl", bank=tmp_path / "bank", bank_limit="20KB")
    with pytest.raises(BankError):
        transfer(zoo, val, method="kl", bank=tmp_path / "bank", bank_limit="20KB", out=tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "cd"}, "keeps predictions alone"),
        ({"bank_storage": "some"}, "expected full, or top-K"),
        ({"bank_limit": "20"}, "is no size"),
        ({"views": 0}, "views is 0: expected 1 or more"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    zoo: dict[str, str], val: Images, tmp_path: Path, change: Run, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        transfer(zoo, val, bank=tmp_path, **change)
    assert not list(tmp_path.iterdir())


def test_settings_of_the_bank_need_one(zoo: dict[str, str], val: Images) -> None:
    with pytest.raises(SettingsError, match="give its folder"):
        transfer(zoo, val, bank_check=5)


def test_the_command_line_says_the_size_and_writes_nothing_in_a_dry_run(zoo: dict[str, str], tmp_path: Path) -> None:
    asked = [
        "transfer", "--student", zoo["convnext"], "--teacher", zoo["resnet"], "--data", "digits#2/4", "--val",
        "digits#1/4", "--no-guard", "--limit", "96", "--device", "cpu", "--epochs", "2", "--method", "kl",
        "--preset", "gentle", "--bank", str(tmp_path / "bank"), "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    result = CliRunner().invoke(app, [*asked, "--dry-run"])
    assert result.exit_code == 0, result.stderr
    assert f"bank: at most 0.02 MB in {tmp_path / 'bank'}" in result.stdout.replace("\n", "")
    assert not list(tmp_path.iterdir())
    result = CliRunner().invoke(app, [*asked, "--bank-check", "5"])
    assert result.exit_code == 0 and "1 view(s), 1 of them computed now" in result.stdout
    assert "5 of each computed again" in result.stdout and "off in log-probability" in result.stdout
    result = CliRunner().invoke(app, [*asked[:-1], str(tmp_path / "other"), "--bank-limit", "1KB"])
    assert result.exit_code == 2 and "raise --bank-limit" in result.stderr and "Traceback" not in result.stderr


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Class folders of digits as image files, one of them broken."""
    return digit_folder(tmp_path / "pictures", 160, broken=1)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images were decoded for crops, each time."""
    counts: list[int] = []
    decode = ViewSource._decode

    def counted(self: ViewSource, *about: Any) -> CachedCrops:
        counts.append(len(self.images))
        return decode(self, *about)

    monkeypatch.setattr(ViewSource, "_decode", counted)
    return counts


def from_files(zoo: dict[str, str], pictures: Path, **about: Any) -> Any:
    asked = {"data": f"{pictures}#1/2", "method": "kl-dp-u", "limit": None, "max_broken": 0.1}
    return transfer(zoo, f"{pictures}#2/2", **{**asked, **about})


def outcome(folder: Path) -> dict[str, bytes]:
    """Weights, and all predictions, as they lie in a result folder."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.suffix in {".safetensors", ".parquet"}}


def test_decoded_images_are_kept_and_change_nothing(
    zoo: dict[str, str], pictures: Path, tmp_path: Path, decoded: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    images = len(gainfinder.load_images(str(pictures)))
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "crops").write_text("")  # no folder can be made
    without = from_files(zoo, pictures, bank=tmp_path / "without", out=tmp_path / "none")
    assert sum("decoded images are not kept there, the run goes on" in line for line in caplog.messages) == 1
    for name, bank, expected in (("first", "bank", images), ("second", "bank", 0), ("third", "small", images)):
        decoded.clear()
        limit = "90KB" if bank == "small" else None  # for logits, not for these and all crops
        done = from_files(zoo, pictures, bank=tmp_path / bank, bank_limit=limit, out=tmp_path / name)
        assert sum(decoded) == expected
        assert outcome(tmp_path / name) == outcome(tmp_path / "none")
        assert done.metrics.broken_images == without.metrics.broken_images != ()
        assert done.epochs == without.epochs
    decoded.clear()
    from_files(zoo, pictures, bank=tmp_path / "bank", augment="none", method="kl", labels="none", seed=3)
    assert decoded == []


def test_a_changed_image_is_decoded_again(
    zoo: dict[str, str], pictures: Path, tmp_path: Path, decoded: list[int]
) -> None:
    from_files(zoo, pictures, bank=tmp_path / "bank", epochs=1)
    decoded.clear()
    data = gainfinder.load_images(f"{pictures}#1/2")
    data.read(0).save(data.where(7))
    from_files(zoo, pictures, bank=tmp_path / "bank", epochs=1)
    assert decoded == [len(data)]


@pytest.mark.parametrize("removed", [False, True])
def test_killed_with_decoded_images_on_disk_it_ends_with_the_same_bytes(
    zoo: dict[str, str], pictures: Path, tmp_path: Path, removed: bool
) -> None:
    from_files(zoo, pictures, bank=tmp_path / "one", out=tmp_path / "whole")
    about = {"bank": tmp_path / "two", "out": tmp_path / "run"}
    with pytest.raises(Killed):
        from_files(zoo, pictures, callbacks=[KillAtStage("reading")], **about)
    with pytest.raises(Killed):
        from_files(zoo, pictures, callbacks=[KillAtEpoch(2)], **about)
    if removed:
        shutil.rmtree(tmp_path / "two" / "crops")
    from_files(zoo, pictures, **about)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_what_is_said_of_the_disk_counts_decoded_images(zoo: dict[str, str], pictures: Path, tmp_path: Path) -> None:
    asked = [
        "transfer", "--student", zoo["convnext"], "--teacher", zoo["resnet"], "--data", f"{pictures}#1/2", "--val",
        f"{pictures}#2/2", "--no-guard", "--device", "cpu", "--epochs", "1", "--method", "kl", "--max-broken", "0.1",
        "--preset", "gentle", "--bank", str(tmp_path / "bank"), "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    planned = CliRunner().invoke(app, [*asked, "--dry-run"])
    assert planned.exit_code == 0, planned.stderr
    said = float(planned.stdout.split("bank: at most ")[1].split(" MB")[0])
    assert not (tmp_path / "bank").exists()
    ran = CliRunner().invoke(app, asked)
    assert ran.exit_code == 0, ran.stderr
    found = sum(path.stat().st_size for path in (tmp_path / "bank").rglob("*") if path.is_file()) / 1e6
    crops = sum(path.stat().st_size for path in (tmp_path / "bank" / "crops").rglob("*.npy")) / 1e6
    assert crops > 0.1 and found - 0.01 <= said <= found + 0.08
    assert ", and decoded images 0." in ran.stderr.replace("\n", "")
