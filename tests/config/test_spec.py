"""A whole transfer as a value: compared, looked up, and to and from JSON."""

import json
import subprocess
import sys
from typing import Any

import pytest

import gainfinder
from gainfinder.config import TransferConfig, TransferSpec
from gainfinder.errors import SettingsError


def spec(*, config: dict[str, Any] | None = None, **changes: Any) -> TransferSpec:
    fields = {"student": "resnet18", "teachers": ("vit", "convnext"), "data": "photos/", **changes}
    return TransferSpec(**fields, config=TransferConfig(**config or {}))


FULL = spec(
    val="digits#1/4", guard_data="digits#2/4", label_maps=("map.json",), config={"epochs": 3, "bank": "b", "lr": 1e-3}
)


@pytest.mark.parametrize("one", [spec(), FULL], ids=["short", "full"])
def test_it_comes_back_from_json(one: TransferSpec) -> None:
    again = TransferSpec.from_json(one.to_json())
    assert again == one and hash(again) == hash(one) and again.digest() == one.digest()
    assert again.config == one.config and again.differences(one) == []


def test_fields_that_are_left_out_are_the_defaults() -> None:
    assert (
        TransferSpec.from_json('{"student": "resnet18", "teachers": ["vit", "convnext"], "data": "photos/"}') == spec()
    )


def test_it_finds_what_was_done_before() -> None:
    done = {spec(): "first", FULL: "second"}
    assert done[spec()] == "first" and spec(config={"seed": 1}) not in done


def test_the_digest_does_not_hang_on_the_order_of_keys() -> None:
    values = json.loads(FULL.to_json())
    values["config"] = dict(reversed(values["config"].items()))
    assert TransferSpec.from_json(json.dumps(dict(reversed(values.items())))).digest() == FULL.digest()


def test_the_digest_is_the_same_in_other_processes_and_versions() -> None:
    """A study finds its runs again by it: a change of this number loses them."""
    assert spec(config={"epochs": 3, "method": "kl"}).digest() == KNOWN
    code = (
        "from gainfinder.config import *; import sys; assert 'torch' not in sys.modules;"
        f"print(TransferSpec.from_json({FULL.to_json()!r}).digest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == FULL.digest() and len(FULL.digest()) == 64


KNOWN = "5b5fe35443054c51f93261161525e33f9bee9e6fe7e59eec3edd2b147cf03af6"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"config": {"lr": 0.1}}, ["config.lr: None in the folder, 0.1 asked for"]),
        ({"config": {"order": "given"}}, ["config.order: ascending in the folder, given asked for"]),
        ({"config": {"bank": "b"}}, ["config.bank: None in the folder, full asked for"]),
        ({"student": "vit"}, ["student: resnet18 in the folder, vit asked for"]),
        (
            {"teachers": ("convnext", "vit")},
            ["teachers: ['vit', 'convnext'] in the folder, ['convnext', 'vit'] asked for"],
        ),
        (
            {"val": "v", "data": "d"},
            ["data: photos/ in the folder, d asked for", "val: None in the folder, v asked for"],
        ),
    ],
)
def test_what_changes_the_result_changes_the_digest(changes: dict[str, Any], told: list[str]) -> None:
    assert spec().differences(spec(**changes)) == told
    assert spec().digest() != spec(**changes).digest() and spec() != spec(**changes)


@pytest.mark.parametrize(
    "config", [{"workers": 2}, {"control": True}, {"track": ["wandb"]}, {"checkpoint_every": 5}], ids=str
)
def test_what_changes_no_result_does_not(config: dict[str, Any]) -> None:
    assert spec().differences(spec(config=config)) == [] and spec().digest() == spec(config=config).digest()
    assert spec() != spec(config=config)


def test_with_one_teacher_nothing_hangs_on_how_several_would_teach() -> None:
    one, other = (spec(teachers=("vit",), config={"strategy": strategy}) for strategy in ("soup", "parallel"))
    assert one.digest() == other.digest() and one.differences(other) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"student": "a", "teachers": [], "data": "b"}', "expected at least one teacher, got none"),
        ('{"student": 3, "teachers": ["b"], "data": "b"}', "specification of a transfer: student: .* valid string"),
        ('{"student": "a", "teachers": ["b"]}', "specification of a transfer: data: Field required"),
        ('{"student": "a", "teachers": ["b"], "data": "", "cofig": {}}', "unknown field 'cofig'; near matches: config"),
        ('{"student": "a", "teachers": ["b"], "data": "c", "config": {"epochs": 0}}', "epochs is 0: expected"),
        ('{"student": ', "specification of a transfer: Invalid JSON"),
        ("[]", "specification of a transfer: .*valid dictionary"),
    ],
)
def test_what_is_no_specification_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as refused:
        TransferSpec.from_json(text)
    assert "\n" not in str(refused.value)


def test_it_is_offered_at_the_top() -> None:
    assert gainfinder.TransferSpec is TransferSpec and gainfinder.TransferConfig is TransferConfig
