"""Batch-norm layers: finding them, and re-estimating their running statistics on images."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..errors import DataError


def batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The layers that normalise by the statistics of their batch while they train."""
    return [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


def has_batch_norm(module: nn.Module) -> bool:
    """Whether a layer normalises by the statistics of its batch."""
    return bool(batch_norms(module))


def has_scripted_batch_norm(module: nn.Module) -> bool:
    """Whether a layer of TorchScript normalises by batches; its statistics cannot be re-estimated from outside."""
    scripted = (layer for layer in module.modules() if isinstance(layer, torch.jit.ScriptModule))
    return any(
        str(getattr(layer, "original_name", "")).startswith(("BatchNorm", "SyncBatchNorm")) for layer in scripted
    )


def reestimate(module: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], object]) -> None:
    """Replace the running statistics of batch-norm layers by those of some batches, in place.

    The mean of the batches' means and (unbiased) variances, weighted equally: give batches of one size. Everything else
    is in evaluation mode meanwhile, and afterwards the whole module is. Use views like those that the model was trained
    on: CIFAR models that learned from padded crops lose two points on the statistics of whole images.

    Args:
        module: the module; without batch-norm layers it is left as it is.
        batches: normalised inputs, float (N, C, H, W), N ≥ 2.
        forward: function that runs the module on one batch.

    Raises:
        DataError: there was no batch.
    """
    # Not torch.optim.swa_utils.update_bn, which puts the whole module, dropout too, into training mode.
    layers = [layer for layer in batch_norms(module) if layer.track_running_stats]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    module.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average
        layer.train()
    count = 0
    try:
        with torch.no_grad():
            for batch in batches:
                forward(batch)
                count += 1
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        module.eval()
    if not count:
        raise DataError("there are no images to re-estimate batch-norm statistics on")
