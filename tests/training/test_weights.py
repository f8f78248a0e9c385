"""Points between weights, averages and slow weights, against naive loops."""

import copy
import io
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from gainfinder.training.weights import SlowWeights, average, between
from transfers import State, same


def state(seed: int) -> State:
    """A state dict with what real ones hold: floats of several widths, an integer count and a mask."""
    draw = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(4, 3, generator=draw),
        "half": torch.randn(3, generator=draw).half(),
        "count": torch.tensor(1000 * seed + 7),
        "mask": torch.tensor([seed % 2 == 0, True]),
    }


def batch_norm_net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_both_ends_of_the_line_are_exact() -> None:
    # 1e8 + (1 - 1e8) is not 1 in float32: a formula of both ends would miss the second.
    start, end = {**state(1), "far": torch.tensor([1e8])}, {**state(2), "far": torch.tensor([1.0])}
    assert same(between(start, end, 0), start)
    assert same(between(start, end, 1), end)
    assert same(between(start, end, 0.0), start) and same(between(start, end, 1.0), end)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_between_is_linear_and_copies_integers_from_the_end(share: float) -> None:
    start, end = state(1), state(2)
    found = between(start, end, share)
    expected = (1 - share) * start["weight"].double() + share * end["weight"].double()
    torch.testing.assert_close(found["weight"].double(), expected, rtol=0, atol=1e-6)
    expected = (1 - share) * start["half"].double() + share * end["half"].double()
    torch.testing.assert_close(found["half"].double(), expected, rtol=1e-3, atol=1e-3)
    assert found["half"].dtype == torch.float16
    assert found["count"] == 2007 and found["count"].dtype == torch.int64
    assert found["mask"].tolist() == [True, True] and found["mask"].dtype == torch.bool


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_between_shares_no_memory_with_its_ends(share: float) -> None:
    ends = state(1), state(2)
    before = copy.deepcopy(ends)
    for tensor in between(*ends, share).values():
        tensor.fill_(0)
    assert same(ends[0], before[0]) and same(ends[1], before[1])


def test_between_of_a_module_leaves_live_weights_alone_and_needs_no_gradient() -> None:
    start, end = batch_norm_net(0), batch_norm_net(1)
    kept = copy.deepcopy(start.state_dict())
    # state dicts that hold the parameters themselves, as `state_dict(keep_vars=True)` gives them
    found = between(start.state_dict(keep_vars=True), end.state_dict(keep_vars=True), 0.0)
    assert not any(tensor.requires_grad for tensor in found.values())
    start.load_state_dict(between(start.state_dict(), end.state_dict(), 0.5))
    expected = (kept["0.weight"] + end.state_dict()["0.weight"]) / 2
    torch.testing.assert_close(start.state_dict()["0.weight"], expected)


def test_infinite_values_that_are_a_mask_stay() -> None:
    mask = torch.tensor([0.0, -torch.inf])
    start, end = ({**state(seed), "infinite": mask} for seed in (1, 2))
    assert torch.equal(between(start, end, 0.3)["infinite"], mask)
    assert torch.equal(average([start, end])["infinite"], mask)
    slow = SlowWeights(start, momentum=0.5)
    slow.after_step(lambda: end)
    assert torch.equal(slow.weights["infinite"], mask)
    torch.testing.assert_close(slow.weights["weight"], between(start, end, 0.5)["weight"])


def test_states_of_different_architectures_are_refused() -> None:
    other = {**state(2), "extra": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"one architecture; \['extra'\] are in one only"):
        between(state(1), other, 0.5)
    with pytest.raises(ValueError, match="extra"):
        between(state(1), other, 1.0)
    with pytest.raises(ValueError, match="extra"):
        average([state(1), state(2), other])
    with pytest.raises(ValueError, match="at least one state"):
        average([])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_average_by_hand(count: int) -> None:
    states = [state(seed) for seed in range(1, count + 1)]
    found = average(states)
    expected = [
        [sum(float(one["weight"][i, j]) for one in states) / count for j in range(3)] for i in range(4)
    ]  # fmt: skip
    torch.testing.assert_close(found["weight"], torch.tensor(expected), rtol=0, atol=1e-6)
    assert found["half"].dtype == torch.float16
    # (1007 + 2007) / 2 is an integer, too, and yet no count of batches
    assert found["count"] == 1007 and found["count"].dtype == torch.int64
    assert found["mask"].tolist() == [False, True]


def test_average_does_not_depend_on_the_order_and_aliases_nothing() -> None:
    # In float32, (1e8 + 1) - 1e8 is 0.
    parts = [{"w": torch.tensor([value])} for value in (1e8, 1.0, -1e8)]
    assert average(parts)["w"].item() == average(parts[::-1])["w"].item() == pytest.approx(1 / 3)
    one = state(1)
    kept = copy.deepcopy(one)
    for tensor in average([one]).values():
        tensor.fill_(0)
    assert same(one, kept)


def trajectory(steps: int) -> list[State]:
    """A module's states after each of some steps."""
    net = batch_norm_net(0)
    draw = torch.Generator().manual_seed(1)
    found = []
    for _ in range(steps):
        net(torch.randn(6, 3, generator=draw))  # moves the batch-norm buffers
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=draw))
        found.append(copy.deepcopy(net.state_dict()))
    return found


