"""Which samples one model has answered otherwise than before, beyond what rounding on another device makes of it.

Shapes: N samples, C classes.
"""

import torch
from torch import Tensor

from .value import Predictions

ROUNDING = 0.02
"""Difference of two logits that rounding explains at most, as a share of the largest logit.

Logits are computed in float32 everywhere, on GPUs with factors rounded to TF32's 10 bits. On the CPU that rounding, put
before each convolution and matrix product, moved the logits of seven trained networks of 8 to 32 layers (ResNets, ViT,
XCiT, ConvNeXt, MobileNet; 200 CIFAR-10 images) by 0.05 to 0.2 % of the largest one; this is ten times the most. Another
image moves them by tens of percent.
"""


def beyond_rounding(one_NC: Tensor, other_NC: Tensor, *, share: float = ROUNDING) -> Tensor:
    """Which rows of logits differ by more than rounding.

    The largest difference of a row is held against its largest absolute logit, or the mean of those of all rows where
    that is more, so that a row of logits near zero has no smaller margin than others. Classes that both mask (−inf) are
    passed over; one that one of them masks is a difference.

    Args:
        one_NC: logits, floating point (N, C), none NaN or +inf.
        other_NC: those of the same model for the same samples, computed again; (N, C) likewise.
        share: share of the largest logit that is rounding, 0 or more; 0 where every bit must be the same.

    Returns:
        bool (N,).

    Example:
        >>> one = torch.tensor([[4.0, 1.0], [2.00, 2.01], [4.0, -torch.inf]])
        >>> other = torch.tensor([[1.0, 4.0], [2.01, 2.00], [4.0, -torch.inf]])
        >>> beyond_rounding(one, other).tolist(), beyond_rounding(one, other, share=0).tolist()
        ([True, False, False], [True, True, False])
    """
    if not len(one_NC):
        return torch.zeros(0, dtype=torch.bool)
    apart_N = (one_NC.double() - other_NC.double()).abs().nan_to_num(nan=0.0, posinf=torch.inf).amax(dim=1)
    finite_NC = one_NC.double().masked_fill(one_NC.isinf(), 0.0)
    largest_N = finite_NC.abs().amax(dim=1)
    return apart_N > share * largest_N.clamp_min(float(largest_N.mean()))


def answered_otherwise(
    then: Predictions, now: Predictions, *, share: float = ROUNDING, classes: bool = False
) -> tuple[str, ...]:
    """Ids of the samples that one model answers otherwise than it did, beyond rounding.

    A sample that only one of the two has, because it could not be read then or now, is one of them.

    Args:
        then: the model's earlier predictions.
        now: its predictions for the same samples.
        share: as that of `beyond_rounding`.
        classes: whether only those count whose predicted class is another.

    Returns:
        Ids in the order of `then`, before those that only `now` has.
    """
    row_of = {sample_id: row for row, sample_id in enumerate(now.ids)}
    shared = [row for row, sample_id in enumerate(then.ids) if sample_id in row_of]
    rows = torch.tensor([row_of[then.ids[row]] for row in shared], dtype=torch.long)
    if then.num_classes == now.num_classes:
        one, other = then.logits[shared], now.logits[rows]
        found = beyond_rounding(one, other, share=share)
        if classes:
            found &= one.argmax(dim=1) != other.argmax(dim=1)
    else:
        found = torch.ones(len(shared), dtype=torch.bool)
    same = {then.ids[row] for row, otherwise in zip(shared, found.tolist(), strict=True) if not otherwise}
    before = {*then.ids}
    return (*(one for one in then.ids if one not in same), *(one for one in now.ids if one not in before))
