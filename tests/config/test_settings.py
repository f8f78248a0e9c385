"""Which settings a run gets, and what is refused."""

from typing import Any

import pytest

from gainfinder.config.settings import Resolved, TransferSettings, resolve_settings, settings_from
from gainfinder.errors import SettingsError


def resolve(*, labelled: bool = True, images: int = 6400, size: tuple[int, int] = (224, 224), **asked: Any) -> Resolved:
    return resolve_settings(settings_from(asked), labelled=labelled, images=images, view_size=size, mirrorable=True)


def test_the_method_follows_the_labels() -> None:
    assert resolve().method.name == "kl-dp"
    assert resolve(labelled=False).method.name == "kl-dp-u"


@pytest.mark.parametrize("method", ["kl-dp", "xe-kl"])
def test_methods_that_need_labels_are_refused_without(method: str) -> None:
    with pytest.raises(SettingsError, match=f"method '{method}' needs labels and the transfer images carry none"):
        resolve(labelled=False, method=method)
    with pytest.raises(SettingsError, match="`labels='none'` forbids reading them; a label-free method is kl-dp-u"):
        resolve(labelled=False, method=method, labels="none")


def test_the_default_rate_travels_as_far_as_the_papers_but_no_faster_than_1e_3() -> None:
    assert resolve(images=640, epochs=1).lr == 1e-3
    long = resolve(images=128_117, epochs=20, batch_size=256)
    assert long.lr == pytest.approx(1e-4, rel=0.01)
    assert resolve(images=128_117, epochs=20, batch_size=64).lr == pytest.approx(1e-4 / 4, rel=0.01)


def test_a_short_run_travels_as_far_at_any_batch_size_up_to_256() -> None:
    """Rate × steps, since the steps fall as the batch grows; a batch of 512 is not measured and goes no faster."""
    rates = {size: resolve(images=2048, epochs=2, batch_size=size).lr for size in (16, 64, 256, 512)}
    travelled = {size: rate * 2 * 2048 / size for size, rate in rates.items()}
    assert travelled[16] == pytest.approx(travelled[64]) == pytest.approx(travelled[256])
    assert rates[512] == rates[256]
    assert resolve(images=2048, epochs=2, batch_size=64, method="xe-kl-mcl").lr == pytest.approx(10 * rates[64])


def test_the_paper_preset_scales_its_rate_and_gives_way_to_what_is_asked() -> None:
    paper = resolve(preset="paper")
    assert (paper.epochs, paper.temperature, paper.augment, paper.weight_decay) == (20, 1.0, "paper", 1e-3)
    assert paper.lr == pytest.approx(1e-4)
    assert resolve(preset="paper", batch_size=512).lr == pytest.approx(2e-4)
    asked = resolve(preset="paper", batch_size=512, lr=3e-3, epochs=2, augment="rrc")
    assert (asked.lr, asked.epochs, asked.augment) == (3e-3, 2, "rrc")
    assert resolve(preset="paper", size=(32, 32)).augment == "paper"


def test_zero_is_a_value_not_a_missing_one() -> None:
    assert resolve(lr=0.0, weight_decay=0.0, momentum=0.0).lr == 0.0


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
        ({"preset": "papre"}, "preset is 'papre': expected paper"),
        ({"epoch": 3}, "unknown setting 'epoch'; near matches: epochs"),
        ({"lr": float("nan")}, "lr is nan"),
    ],
)
def test_bad_settings_are_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message.replace(".", r"\.")):
        settings_from(asked)


@pytest.mark.parametrize("name", ["limit", "epochs", "batch_size", "views", "checkpoint_every"])
def test_one_is_the_smallest_count(name: str) -> None:
    assert getattr(settings_from({name: 1}), name) == 1
    for few in (0, -1):
        with pytest.raises(SettingsError, match=f"is {few}: expected 1 or more"):
            settings_from({name: few})


def test_an_unknown_method_names_near_matches() -> None:
    with pytest.raises(SettingsError, match="method 'kl-pd' is unknown; near matches: kl-dp"):
        resolve(method="kl-pd")


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        TransferSettings().seed = 3  # type: ignore[misc]