def naive(initial: State, states: list[State], momentum: float, every: int) -> dict[str, Any]:
    """Eq. 3 in pure python, in float64."""
    slow = {name: value.double().flatten().tolist() for name, value in initial.items()}
    for step, fast in enumerate(states, start=1):
        if step % every == 0:
            for name, value in fast.items():
                new = value.double().flatten().tolist()
                whole = not value.is_floating_point()
                slow[name] = [
                    n if whole else momentum * s + (1 - momentum) * n for s, n in zip(slow[name], new, strict=True)
                ]
    return slow


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99, 1.0])
@pytest.mark.parametrize(("every", "steps"), [(1, 3), (2, 1), (2, 2), (2, 7), (3, 6), (10, 9)])
def test_slow_weights_equal_a_naive_loop(momentum: float, every: int, steps: int) -> None:
    initial, states = batch_norm_net(0).state_dict(), trajectory(steps)
    slow = SlowWeights(initial, momentum=momentum, every=every)
    for fast in states:
        slow.after_step(partial(dict, fast))
    expected = naive(initial, states, momentum, every)
    assert slow.weights.keys() == expected.keys()
    for name, values in expected.items():
        assert slow.weights[name].flatten().tolist() == pytest.approx(values, abs=1e-5), name
    # the count of batches is a number of batches: that at the last interpolation, or the first student's
    count = slow.weights["1.num_batches_tracked"]
    assert count.dtype == torch.int64 and count == steps // every * every


def test_the_first_interpolation_mixes_the_initial_student_with_the_n_th_step() -> None:
    """The published code starts its slow copy a step late."""
    slow = SlowWeights({"w": torch.tensor([8.0])}, momentum=0.75, every=2)
    slow.after_step(lambda: {"w": torch.tensor([100.0])})
    assert slow.weights["w"].item() == 8.0
    slow.after_step(lambda: {"w": torch.tensor([4.0])})
    assert slow.weights["w"].item() == 7.0  # 3/4 · 8 + 1/4 · 4


def test_slow_and_fast_weights_share_no_memory() -> None:
    net = batch_norm_net(0)
    slow = SlowWeights(net.state_dict(), momentum=0.5, every=1)
    kept = copy.deepcopy(slow.weights)
    for tensor in net.state_dict().values():
        tensor.fill_(3)
    assert same(slow.weights, kept), "the slow weights moved with the fast ones"
    slow.after_step(net.state_dict)
    kept = copy.deepcopy(slow.weights)
    for tensor in net.state_dict().values():
        tensor.fill_(9)
    assert same(slow.weights, kept), "a buffer of the last interpolation moved with the fast ones"


def test_measuring_the_slow_weights_leaves_the_fast_ones_alone() -> None:
    """Evaluation by `load_state_dict` into another module, which then runs in training mode, even."""
    net, shown = batch_norm_net(0), batch_norm_net(5)
    slow = SlowWeights(net.state_dict(), momentum=0.5, every=1)
    with torch.no_grad():
        net.get_parameter("0.weight").add_(1.0)
    slow.after_step(net.state_dict)
    fast, kept = copy.deepcopy(net.state_dict()), copy.deepcopy(slow.weights)
    shown.load_state_dict(slow.weights)
    shown.train()(torch.randn(8, 3))
    with torch.no_grad():
        for parameter in shown.parameters():
            parameter.zero_()
    assert same(net.state_dict(), fast)
    assert same(slow.weights, kept)


@pytest.mark.parametrize("stopped", [1, 2, 3, 4])
def test_slow_weights_go_on_as_if_never_stopped(stopped: int) -> None:
    initial, states = batch_norm_net(0).state_dict(), trajectory(7)
    whole = SlowWeights(initial, momentum=0.9, every=3)
    first = SlowWeights(initial, momentum=0.9, every=3)
    for fast in states:
        whole.after_step(partial(dict, fast))
    for fast in states[:stopped]:
        first.after_step(partial(dict, fast))
    file = io.BytesIO()
    torch.save(first.state(), file)
    file.seek(0)
    second = SlowWeights(states[stopped], momentum=0.9, every=3)  # whatever it started from must not matter
    second.load_state(torch.load(file, weights_only=True))
    for fast in states[stopped:]:
        second.after_step(partial(dict, fast))
    assert second.steps == whole.steps == 7
    assert same(second.weights, whole.weights)


def test_a_long_average_moves_weights_that_change_little() -> None:
    """In float32 a step of 1e-8 of a weight's size is lost, however many there are."""
    slow = SlowWeights({"w": torch.tensor([1.0])}, momentum=0.9999)
    for _ in range(5_000):
        slow.after_step(lambda: {"w": torch.tensor([1.0001])})
    assert slow.weights["w"].dtype == torch.float32
    assert slow.weights["w"].item() == pytest.approx(1 + 1e-4 * (1 - 0.9999**5_000), abs=1e-7)


def test_with_warm_up_the_first_students_are_soon_forgotten() -> None:
    slow = SlowWeights({"w": torch.tensor([0.0])}, momentum=0.999, warmup=True)
    expected = 0.0
    for step in range(1, 40):
        slow.after_step(lambda: {"w": torch.tensor([1.0])})
        kept = min(0.999, (1 + step) / (10 + step))
        expected = kept * expected + 1 - kept
    assert slow.weights["w"].item() == pytest.approx(expected) and expected > 0.9
