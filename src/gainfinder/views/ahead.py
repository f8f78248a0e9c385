"""On a GPU the next batch of views is made while the student learns from this one."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")


def made_ahead(
    items: Iterator[Made], device: torch.device, *, tensors: Callable[[Made], tuple[Tensor, ...]]
) -> Iterator[Made]:
    """The items, each made before the one before it is given away: on a CUDA device, on a stream of its own.

    Work on the device that makes an item runs beside what is done with the item before. On other devices, where nothing
    would run beside, items are made when they are asked for.

    Args:
        items: makes the items.
        device: device that they are made on.
        tensors: an item's tensors on the device; they can be used on the stream that is current when it is given away.

    Raises:
        Exception: what making an item raises, after the items before it.
    """
    if device.type != "cuda":
        yield from items
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))  # what items are made of may still be written
    made, error = _next(items, stream)
    while made is not None:
        item, ready = made
        current = torch.cuda.current_stream(device)
        current.wait_event(ready)
        for tensor in tensors(item):
            tensor.record_stream(current)  # its memory is not used again before that stream has done with it
        made, error = _next(items, stream)
        yield item
    if error is not None:
        raise error


def _next(
    items: Iterator[Made], stream: torch.cuda.Stream
) -> tuple[tuple[Made, torch.cuda.Event] | None, Exception | None]:
    """The next item with the event after which it is ready, or none, with the error that is the reason, if one is."""
    with torch.cuda.stream(stream):
        try:
            item = next(items)
        except StopIteration:
            return None, None
        except Exception as error:
            return None, error
        return (item, stream.record_event()), None
