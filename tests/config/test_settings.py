"""Which settings a run gets, and what is refused."""

import json
import math
import runpy
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import ValidationError

import gainfinder
from gainfinder.config import (
    DEFAULTS,
    SETTINGS,
    DeclaredSetting,
    ResolvedConfig,
    TransferConfig,
    TransferOptions,
    resolve_settings,
)
from gainfinder.config import options as config_options
from gainfinder.config.declaration import type_text
from gainfinder.errors import SettingsError

ROOT = Path(__file__).parents[2]


def resolve(
    *, labelled: bool = True, images: int = 6400, size: tuple[int, int] = (224, 224), **asked: Any
) -> ResolvedConfig:
    return resolve_settings(
        TransferConfig.model_validate(asked), labelled=labelled, images=images, view_size=size, mirrorable=True
    )


def test_the_method_follows_the_labels() -> None:
    assert resolve().method.name == "kl-dp"
    assert resolve(labelled=False).method.name == "kl-prod-cal-u"


@pytest.mark.parametrize("method", ["kl-dp", "xe-kl"])
def test_methods_that_need_labels_are_refused_without(method: str) -> None:
    with pytest.raises(SettingsError, match=f"method '{method}' needs labels and the transfer images carry none"):
        resolve(labelled=False, method=method)
    with pytest.raises(
        SettingsError, match="`labels='none'` forbids reading them; a label-free method is kl-prod-cal-u"
    ):
        resolve(labelled=False, method=method, labels="none")


def test_rates_are_tried_where_none_is_given() -> None:
    assert [(one.optimizer, one.lr) for one in resolve().recipes] == [("adamw", lr) for lr in (1e-4, 3e-4, 1e-3, 3e-3)]
    by_sgd = resolve(optimizer="sgd").recipes
    assert [(one.optimizer, one.lr) for one in by_sgd] == [("sgd", lr) for lr in (1e-2, 3e-2, 1e-1)]
    for given in ({"lr": 1e-3}, {"guard": False}, {"trials": False}, {"preset": "gentle"}, {"preset": "paper"}):
        assert resolve(**given).recipes == (), given
    assert (
        resolve(preset="gentle", trials=True).recipes == resolve(preset="gentle", trials=True, epochs=5).recipes != ()
    )


def test_what_is_not_tried_is_adamw_at_3e_4() -> None:
    plain = resolve(guard=False)
    assert (plain.optimizer, plain.lr, plain.weight_decay, plain.batch_size) == ("adamw", 3e-4, 0.05, 128)
    assert resolve(guard=False, batch_size=512).lr == pytest.approx(6e-4)
    assert resolve(trials=False).lr == 3e-4 and resolve(lr=1e-2).optimizer == "adamw"
    by_sgd = resolve(guard=False, optimizer="sgd")
    assert (by_sgd.lr, by_sgd.weight_decay) == (pytest.approx(1 / (100 * 50), rel=2e-3), 1e-3)


def test_a_run_is_as_long_as_its_guard_loss_falls_within_a_number_of_images() -> None:
    assert resolve().schedule == "plateau" and resolve(guard=False).schedule == "cosine"
    lengths = {images: resolve(images=images).epochs for images in (100, 10_000, 20_000, 80_000, 1_281_167)}
    assert lengths == {100: 100, 10_000: 100, 20_000: 50, 80_000: 12, 1_281_167: 5}
    assert resolve(epochs=3).epochs == 3
    assert [resolve(epochs=epochs).patience for epochs in (3, 100)] == [5, 15] and resolve(patience=2).patience == 2


def test_views_are_mixed_where_all_models_can_answer_for_them() -> None:
    assert resolve().mixup == resolve(labelled=False).mixup == 0.7
    by_table = resolve_settings(
        TransferConfig(), labelled=True, images=640, view_size=(224, 224), mirrorable=True, mixable=False
    )
    assert resolve(method="xe-kl").mixup == resolve(method="kl-dp", distill_weight=0.5).mixup == 0.7
    assert by_table.mixup == resolve(method="crd").mixup == resolve(mixup=0.0).mixup == 0
    assert [resolve(epochs=epochs).mixup for epochs in (39, 40)] == [0, 0.7] and resolve(
        epochs=1, mixup=0.5
    ).mixup == 0.5


