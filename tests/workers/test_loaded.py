"""A worker loads a model and images once, and its transfers are those of a command by itself."""

from typing import Any

import pytest

from gainfinder.config import TransferConfig, TransferSpec
from gainfinder.errors import DataError
from gainfinder.runs import describe, prepare_spec
from gainfinder.workers.loaded import LoadedSources
from transfers import SHORT


def spec(zoo: dict[str, str], **about: Any) -> TransferSpec:
    config = TransferConfig(**{**SHORT, "method": "kl-dp-u", "labels": "none"})
    return TransferSpec(student=zoo["vit"], teachers=(zoo["resnet"],), data="digits#1/4", config=config, **about)


def test_sources_are_loaded_once_as_long_as_there_is_room(zoo: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = LoadedSources()
    assert loaded.model(zoo["vit"]) is loaded.model(zoo["vit"])
    assert loaded.images("digits", labels=True) is loaded.images("digits", labels=True)
    small = LoadedSources(limit=1)
    first = small.model(zoo["vit"])
    small.model(zoo["resnet"])
    assert small.model(zoo["vit"]) is not first


@pytest.mark.parametrize("about", [{}, {"val": "digits#2/4"}, {"val": "digits#2/4", "referees": ()}])
def test_a_transfer_is_prepared_as_by_its_command(zoo: dict[str, str], about: dict[str, Any]) -> None:
    loaded, wanted = LoadedSources(), spec(zoo, **about)
    loaded.prepare(wanted)
    assert describe(loaded.prepare(wanted)) == describe(prepare_spec(wanted))


def test_a_student_that_was_prepared_is_a_copy(zoo: dict[str, str]) -> None:
    loaded = LoadedSources()
    one, two = loaded.prepare(spec(zoo)), loaded.prepare(spec(zoo))
    assert one.student.module is not two.student.module


def test_images_that_are_nowhere_are_refused(zoo: dict[str, str]) -> None:
    with pytest.raises(DataError):
        LoadedSources().images("nowhere", labels=True)
