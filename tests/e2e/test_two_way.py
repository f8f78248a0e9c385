"""Two-way transfer: both models learn, from each other's frozen copies or live."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import gainfinder
from gainfinder.cli import app
from gainfinder.config import TransferConfig
from gainfinder.errors import Diverged, GainfinderError, RunFolderError, SettingsError
from gainfinder.report.two_way import write_two_way_page
from gainfinder.results import TwoWayFolder, list_results
from gainfinder.runs import Callback, PreparedTransfer, TransferResult, execute, prepare_transfer
from gainfinder.views.spec import epoch_order
from killing import KillAfter, KillAtStage, Killed
from odd_models import Hostile, few
from transfers import Run, assert_close, document, reproducible, same, weights

Both: TypeAlias = Literal["frozen", "live"]
SETTINGS: Run = {
    "preset": "gentle", "method": "kl", "lr": 0.05, "epochs": 2, "batch_size": 16, "workers": 0, "device": "cpu",
    "guard": False,
}  # fmt: skip
DATA, VAL = few(64, start=100), few()
GUARD = {"guard": True, "guard_data": few(60, start=300)}


class Left(Hostile):
    """Fitted to few digits, with batch-norm, and dropout on its way."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__(batch_norm=True, count=60, noise=noise)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.dropout(x))


class Right(Hostile):
    """Knows more digits, and has no state but its weights."""


def both(mode: Both | None, out: Path | None = None, **asked: Any) -> TransferResult:
    one, other = asked.pop("models", None) or (Left(), Right())
    return gainfinder.transfer(one, other, DATA, val=VAL, out=out, both=mode, **{**SETTINGS, **asked})


def partner(result: TransferResult) -> TransferResult:
    assert result.partner is not None
    return result.partner


def assert_same_results(one: Path, other: Path) -> None:
    for name in ("1", "2"):
        assert same(weights(one / name), weights(other / name)), name
        assert reproducible(one / name) == reproducible(other / name)
        rows = [(folder / name / "epochs.jsonl").read_text() for folder in (one, other)]
        assert rows[0] == rows[1]


def test_frozen_is_two_transfers_one_way(tmp_path: Path) -> None:
    asked: Run = {"method": "kl-dp", "epochs": 1}
    result = both("frozen", tmp_path / "both", **asked)
    both(None, tmp_path / "one", **asked)
    both(None, tmp_path / "other", models=(Right(), Left()), **asked)
    for name, alone in (("1", "one"), ("2", "other")):
        assert same(weights(tmp_path / "both" / name), weights(tmp_path / alone))
        assert reproducible(tmp_path / "both" / name) == reproducible(tmp_path / alone)
        configs = [document(folder, "config.json") for folder in (tmp_path / "both" / name, tmp_path / alone)]
        assert configs[0] == configs[1]
    assert same(weights(result), weights(tmp_path / "one"))
    assert same(weights(partner(result)), weights(tmp_path / "other"))
    assert document(tmp_path / "both", "two-way.json")["both"] == "frozen"
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("[!.]*") if path.is_file()}
    again = both("frozen", tmp_path / "both", **asked)
    assert same(weights(partner(again)), weights(tmp_path / "other"))
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("[!.]*") if path.is_file()}