def test_the_average_of_a_method_is_its_own() -> None:
    assert resolve().ema_decay == 0.998 and resolve(method="xe-kl-mcl").ema_decay == 0
    with pytest.raises(SettingsError, match=r"ema-decay is 0\.9: method 'xe-kl-mcl' has an average of its own"):
        resolve(method="xe-kl-mcl", ema_decay=0.9)


GENTLE = {
    "optimizer": "sgd", "epochs": 5, "batch_size": 64, "schedule": "linear", "lr": 1e-3, "lr_warmup": 0.0,
    "ema_decay": 0.0, "mixup": 0.0, "weight_decay": 1e-3, "recipes": (),
}  # fmt: skip


@pytest.mark.parametrize("asked", [{"preset": "gentle"}, {"method": "cd"}, {"method": "crd"}])
def test_the_gentle_preset_is_that_of_methods_on_features(asked: dict[str, Any]) -> None:
    found = vars(resolve(images=6400, **asked))
    assert {name: found[name] for name in GENTLE} == GENTLE
    assert resolve(**asked, optimizer="adamw", epochs=9).epochs == 9


def test_the_gentle_rate_travels_as_far_as_the_papers_but_no_faster_than_1e_3() -> None:
    assert resolve(preset="gentle", images=640, epochs=1).lr == 1e-3
    long = resolve(preset="gentle", images=128_117, epochs=20, batch_size=256)
    assert long.lr == pytest.approx(1e-4, rel=0.01)
    assert resolve(preset="gentle", images=128_117, epochs=20).lr == pytest.approx(1e-4 / 4, rel=0.01)


def test_a_short_gentle_run_travels_as_far_at_any_batch_size_up_to_256() -> None:
    """Rate × steps, since the steps fall as the batch grows; a batch of 512 is not measured and goes no faster."""
    asked: dict[str, Any] = {"preset": "gentle", "images": 2048, "epochs": 2}
    rates = {size: resolve(**asked, batch_size=size).lr for size in (16, 64, 256, 512)}
    travelled = {size: rate * 2 * 2048 / size for size, rate in rates.items()}
    assert travelled[16] == pytest.approx(travelled[64]) == pytest.approx(travelled[256])
    assert rates[512] == rates[256]
    assert resolve(**asked, batch_size=64, method="xe-kl-mcl").lr == pytest.approx(10 * rates[64])


def test_the_paper_preset_is_without_a_guard_unless_one_is_asked_for() -> None:
    assert not TransferConfig(preset="paper").guarded
    assert TransferConfig().guarded and TransferConfig(preset="gentle").guarded
    assert TransferConfig(preset="paper", guard=True).guarded and TransferConfig(preset="paper", at_most=0.01).guarded
    assert not TransferConfig(guard=False).guarded


def test_the_weight_of_the_labels_is_the_rest_but_beside_features() -> None:
    assert resolve(method="xe-kl", distill_weight=0.8).label_weight == pytest.approx(0.2)
    found = resolve(method="crd", distill_weight=0.3)
    assert (found.distill_weight, found.label_weight) == (0.3, 1.0)
    assert resolve(method="cd", distill_weight=0.5).label_weight == 1.0


def test_the_paper_preset_scales_its_rate_and_gives_way_to_what_is_asked() -> None:
    paper = resolve(preset="paper")
    assert (paper.epochs, paper.temperature, paper.augment, paper.weight_decay) == (20, 1.0, "paper", 1e-3)
    assert paper.lr == pytest.approx(1e-4)
    assert resolve(preset="paper", batch_size=512).lr == pytest.approx(2e-4)
    asked = resolve(preset="paper", batch_size=512, lr=3e-3, epochs=2, augment="rrc")
    assert (asked.lr, asked.epochs, asked.augment) == (3e-3, 2, "rrc")
    assert resolve(preset="paper", size=(32, 32)).augment == "paper"


