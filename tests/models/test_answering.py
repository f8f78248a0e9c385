"""A frozen model's copy for mixed precision answers as the model does."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from batch_norms import lived, norms
from gainfinder.models import Classifier, answering_copy, load_model
from gainfinder.models.answering import cast_weights

SIZE = 32


def given(module: nn.Module) -> Classifier:
    return load_model(module, size=SIZE, mean=0.5, std=0.5)


def answers(module: nn.Module, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        found: Tensor = module(x).float()
    return found


class Tied(nn.Module):
    """The classifier layer's weight is the one of an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.inner, self.head = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_layers_are_fused_and_their_weights_cast() -> None:
    module = lived(timm.create_model("resnet10t", num_classes=4))
    copy = answering_copy(given(module), torch.bfloat16)
    assert norms(copy) == 0 and all(weight.dtype == torch.bfloat16 for weight in copy.parameters())
    x = torch.randn(2, 3, SIZE, SIZE)
    expected = answers(module, x)
    assert torch.allclose(answers(copy, x, torch.bfloat16), expected, atol=0.05 * float(expected.abs().max()))


class Sized(nn.Module):
    """What it does depends on the size of its inputs, which no trace of it can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        found = self.norm(self.conv(x))
        out: Tensor = self.head(found.mean((2, 3)) if found.shape[-1] > 1 else found.flatten(1))
        return out


class Ascending(nn.Module):
    """A convolution whose weights its older weight norm makes anew in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.weight_norm(nn.Conv2d(3, 4, SIZE))
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x)).flatten(1)
        return out


@pytest.mark.parametrize("make", [Sized, Ascending])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_what_cannot_be_fused_answers_as_it_is(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = lived(make())
    copy = answering_copy(given(module), torch.float32)
    x = torch.randn(2, 3, SIZE, SIZE)
    assert norms(copy) == 1 and torch.equal(answers(copy, x), answers(module, x))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto"])
def test_without_batch_norm_the_answers_have_the_bits_of_autocast(name: str) -> None:
    torch.manual_seed(0)
    size = {"img_size": SIZE} if name.startswith("vit") else {}
    module = timm.create_model(name, num_classes=4, **size).eval()
    x = torch.randn(2, 3, SIZE, SIZE)
    copy = answering_copy(given(module), torch.bfloat16)
    assert {layer.weight.dtype for layer in copy.modules() if type(layer) is nn.Linear} == {torch.bfloat16}
    assert torch.equal(answers(copy, x, torch.bfloat16), answers(module, x, torch.bfloat16))


def test_the_model_stays_as_it_is() -> None:
    module = lived(timm.create_model("resnet10t", num_classes=4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    answering_copy(given(module), torch.bfloat16)
    after = module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) and value.dtype == after[name].dtype for name, value in before.items())


def test_a_weight_that_an_embedding_shares_is_not_cast() -> None:
    module = Tied()
    cast_weights(module, torch.bfloat16)
    assert module.head.weight is module.embedding.weight and module.head.weight.dtype == torch.float32
    assert module.inner.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_layers_that_make_their_weights_are_left_alone(wrap: Callable[[nn.Module], nn.Module]) -> None:
    module = nn.Sequential(wrap(nn.Linear(4, 4)), nn.Linear(4, 2))
    cast_weights(module, torch.bfloat16)
    assert [next(layer.parameters()).dtype for layer in module] == [torch.float32, torch.bfloat16]
