"""Batch-norm as training leaves it, and how much of it there is."""

from torch import nn


def lived(module: nn.Module) -> nn.Module:
    """The module with statistics of batch-norm that differ from channel to channel, in evaluation mode."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    return module.eval()


def norms(module: nn.Module) -> int:
    """How many layers of batch-norm it has, timm's with an activation among them."""
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())