def test_zero_is_a_value_not_a_missing_one() -> None:
    found = resolve(lr=0.0, weight_decay=0.0, momentum=0.0, optimizer="sgd", mixup=0.0, ema_decay=0.0, lr_warmup=0.0)
    zeros = ("lr", "weight_decay", "momentum", "mixup", "ema_decay", "lr_warmup")
    assert {vars(found)[name] for name in zeros} == {0.0}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"epochs": 0}, "epochs is 0: expected 1 or more"),
        ({"batch_size": 0}, "batch-size is 0: expected 1 or more"),
        ({"lr": -1.0}, "lr is -1.0: expected 0 or more"),
        ({"temperature": 0.0}, "temperature is 0.0: expected more than 0"),
        ({"augment": "mixup"}, "augment is 'mixup': expected one of paper, rrc, crop-flip, none"),
        ({"subset": 1.5}, "subset is 1.5: expected a share above 0 and up to 1"),
        ({"limit": 5, "subset": 0.5}, "limit and subset are both given"),
        ({"labels": "some"}, "labels is 'some': expected use or none"),
        ({"preset": "papre"}, "preset is 'papre': expected one of paper, gentle"),
        ({"epoch": 3}, "unknown setting 'epoch'; near matches: epochs"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": float("inf")}, "lr is inf: expected a finite number, 0 or more"),
        ({"epochs": "five"}, "epochs is 'five': expected a whole number, 1 or more"),
        ({"epochs": 2.0}, "epochs is 2.0: expected a whole number, 1 or more"),
        ({"epochs": True}, "epochs is True: expected a whole number, 1 or more"),
        ({"batch_size": "64"}, "batch-size is '64': expected a whole number, 1 or more, or auto"),
        ({"micro_batch": 0}, "micro-batch is 0: expected 1 or more, or auto"),
        ({"guard": 3.5}, "guard is 3.5: expected True or False"),
        ({"schedule": "poly"}, "schedule is 'poly': expected one of linear, cosine, constant, plateau"),
        ({"precision": "fp8"}, "precision is 'fp8': expected auto, fp32, bf16 or fp16"),
        ({"momentum": 1.0}, "momentum is 1.0: expected from 0 to below 1"),
        ({"distill_weight": 2}, "distill-weight is 2: expected from 0 to 1"),
        ({"max_broken": -0.1}, "max-broken is -0.1: expected a share from 0 to 1"),
        ({"workers": -1}, "workers is -1: expected 0 or more"),
        ({"device": "gpu"}, "device 'gpu' is unknown; near matches: cpu; expected one of auto, cpu, cuda, mps"),
        ({"control": "lables"}, "control is 'lables'; near matches: labels; expected copy or labels"),
        ({"track": ["tensorbord"]}, "track is 'tensorbord'; near matches: tensorboard; expected some of aim"),
        ({"bank_check": 2}, "bank-storage, bank-limit and bank-check are settings of the bank"),
        ({"bank": "b", "bank_storage": "half"}, "bank storage 'half': expected full, or top-K"),
        ({"bank": "b", "bank_limit": "20"}, "'20' is no size: expected a number with a unit"),
        ({"epoch": 3, "batch_size": 0}, "unknown setting 'epoch'; near matches: epochs; known: guard, control"),
    ],
)
def test_bad_settings_are_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message.replace(".", r"\.")):
        TransferConfig.model_validate(asked)
    if all(math.isfinite(value) for value in asked.values() if isinstance(value, float)):  # JSON has no others
        with pytest.raises(SettingsError, match=message.replace(".", r"\.")):
            TransferConfig.model_validate_json(json.dumps(asked))


@pytest.mark.parametrize("name", ["limit", "epochs", "batch_size", "views", "checkpoint_every"])
def test_one_is_the_smallest_count(name: str) -> None:
    assert getattr(TransferConfig.model_validate({name: 1}), name) == 1
    for few in (0, -1):
        with pytest.raises(SettingsError, match=f"is {few}: expected 1 or more"):
            TransferConfig.model_validate({name: few})


def test_an_unknown_method_names_near_matches() -> None:
    with pytest.raises(SettingsError, match="method 'kl-pd' is unknown; near matches: kl-dp"):
        resolve(method="kl-pd")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TransferConfig().seed = 3  # type: ignore[misc]


ASKED: list[TransferOptions] = [
    {},
    {"epochs": 3, "lr": 0, "guard": False, "batch_size": "auto", "seed": -1},
    {
        "bank": Path("views"),
        "bank_limit": "1.5GB",
        "bank_storage": "top-20",
        "track": ["wandb", "tensorboard"],
        "control": ["copy"],
    },
]


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_settings_come_back_from_json(asked: TransferOptions) -> None:
    config = TransferConfig(**asked)
    again = TransferConfig.model_validate_json(config.model_dump_json())
    assert again == config and hash(again) == hash(config)
    assert config.replace() == config == config.merged({})


