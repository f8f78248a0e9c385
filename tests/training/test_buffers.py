"""Buffers come back as they were saved, of whatever dtype, and where a layer has replaced one."""

import torch
from torch import Tensor, nn

from gainfinder.training.buffers import SavedBuffers


class Counting(nn.Module):
    """A layer that replaces its buffer in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("absent", None)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = self.mean + x.mean(0)
        out: Tensor = self.norm(x)
        return out


def test_buffers_come_back_as_they_were_saved_last() -> None:
    module, x = Counting().train(), torch.randn(4, 2)
    saved = SavedBuffers(module)
    saved.restore()  # nothing was saved
    for _ in range(2):
        saved.save()
        expected = {name: value.clone() for name, value in module.state_dict().items()}
        module(x)
        assert not torch.equal(module.mean, expected["mean"]) and module.norm.num_batches_tracked is not None
        saved.restore()
        assert all(torch.equal(value, expected[name]) for name, value in module.state_dict().items())
        module(x)
    assert module.norm.num_batches_tracked == 2
