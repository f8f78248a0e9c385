"""Whether a module returns logits or probabilities is found out, told and settled."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gainfinder.errors import BadReference, ModelError
from gainfinder.models import load_copy, load_model

X = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def net(classes: int = 4, *last: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, classes))
    return body.extend(last)


class WhereItEvaluates(nn.Module):
    """A softmax that is left out while it trains, as many repositories have it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.body(x)
        return z if self.training else z.softmax(dim=1)


def loaded(module: nn.Module, **about: Any) -> Any:
    return load_model(module, size=8, mean=0.5, std=0.5, **about)


def test_a_softmax_is_undone(caplog: pytest.LogCaptureFixture) -> None:
    expected = net()(X).log_softmax(dim=1)
    found = loaded(net(4, nn.Softmax(dim=1)))
    assert caplog.messages == [
        "Sequential: its outputs are probabilities, so their logarithms are taken as logits; load_model(module, "
        "output='logits') takes them as they are, load_model(module, output='probs') says so"
    ]
    torch.testing.assert_close(found.logits(X), expected, rtol=1e-4, atol=1e-5)
    assert (found.output, found.training_output) == ("probs", "probs")
    torch.testing.assert_close(load_copy(found).logits(X), expected, rtol=1e-4, atol=1e-5)


def test_a_sigmoid_is_undone(caplog: pytest.LogCaptureFixture) -> None:
    found = loaded(net(4, nn.Sigmoid()))
    assert "lie between 0 and 1, each for itself, as those of a sigmoid do, so their log-odds" in caplog.text
    torch.testing.assert_close(found.logits(X), net()(X), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("last", "kind"), [(nn.Softmax(dim=1), "probs"), (nn.Sigmoid(), "sigmoid")])
def test_a_setting_decides(last: nn.Module, kind: str, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    told = loaded(net(4, last), output=kind)
    as_they_are = loaded(net(4, last), output="logits")
    assert caplog.text == ""
    assert torch.equal(told.logits(X), loaded(net(4, last)).logits(X))
    assert torch.equal(as_they_are.logits(X), net(4, last)(X))
    assert told.fingerprint(precision="fp32") != as_they_are.fingerprint(precision="fp32")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.Softmax(1))\n"
    )
    caplog.clear()
    for setting in ("logits", "probs", "sigmoid"):
        assert load_model(f"file:{tmp_path}/net.py:net?size=8&mean=0.5&std=0.5&output={setting}").output == setting
    assert caplog.text == ""
    assert load_model(f"file:{tmp_path}/net.py:net?size=8").output == "probs"
    assert "?output=logits takes them as they are" in caplog.text


def test_a_kind_that_is_none_is_told() -> None:
    with pytest.raises(
        BadReference, match=r"^output=logit in 'Sequential' cannot be used; near matches: logits; expected"
    ):
        loaded(net(), output="logit")


def small_and_positive() -> Any:
    module: Any = net(3)
    module[3].weight.data.mul_(1e-4)
    module[3].bias.data.fill_(0.5)
    return module


def blank_head() -> Any:
    module: Any = net()
    nn.init.zeros_(module[3].weight)
    nn.init.zeros_(module[3].bias)
    return module


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.eye(3)[[0]].expand(len(x), 3)


@pytest.mark.parametrize(
    "module", [net(), net(2), small_and_positive(), blank_head(), Constant(), net(4, nn.LogSoftmax(dim=1))]
)
def test_logits_are_not_taken_for_anything_else(module: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    assert torch.equal(loaded(module).logits(X), module(X))
    assert caplog.text == ""


def test_small_logits_behind_a_norm_are_logits(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the contrast of the image, they lie between 0 and 1."""
    module: Any = nn.Sequential(nn.Flatten(), nn.LayerNorm(192), nn.Linear(192, 2))
    nn.init.normal_(module[2].weight, std=1e-3)
    nn.init.constant_(module[2].bias, 0.3)
    assert loaded(module).output == "logits"
    assert caplog.text == ""


def test_a_softmax_of_evaluation_alone() -> None:
    found = loaded(WhereItEvaluates())
    assert (found.output, found.training_output) == ("probs", "logits")
    torch.testing.assert_close(found.logits(X).exp(), net()(X).softmax(dim=1), rtol=1e-4, atol=1e-5)
    found.module.train()
    assert torch.equal(found.logits(X), net()(X))


class Fixed(nn.Module):
    """A sigmoid of weights that cannot be reached."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)).sigmoid()


def test_what_cannot_be_found_out_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert loaded(Fixed()).output == "logits"
    assert "they are taken as logits: give load_model(module, output='sigmoid') if they are those of a" in caplog.text
    caplog.clear()
    torch.testing.assert_close(loaded(Fixed(), output="sigmoid").logits(X), X.mean((2, 3)), rtol=1e-4, atol=1e-5)
    assert caplog.text == ""


def test_gradients_pass_through() -> None:
    found = loaded(net(4, nn.Softmax(dim=1)))
    nn.functional.cross_entropy(found.logits(X), torch.arange(5) % 4).backward()
    plain: Any = net()
    nn.functional.cross_entropy(plain(X), torch.arange(5) % 4).backward()
    torch.testing.assert_close(found.module[0].weight.grad, plain[0].weight.grad, rtol=1e-3, atol=1e-6)


def test_a_single_output_is_told(caplog: pytest.LogCaptureFixture) -> None:
    loaded(net(1))
    assert "it has one output, so it is sure of its one class on every image" in caplog.text


class ScalesItself(nn.Module):
    """Divides each image by its own contrast, which a blank one does not have."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.layer = net()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x / x.std(dim=(1, 2, 3), keepdim=True)) * self.factor
        return logits


def test_outputs_that_are_not_finite_are_told(caplog: pytest.LogCaptureFixture) -> None:
    assert loaded(ScalesItself()).num_classes == 4
    with pytest.raises(ModelError, match="its outputs are not finite, neither for a blank image nor for noise"):
        loaded(ScalesItself(float("nan")))
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