def test_spellings_of_one_value_are_equal() -> None:
    assert TransferConfig(track="wandb") == TransferConfig(track=["wandb", "wandb"])
    assert TransferConfig(control=True) == TransferConfig(control="copy") != TransferConfig(control=False)
    assert TransferConfig(control=["labels", "copy"]).controls == ("copy", "labels")
    assert TransferConfig(bank="views") == TransferConfig(bank=Path("views"))
    assert TransferConfig.model_validate({"seed": np.int64(3), "lr": np.float32(0.5)}) == TransferConfig(seed=3, lr=0.5)
    assert type(TransferConfig.model_validate({"epochs": np.int64(3)}).epochs) is int  # as JSON can hold
    assert TransferConfig(epochs=5) != TransferConfig()


def test_settings_with_changes() -> None:
    config = TransferConfig(epochs=3, method="kl")
    assert config.replace(epochs=4) == TransferConfig(epochs=4, method="kl") and config.epochs == 3
    with pytest.raises(SettingsError, match="epochs is 0"):
        config.replace(epochs=0)


def test_a_setting_is_given_once() -> None:
    config = TransferConfig(epochs=3)
    assert config.merged({"lr": 0.1}) == TransferConfig(epochs=3, lr=0.1)
    for twice in (3, 4):
        with pytest.raises(SettingsError, match="epochs is given twice, in the configuration and beside it"):
            config.merged({"epochs": twice})
    with pytest.raises(SettingsError, match="unknown setting 'methd'; near matches: method"):
        config.merged({"methd": "kl"})
    with pytest.raises(SettingsError, match="epochs is given twice"):
        gainfinder.transfer("resnet18", "resnet18", "digits", config=config, epochs=4)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_setting_is_declared_in_full(setting: DeclaredSetting) -> None:
    assert setting.help.endswith(".") and "{" not in setting.help
    assert setting.name in (TransferConfig.__doc__ or "")
    by_rule = setting.about.fallback is not None or bool(setting.about.rule)
    assert (setting.default is None) == by_rule, "where None stands for a rule, the rule is told"
    # a fallback is a value that the setting can have, and what a run gets
    if setting.about.fallback is not None:
        assert TransferConfig.model_validate({setting.name: setting.about.fallback}) != TransferConfig()
        assert vars(resolve())[setting.name] == setting.about.fallback == DEFAULTS[setting.name]


def test_all_fields_are_declared_settings() -> None:
    assert [setting.name for setting in SETTINGS] == list(TransferConfig.model_fields)


def test_what_is_resolved_are_settings_that_change_results() -> None:
    changing = {setting.name for setting in SETTINGS if setting.about.changes_results}
    assert {field.name for field in fields(ResolvedConfig)} - changing == {"label_weight", "recipes"}
    assert {setting.name for setting in SETTINGS} - changing == {
        "control", "bank_limit", "bank_check", "workers", "checkpoint_every", "track"
    }  # fmt: skip


def test_what_changes_results_says_that_there_is_a_bank_but_not_where() -> None:
    here, there = (TransferConfig(bank=name, workers=len(name)).result_settings() for name in ("here", "elsewhere"))
    assert here == there and here["bank"] == "full" and TransferConfig().result_settings()["bank"] is None
    assert "workers" not in here


def test_the_types_of_the_keyword_arguments_are_current() -> None:
    written = Path(config_options.__file__).read_text(encoding="utf-8")
    made = runpy.run_path(str(ROOT / "docs" / "options.py"))["options"]()
    assert written == made, "run `python docs/options.py`"


def test_the_documentation_has_a_row_for_each_setting() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "generated.py"))["filled"]("## Settings\n<!-- settings -->\n")
    head, _, *rows = made.splitlines()[1:]
    assert head == "| setting | what it says | type | default | range | changes results |"
    assert [row.split("`")[1] for row in rows] == [setting.name for setting in SETTINGS]
    (epochs,) = (row for row in rows if row.startswith("| `epochs`"))
    assert epochs.endswith(r"| `int \| None` | 1,000,000 / images, from 5 to 100 | 1 or more | yes |")
    (batch_size,) = (row for row in rows if row.startswith("| `batch_size`"))
    assert r"| `128` | 1 or more, or auto | yes |" in batch_size


def test_a_type_reads_as_in_source() -> None:
    hints = (int | None, Literal["a", "b"] | None, str | Sequence[str], int | Literal["auto"] | None, bool)
    assert [type_text(hint) for hint in hints] == [
        "int | None", 'Literal["a", "b"] | None', "str | Sequence[str]", 'int | Literal["auto"] | None', "bool"
    ]  # fmt: skip
