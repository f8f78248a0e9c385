"""Items made ahead, on a stand-in for CUDA's streams, since what is promised is an order of calls."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from gainfinder.views.ahead import made_ahead

CUDA = torch.device("cuda")


class Tensor:
    """A tensor that writes down on which stream it was said to be used."""

    def __init__(self, number: int, log: list[str]) -> None:
        self.number, self.log = number, log

    def record_stream(self, stream: "Stream") -> None:
        self.log.append(f"{self.number} is used on {stream.name}")


class Stream:
    """A stream that writes down what waits for what."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def __enter__(self) -> None:
        self.log.append(f"on {self.name}")

    def __exit__(self, *_: object) -> None:
        self.log.append(f"off {self.name}")

    def wait_stream(self, other: "Stream") -> None:
        self.log.append(f"{self.name} waits for {other.name}")

    def record_event(self) -> str:
        return f"{self.name}'s event"

    def wait_event(self, event: str) -> None:
        self.log.append(f"{self.name} waits for {event}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    main, side = Stream("main", found), Stream("side", found)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    return found


def numbers(count: int, log: list[str], *, error: Exception | None = None) -> Iterator[Any]:
    for number in range(count):
        log.append(f"{number} is made")
        yield Tensor(number, log)
    if error is not None:
        raise error


def given(items: Iterator[Any], log: list[str]) -> list[int]:
    found = []
    for item in items:
        log.append(f"{item.number} is given")
        found.append(item.number)
    return found


def test_the_next_is_made_beside_the_one_before(log: list[str]) -> None:
    assert given(made_ahead(numbers(2, log), CUDA, tensors=lambda item: (item,)), log) == [0, 1]
    assert log == [
        "side waits for main",
        "on side", "0 is made", "off side",
        "main waits for side's event", "0 is used on main",
        "on side", "1 is made", "off side",
        "0 is given",
        "main waits for side's event", "1 is used on main",
        "on side", "off side",
        "1 is given",
    ]  # fmt: skip


def test_an_error_comes_after_what_was_made_before_it(log: list[str]) -> None:
    items = made_ahead(numbers(2, log, error=ValueError("no more")), CUDA, tensors=lambda item: (item,))
    assert [next(items).number, next(items).number] == [0, 1]
    with pytest.raises(ValueError, match="no more"):
        next(items)


def test_without_a_gpu_items_are_made_when_they_are_asked_for() -> None:
    log: list[str] = []
    assert given(made_ahead(numbers(2, log), torch.device("cpu"), tensors=lambda item: ()), log) == [0, 1]
    assert log == ["0 is made", "0 is given", "1 is made", "1 is given"]
