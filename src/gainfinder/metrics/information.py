"""Information in predictions about the images, in nats: one addend an image, no labels needed.

Shapes: N samples, C classes.
"""

import torch
from torch import Tensor


def information(logits_NC: Tensor) -> Tensor:
    """What each prediction adds to the mutual information between image and predicted class.

        KL(p_i ‖ p̄),  p_i = σ(z_i),  p̄ = mean of p_i;  their mean is H(p̄) − mean of H(p_i)

    Source: the objective of Krause et al., "Discriminative Clustering by Regularized Information Maximization" (NeurIPS
    2010); here it is only measured.

    Args:
        logits_NC: floating point (N, C).

    Returns:
        float64 (N,), nats, from 0; their mean is at most ln C.

    Example:
        Two confident predictions of different classes carry one bit each; two of the same class carry none.

        >>> sure = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
        >>> [round(value, 4) for value in information(sure).tolist()], information(sure[[0, 0]]).tolist()
        ([0.6931, 0.6931], [0.0, 0.0])
    """
    log_probs_NC = logits_NC.double().log_softmax(dim=1)
    probs_NC = log_probs_NC.exp()
    # the mean of a class that is all but impossible may be too small for a float
    log_mean_C = probs_NC.mean(dim=0).clamp_min(torch.finfo(torch.float64).tiny).log()
    # a class of probability 0 adds nothing, though its logarithm is −inf
    return torch.where(probs_NC > 0, probs_NC * (log_probs_NC - log_mean_C), 0.0).sum(dim=1)


def class_information(predicted_N: Tensor, *, num_classes: int) -> Tensor:
    """What each prediction adds to the entropy of the predicted classes.

        −ln n_c / N,  c the class predicted for the image, n_c of N images predicted as it; their mean is the entropy

    Args:
        predicted_N: classes, int64 (N,).
        num_classes: C.

    Returns:
        float64 (N,), nats, from 0 (all of one class); their mean is at most ln C (all classes alike).

    Example:
        >>> class_information(torch.tensor([0, 1, 1, 1]), num_classes=3).exp().tolist()
        [4.0, 1.3333333333333333, 1.3333333333333333, 1.3333333333333333]
    """
    shares_C = torch.bincount(predicted_N, minlength=num_classes).double() / max(1, len(predicted_N))
    return -shares_C[predicted_N].log()