def test_live_agrees_with_a_plain_loop() -> None:
    """Neither sees the other's step of the same number."""
    models = (Right(count=60, noise=0.3), Right(noise=0.5))
    plain: Run = {"schedule": "constant", "lr_warmup": 0.0, "weight_decay": 0.0, "ema_decay": 0.0, "augment": "none"}
    result = both("live", models=models, **plain, momentum=0.0, optimizer="sgd")
    images = DATA
    transform = gainfinder.load_model(Right()).preprocessing.evaluation_transform()
    x = torch.stack([transform(images.read(i)) for i in range(len(images))])
    own = [Right(count=60, noise=0.3), Right(noise=0.5)]
    for epoch in range(2):
        order = epoch_order(images.ids, seed=0, epoch=epoch)
        for batch in torch.as_tensor(order.copy()).split(16):
            logits = [model(x[batch]) for model in own]
            for mine, theirs in ((0, 1), (1, 0)):
                teacher = logits[theirs].detach()
                loss = nn.functional.kl_div(
                    logits[mine].log_softmax(1), teacher.softmax(1), reduction="batchmean", log_target=False
                )
                loss.backward()
            with torch.no_grad():
                for model in own:
                    for parameter in model.parameters():
                        assert parameter.grad is not None
                        parameter.sub_(parameter.grad, alpha=0.05)
                        parameter.grad = None
    assert_close(weights(result), own[0].state_dict())
    assert_close(weights(partner(result)), own[1].state_dict())
    assert not same(weights(result), weights(both(None, models=models, **plain, momentum=0.0, optimizer="sgd")))


