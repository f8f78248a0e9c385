"""An order of a zoo's models in which alike ones stand side by side, for a map of all pairs."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def order_alike(alike_MM: Floats) -> tuple[int, ...]:
    """Order models so that alike ones are neighbours: the leaves of a hierarchical clustering by average linkage.

    The distance of two models is 1 − how alike they are. Of all orders that the tree allows, the one in which
    neighbours are most alike in sum (Bar-Joseph et al., "Fast optimal leaf ordering for hierarchical clustering",
    2001).

    Args:
        alike_MM: how alike two models are, at most 1, symmetric, such as the consistency of their errors, float64
            (M, M). Where it is NaN, chance alone explains all: as alike as by chance, 0. The diagonal is not read.

    Returns:
        The places of all M models, in their new order, that of the two directions in which the first model comes in
        the first half.

    Example:
        The first and the third err alike:

        >>> order_alike(np.array([[1.0, 0.1, 0.8], [0.1, 1.0, 0.2], [0.8, 0.2, 1.0]]))
        (0, 2, 1)
    """
    models = len(alike_MM)
    if models < 3:
        return tuple(range(models))
    from scipy.cluster.hierarchy import leaves_list, linkage  # noqa: PLC0415 (slow, and for pages of zoos alone)

    distance_MM = 1 - np.where(np.isnan(alike_MM), 0.0, alike_MM)
    upper = distance_MM[np.triu_indices(models, k=1)]
    order = [int(place) for place in leaves_list(linkage(upper, method="average", optimal_ordering=True))]
    return tuple(order if 2 * order.index(0) < models else order[::-1])
