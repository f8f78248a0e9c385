"""A module's tensors, found and copied in a moment.

A small model's step on a GPU takes as long as it takes to launch its kernels. So layers are visited once, not in each
step, and what is copied is copied together.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

_Place: TypeAlias = tuple[dict[str, Any], str]
"""A layer's own tensors by their names, and one of the names: a layer may replace a buffer by another tensor."""


def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy tensors into others of the same sizes, without gradient: on a GPU by a kernel or two for each dtype.

    >>> targets = [torch.zeros(1), torch.zeros(1, dtype=torch.int64)]
    >>> copy_all(targets, [torch.tensor([0.5]), torch.tensor([2])])
    >>> [target.item() for target in targets]
    [0.5, 2]
    """
    # of lists of several dtypes torch copies each tensor by a kernel of its own
    alike: defaultdict[Any, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    for target, source in zip(targets, sources, strict=True):
        into, of = alike[target.dtype, source.dtype, target.device]
        into.append(target)
        of.append(source)
    with torch.no_grad():
        for into, of in alike.values():
            torch._foreach_copy_(into, of)


class SavedBuffers:
    """A copy of a module's buffers, such as batch-norm's statistics, renewed before each pass that may fail halfway.

    Args:
        module: the module; its layers and the sizes of its buffers stay the same.

    Example:
        >>> layer = nn.BatchNorm1d(1)
        >>> saved = SavedBuffers(layer)
        >>> saved.save()
        >>> _ = layer(torch.tensor([[0.0], [2.0]]))
        >>> saved.restore()
        >>> layer.running_mean.item(), layer.num_batches_tracked.item()
        (0.0, 0)
    """

    def __init__(self, module: nn.Module) -> None:
        # a scripted layer's buffers have items, but cannot be iterated over
        self._places = [(layer._buffers, name) for layer in module.modules() for name, _ in layer._buffers.items()]
        self._saved: list[Tensor] = []

    def save(self) -> None:
        """Renew the copy."""
        buffers = self._there()
        if len(self._saved) != len(buffers):
            self._saved = [torch.empty_like(buffer) for buffer in buffers]
        copy_all(self._saved, buffers)

    def restore(self) -> None:
        """Give the module what was saved, in place; nothing where nothing was."""
        if self._saved:
            copy_all(self._there(), self._saved)

    def _there(self) -> list[Tensor]:
        """Those that are there: a layer may set one later, or leave it out."""
        return [buffer for buffer in _now(self._places) if buffer is not None]


class LiveState:
    """A module's state dict as it is now, with the tensors themselves.

    Args:
        module: the module; its layers stay the same.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> LiveState(layer)()["weight"] is layer.weight
        True
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        owners = [owner for layer in module.modules() for owner in (layer._parameters, layer._buffers)]
        places = {id(value): (owner, name) for owner in owners for name, value in owner.items() if value is not None}
        state = module.state_dict(keep_vars=True)
        # what layers make up for their state dicts has no place
        self._places = {name: places[id(value)] for name, value in state.items() if id(value) in places}
        self._is_whole = len(self._places) == len(state)

    def __call__(self) -> dict[str, Any]:
        """The state dict."""
        if not self._is_whole:
            return self.module.state_dict(keep_vars=True)
        return dict(zip(self._places, _now(self._places.values()), strict=True))


def _now(places: Iterable[_Place]) -> list[Any]:
    return [owner[name] for owner, name in places]
