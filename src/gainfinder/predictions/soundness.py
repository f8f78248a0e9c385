"""Which logits can be used: none that is NaN or +inf, and a finite one for each image.

A logit of −inf masks its class, of which the model then says that it is impossible. Where all are masked, or one is NaN
or +inf, there are no probabilities, and no measure or loss may be made of them.

Shapes: N samples, C classes.
"""

from torch import Tensor

from ..errors import NotFinite
from .value import IMAGE

_CAUSES = "are its weights sound, and is its preprocessing right?"


def unusable(logits_NC: Tensor) -> Tensor:
    """Which samples have no probabilities: a logit that is NaN or +inf, or none that is finite.

    Args:
        logits_NC: floating point (N, C), C ≥ 1.

    Returns:
        bool (N,).

    >>> import torch
    >>> inf, nan = torch.inf, torch.nan
    >>> unusable(torch.tensor([[1.0, -inf], [-inf, -inf], [1.0, inf], [1.0, nan]])).tolist()
    [False, True, True, True]
    """
    # The largest of logits is NaN where any is.
    return ~logits_NC.detach().amax(dim=1).isfinite()


def check_logits(logits_NC: Tensor, *, model: str, noun: str = IMAGE) -> None:
    """Refuse logits of which a sample has no probabilities.

    Args:
        logits_NC: floating point (N, C), C ≥ 1.
        model: reference of the model, for the message.
        noun: what a sample is, likewise.

    Raises:
        NotFinite: some samples are `unusable`.
    """
    refuse_unusable(int(unusable(logits_NC).sum()), of=len(logits_NC), model=model, where=f"{noun}s")


def refuse_unusable(count: int, *, of: int, model: str, where: str = "images", remedy: str = "") -> None:
    """Raise where there are samples without probabilities.

    Args:
        count: number of unusable samples.
        of: number of all samples.
        model: reference of the model, for the message.
        where: what the samples are, and where they were met.
        remedy: what may help besides sound weights.

    Raises:
        NotFinite: the count is above 0.
    """
    expected = "finite ones, or -inf for classes that it masks"
    _refuse("logits", expected, count, of=of, model=model, where=where, remedy=remedy)


def refuse_features(count: int, *, of: int, model: str, where: str = "images", remedy: str = "") -> None:
    """Raise where there are samples of which a feature is not finite, which a softmax over logits may hide.

    Args:
        count: number of these samples.
        of: number of all samples.
        model: reference of the model, for the message.
        where: what the samples are, and where they were met.
        remedy: what may help besides sound weights.

    Raises:
        NotFinite: the count is above 0.
    """
    _refuse("features", "finite ones", count, of=of, model=model, where=where, remedy=remedy)


def _refuse(what: str, expected: str, count: int, *, of: int, model: str, where: str, remedy: str) -> None:
    if count:
        raise NotFinite(
            f"{model}: its {what} are NaN or infinite for {count} of {of} {where}: expected {expected}; "
            f"{_CAUSES}{remedy}"
        )