RICH: Run = {
    "method": "kl-dp-u", "optimizer": "adamw", "lr": 1e-3, "ema_decay": 0.9, "mixup": 0.5, "augment": "crop-flip",
    "lr_warmup": 0.3, "schedule": "cosine",
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A live two-way transfer that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole") / "out"
    both("live", out, **RICH, **GUARD)
    return out


def test_live_does_not_depend_on_who_is_named_first(whole: Path, tmp_path: Path) -> None:
    both("live", tmp_path / "out", models=(Right(), Left()), **RICH, **GUARD)
    for name, other in (("1", "2"), ("2", "1")):
        assert same(weights(whole / name), weights(tmp_path / "out" / other))
        assert reproducible(whole / name) == reproducible(tmp_path / "out" / other)


def test_both_of_a_live_transfer_say_the_same_of_their_time(whole: Path, tmp_path: Path) -> None:
    """Also where a kill came between their results."""
    one, other = (document(whole / name) for name in ("1", "2"))
    assert one["seconds"] == other["seconds"] > 0 and one["finished"] == other["finished"]
    out = shutil.copytree(whole, tmp_path / "out")
    (out / "2" / "result.json").unlink()
    both("live", out, **RICH, **GUARD)
    again = document(out / "2")
    assert (again["seconds"], again["finished"]) == (one["seconds"], one["finished"])
    assert reproducible(out / "2") == reproducible(whole / "2")


@pytest.mark.parametrize(
    ("kill", "every"),
    [
        (KillAfter(100), 1),
        (KillAtStage("measuring after epoch 2"), None),
        (KillAtStage("guard"), None),
    ],
    ids=["in-an-epoch", "measuring", "guarding"],
)
def test_live_killed_on_the_way_ends_the_same(whole: Path, tmp_path: Path, kill: Callback, every: int | None) -> None:
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        both("live", out, **RICH, **GUARD, checkpoint_every=every, callbacks=[kill])
    assert not (out / "two-way.json").exists()
    both("live", out, **RICH, **GUARD, checkpoint_every=every)
    assert_same_results(whole, out)
    assert {path.name for path in out.glob("[!.]*")} == {"1", "2", "two-way.json"}


class KillAtResult(Callback):
    """Ends the run when the first of both results is complete."""

    def result(self, folder: Path) -> None:
        raise Killed


def test_live_killed_between_the_two_results_ends_the_same(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        both("live", out, **RICH, **GUARD, callbacks=[KillAtResult()])
    assert (out / "1" / "result.json").exists() and not (out / "2" / "result.json").exists()
    result = both("live", out, **RICH, **GUARD)
    assert_same_results(whole, out)
    assert same(weights(result), weights(whole / "1")) and same(weights(partner(result)), weights(whole / "2"))


def prepared(models: tuple[nn.Module, nn.Module], mode: str | None, **asked: Any) -> PreparedTransfer:
    config = TransferConfig(**{**SETTINGS, "both": mode, **asked})
    return prepare_transfer(models[0], [models[1]], DATA, val=VAL, settings=config)


def test_a_partner_that_only_teaches_is_a_frozen_teacher(tmp_path: Path) -> None:
    """Neither its dropout nor its batch-norm, nor being asked, shows in the student, nor the student's in it."""
    asked: Run = {"ema_decay": 0.0, "weight_decay": 0.0}
    pair = prepared((Left(noise=0.3), Left()), "live", **asked)
    assert pair.partner is not None
    watching = replace(pair.partner, settings=replace(pair.partner.settings, lr=0.0, student_mode="frozen"))
    result = execute(replace(pair, partner=watching), tmp_path / "both", callback=Callback())
    alone = execute(prepared((Left(noise=0.3), Left()), None, **asked), tmp_path / "alone", callback=Callback())
    assert same(weights(result), weights(alone)) and not same(weights(result), Left(noise=0.3).state_dict())
    assert result.epochs == alone.epochs
    assert same(weights(partner(result)), Left().state_dict())


def test_a_student_that_ends_first_teaches_on(tmp_path: Path) -> None:
    asked: Run = {
        "models": (Right(count=60, noise=0.5), Right()), "schedule": "plateau", "patience": 1, "epochs": 12, "lr": 0.02,
        "checkpoint_every": 2, **GUARD,
    }  # fmt: skip
    result = both("live", tmp_path / "whole", **asked)
    lengths = (len(result.epochs), len(partner(result).epochs))
    assert lengths[0] < lengths[1] <= 12
    killed = {**asked, "callbacks": [KillAfter(64 * lengths[0] + 40)]}  # after the first has ended
    with pytest.raises(Killed):
        both("live", tmp_path / "killed", **killed)
    both("live", tmp_path / "killed", **asked)
    assert_same_results(tmp_path / "whole", tmp_path / "killed")


class Growing(Right):
    """Its logits grow with each step."""

    factor: Tensor
    growth = 4.0

    def __init__(self) -> None:
        super().__init__(noise=0.3)
        self.register_buffer("factor", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.factor.mul_(self.growth)
        return super().forward(x) * self.factor


DIVERGING: Run = {"lr": 1e-3, "epochs": 4, "schedule": "constant"}


def test_where_one_diverges_both_keep_their_last_finished_epoch(tmp_path: Path) -> None:
    with pytest.raises(Diverged) as caught:
        both("live", tmp_path / "whole", models=(Growing(), Right()), **DIVERGING)
    found = [document(tmp_path / "whole" / name)["diverged"] for name in ("1", "2")]
    kept = found[0]["kept_epoch"]
    assert kept > 0 and found[1]["kept_epoch"] == kept and found[0]["step"] == found[1]["step"]
    assert found[1]["reason"].startswith("Growing, which it learned from, has diverged (the loss")
    assert str(caught.value).count("\n") == 0 and "Give a lower `lr`" in str(caught.value)
    assert same(weights(caught.value.result), weights(tmp_path / "whole" / "1"))
    short = both("live", models=(Growing(), Right()), **{**DIVERGING, "epochs": kept})
    assert same(weights(tmp_path / "whole" / "1"), weights(short))
    assert same(weights(tmp_path / "whole" / "2"), weights(partner(short)))
    # killed on the way, and with the models in each other's place
    models = (Right(), Growing())
    with pytest.raises(Killed):
        both("live", tmp_path / "k", models=models, **DIVERGING, callbacks=[KillAfter(64 * kept + 16)])
    with pytest.raises(Diverged, match="Growing, which it learned from, has diverged"):
        both("live", tmp_path / "k", models=models, **DIVERGING)
    for name, other in (("1", "2"), ("2", "1")):
        assert reproducible(tmp_path / "whole" / name) == reproducible(tmp_path / "k" / other)


class Overflowing(Growing):
    """Its logits overflow where it is measured or asked, not where it trains."""

    growth = 300.0

    def forward(self, x: Tensor) -> Tensor:
        grown = super().forward(x)
        return grown / self.factor if self.training else grown * self.factor


def test_one_whose_answers_overflow_ends_both_alike_wherever_it_stands(tmp_path: Path) -> None:
    for name, models in (("a", (Overflowing(), Right())), ("b", (Right(), Overflowing()))):
        with pytest.raises(Diverged, match=r"diverged \(|diverges: "):
            both("live", tmp_path / name, models=models, **{**DIVERGING, "epochs": 6})
    for name, other in (("1", "2"), ("2", "1")):
        assert reproducible(tmp_path / "a" / name) == reproducible(tmp_path / "b" / other)
        assert same(weights(tmp_path / "a" / name), weights(tmp_path / "b" / other))
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path / "a" / "2").values())


def test_frozen_goes_the_other_way_where_one_diverges(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=f"{tmp_path / 'a' / '1' / 'student'} holds") as caught:
        both("frozen", tmp_path / "a", models=(Growing(), Right()), **DIVERGING)
    assert document(tmp_path / "a" / "2")["diverged"] is None
    assert same(weights(partner(caught.value.result)), weights(tmp_path / "a" / "2"))
    assert document(tmp_path / "a", "two-way.json")["both"] == "frozen"


def test_in_lower_precision_and_in_parts(tmp_path: Path) -> None:
    asked: Run = {"precision": "bf16", "micro_batch": 8, "decide_on": "image", "method": "kl-dp", "epochs": 1}
    both("live", tmp_path / "whole", **asked)
    with pytest.raises(Killed):
        both("live", tmp_path / "killed", **asked, checkpoint_every=1, callbacks=[KillAfter(40)])
    both("live", tmp_path / "killed", **asked, checkpoint_every=1)
    assert_same_results(tmp_path / "whole", tmp_path / "killed")


def test_without_a_folder_nothing_is_kept() -> None:
    result = both("live", epochs=1)
    assert result.out is None and partner(result).out is None
    assert partner(result).metrics.student_reference is None
    assert same(weights(partner(result)), partner(result).student.module.state_dict())


class Reversed(Right):
    """The same with its classes in the opposite order."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__(noise=noise)
        self.pretrained_cfg["label_names"] = self.pretrained_cfg["label_names"][::-1]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flip(1)


def test_each_learns_in_its_own_class_order() -> None:
    asked: Run = {"method": "kl-dp", "epochs": 1}
    result = both("live", models=(Left(), Reversed(noise=0.3)), **asked)
    plain = both("live", models=(Left(), Right(noise=0.3)), **asked)
    assert_close(weights(result), weights(plain))
    assert_close(weights(partner(result)), weights(partner(plain)))


def table(folder: Path) -> str:
    gainfinder.predict(Right(), DATA, device="cpu", workers=0).write(folder / "right.parquet")
    return f"table:{folder / 'right.parquet'}"


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"both": "live", "teacher": [Right(), Left()]}, "`both` is 'live', with 2 teachers: two models learn from"),
        ({"both": "frozen", "teacher": [Right(), Left()], "strategy": "soup"}, "with 2 teachers"),
        ({"both": "frozen", "teacher": table}, "right.parquet has predictions alone, which cannot learn"),
        ({"both": "frozen", "label_map": "map.csv"}, "a label map leads one way"),
        ({"both": "live", "control": "labels"}, "together with `control`: a control is of one student alone"),
        ({"both": "live", "bank": "bank"}, "together with `bank`"),
        ({"both": "live", "track": "tensorboard"}, "together with `track`"),
        ({"both": "live", "compile": True}, "together with `compile`"),
        ({"both": "live", "method": "cd"}, "method 'cd' compares features"),
        ({"both": "live", "method": "xe"}, "method 'xe' learns from no teacher"),
        ({"both": "mutual"}, "both is 'mutual': expected one of frozen, live"),
    ],
)
def test_what_does_not_go_together_is_refused(asked: Run, match: str, tmp_path: Path) -> None:
    given = dict(asked)
    teacher: Any = given.pop("teacher", Right())
    if teacher is table:
        teacher = table(tmp_path)
    with pytest.raises(SettingsError, match=match) as caught:
        gainfinder.transfer(Left(), teacher, DATA, val=VAL, out=tmp_path / "out", **{**SETTINGS, **given})
    assert len(str(caught.value).splitlines()) == 1 and not (tmp_path / "out").exists()


def test_folders_of_other_runs_are_left_alone(whole: Path, tmp_path: Path) -> None:
    both(None, tmp_path / "one", epochs=1)
    begun = tmp_path / "begun"
    (begun / "1").mkdir(parents=True)
    shutil.copy(tmp_path / "one" / "config.json", begun / "1")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "thesis.tex").write_text("precious")
    before = {path: path.read_bytes() for path in [*tmp_path.rglob("[!.]*"), *whole.rglob("[!.]*")] if path.is_file()}
    with pytest.raises(RunFolderError, match="holds a transfer one way"):
        both("live", tmp_path / "one", epochs=1)
    with pytest.raises(RunFolderError, match=r"holds files but no two-way transfer \(thesis.tex\)"):
        both("live", tmp_path / "text", epochs=1)
    with pytest.raises(RunFolderError, match=r"1: holds a different run.*settings.both: live in the folder, None"):
        both("frozen", whole, **RICH, **GUARD)
    with pytest.raises(RunFolderError, match="holds a two-way transfer, and a transfer one way needs a folder of its"):
        both(None, whole, epochs=1)
    with pytest.raises(RunFolderError, match="holds results in 1, as a two-way transfer does"):
        both(None, begun, epochs=1)
    assert before == {path: path.read_bytes() for path in before}
    acts: list[Callable[[Path], object]] = [gainfinder.repeat, gainfinder.ask]
    for act in acts:
        with pytest.raises(GainfinderError, match=f"holds both results of .*: give one of them, {whole / '1'} or"):
            act(whole)


MODELS = """
from odd_models import Hostile

def left():
    return Hostile(count=60, noise=0.3)

def right():
    return Hostile()
"""


def test_the_command_and_its_page(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    left, right = (f"file:{tmp_path / 'models.py'}:{name}" for name in ("left", "right"))
    words = [
        "transfer", "--student", left, "--teacher", right, "--data", "digits#2/40", "--val", "digits#1/40",
        "--no-guard", "--batch-size", "32", "--preset", "gentle", "--epochs", "1", "--workers", "0",
        "--device", "cpu", "--both", "live", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    dry = CliRunner().invoke(app, [*words, "--dry-run", "--write", str(tmp_path / "run.toml")])
    assert dry.exit_code == 0 and not (tmp_path / "out").exists()
    assert f"{tmp_path / 'out' / '2'}: {right} learns from {left}, in step with the other" in dry.stdout
    done = CliRunner().invoke(app, ["transfer", "--config", str(tmp_path / "run.toml"), "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["both"] == "live" and [one["student"] for one in found["results"]] == [left, right]
    assert f"epoch 1 of {left}: " in done.stderr and f"epoch 1 of {right}: " in done.stderr
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0 and again.stdout.count("the metrics") == 2
    listing = list_results(tmp_path)
    assert {one.folder for one in listing.results} == {"out/1", "out/2"} and not listing.others
    refused = CliRunner().invoke(app, [*words, "--ask", "5"])
    assert refused.exit_code == 2 and "--ask is given together with --both" in refused.stderr
    refused = CliRunner().invoke(app, ["repeat", str(tmp_path / "out" / "2")])
    assert refused.exit_code == 2 and "was learned live" in refused.stderr
    refused = CliRunner().invoke(app, [*words, "--method", "cd"])
    assert refused.exit_code == 2 and "or give --both frozen" in refused.stderr
    made = TwoWayFolder(tmp_path / "out").read()
    assert made is not None
    page = write_two_way_page(tmp_path / "out", made).read_text()
    assert "right learned from each other" in page and 'href="2/report.html"' in page
    assert "No, it learned meanwhile" in page and page.count("<tr><td ") == 2
