"""Re-estimated batch-norm statistics, against sums by hand."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from gainfinder.errors import DataError
from gainfinder.models.batch_norm import batch_norms, has_batch_norm, reestimate


class Net(nn.Module):
    """Batch-norm after dropout, batch-norm after batch-norm, and layers that look like batch-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.first = nn.BatchNorm2d(3, momentum=0.3)
        self.conv = nn.Conv2d(3, 4, 1)
        self.second = nn.BatchNorm2d(4, momentum=None)
        self.other = nn.InstanceNorm2d(4, track_running_stats=True)
        self.without = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.without(self.other(self.second(self.conv(self.first(self.dropout(x))))))


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Net()
    for layer in (made.first, made.second):  # old statistics and a learned scale, neither of them the default
        layer.get_buffer("running_mean").fill_(17.0)
        layer.get_buffer("running_var").fill_(5.0)
        layer.get_buffer("num_batches_tracked").fill_(99)
        nn.init.constant_(layer.weight, 1.5)
    return made


def batches(count: int = 3, size: int = 4) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [3 * torch.randn(size, 3, 2, 2, generator=draw) + place for place in range(count)]


def by_hand(inputs: list[Tensor]) -> tuple[list[float], list[float]]:
    """Mean over batches of a channel's mean and of its unbiased variance, in pure python."""
    means, variances = [], []
    for channel in range(inputs[0].shape[1]):
        found = []
        for batch in inputs:
            values = batch[:, channel].double().flatten().tolist()
            mean = sum(values) / len(values)
            found.append((mean, sum((value - mean) ** 2 for value in values) / (len(values) - 1)))
        means.append(sum(mean for mean, _ in found) / len(found))
        variances.append(sum(variance for _, variance in found) / len(found))
    return means, variances


@pytest.mark.parametrize(("count", "size"), [(1, 2), (3, 4), (5, 2)])
def test_statistics_are_the_means_over_the_batches(net: Net, count: int, size: int) -> None:
    given = batches(count, size)
    with torch.random.fork_rng():
        reestimate(net, given, net)
    mean, variance = by_hand(given)  # dropout before it was off, or this would not hold
    assert net.get_buffer("first.running_mean").tolist() == pytest.approx(mean, rel=1e-5, abs=1e-5)
    assert net.get_buffer("first.running_var").tolist() == pytest.approx(variance, rel=1e-5)
    # A later layer sees what the earlier one makes of the batch's own statistics, as in training.
    normal = []
    for batch in given:
        centre, spread = batch.mean((0, 2, 3), keepdim=True), batch.var((0, 2, 3), correction=0, keepdim=True)
        normal.append(net.conv(1.5 * (batch - centre) / (spread + net.first.eps).sqrt()).detach())
    mean, variance = by_hand(normal)
    assert net.get_buffer("second.running_mean").tolist() == pytest.approx(mean, rel=1e-4, abs=1e-5)
    assert net.get_buffer("second.running_var").tolist() == pytest.approx(variance, rel=1e-4)
    assert net.first.num_batches_tracked == count


def test_batches_may_come_from_a_generator_and_weights_stay(net: Net) -> None:
    weights = {name: parameter.clone() for name, parameter in net.named_parameters()}

    def once() -> Iterator[Tensor]:
        yield from batches()

    reestimate(net, once(), net)
    assert net.get_buffer("first.running_mean").tolist() == pytest.approx(by_hand(batches())[0], rel=1e-5, abs=1e-5)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, weights[name]) and parameter.grad is None


@pytest.mark.parametrize("mode", [True, False])
def test_momentum_comes_back_and_the_module_is_in_evaluation_mode(net: Net, mode: bool) -> None:
    reestimate(net.train(mode), batches(), net)
    assert net.first.momentum == 0.3 and net.second.momentum is None
    assert not any(layer.training for layer in net.modules())


def test_other_layers_keep_their_statistics_and_stay_in_evaluation_mode(net: Net) -> None:
    other = {name: value.clone() for name, value in net.other.state_dict().items()}
    modes = []
    net.without.register_forward_hook(lambda layer, *_: modes.append(layer.training))
    net.dropout.register_forward_hook(lambda layer, *_: modes.append(layer.training))
    reestimate(net.train(), batches(2), net)
    assert modes == [False] * 4
    assert net.without.running_mean is None and net.without.running_var is None
    assert all(torch.equal(value, other[name]) for name, value in net.other.state_dict().items())
    assert batch_norms(net) == [net.first, net.second, net.without]


def test_a_module_without_statistics_is_not_run() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.BatchNorm2d(4, track_running_stats=False)).train()

    def never(_: Tensor) -> None:
        raise AssertionError("there is nothing to re-estimate")

    reestimate(plain, batches(), never)
    assert has_batch_norm(plain) and not has_batch_norm(plain[:2])


def test_no_batch_is_an_error_and_the_momentum_comes_back(net: Net) -> None:
    with pytest.raises(DataError, match="no images to re-estimate batch-norm statistics on"):
        reestimate(net, [], net)
    assert net.first.momentum == 0.3


def test_a_failing_forward_leaves_momentum_and_mode_in_order(net: Net) -> None:
    def fail(_: Tensor) -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        reestimate(net.train(), batches(), fail)
    assert net.first.momentum == 0.3
    assert not any(layer.training for layer in net.modules())
