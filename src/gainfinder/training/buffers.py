"""Batch-norm's statistics, saved before a pass that may fail halfway."""

from collections import defaultdict

import torch
from torch import Tensor, nn


class SavedBuffers:
    """A copy of a module's buffers, renewed before each pass.

    On a GPU a step may take as long as it takes to launch its kernels. So the layers are visited once, and the buffers
    of a dtype are copied together; of a list of several dtypes each would have a kernel of its own.

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
        self.module = module
        self._groups: list[_Group] = []

    def save(self) -> None:
        """Renew the copy."""
        if not self._groups:
            self._groups = _groups(self.module)
        for group in self._groups:
            torch._foreach_copy_(group.saved, group.now())

    def restore(self) -> None:
        """Give the module what was saved, in place; nothing where nothing was."""
        for group in self._groups:
            torch._foreach_copy_(group.now(), group.saved)


class _Group:
    """Buffers of a dtype on a device, by the layers that own them: a layer may replace one by another tensor."""

    def __init__(self) -> None:
        self.places: list[tuple[dict[str, Tensor | None], str]] = []
        self.saved: list[Tensor] = []

    def now(self) -> list[Tensor]:
        found = [owner[name] for owner, name in self.places]
        return [buffer for buffer in found if buffer is not None]


def _groups(module: nn.Module) -> list[_Group]:
    groups: defaultdict[tuple[torch.dtype, torch.device], _Group] = defaultdict(_Group)
    for layer in module.modules():
        for name, buffer in layer._buffers.items():
            if buffer is not None:
                group = groups[buffer.dtype, buffer.device]
                group.places.append((layer._buffers, name))
                group.saved.append(torch.empty_like(buffer))
    return list(groups.values())
