"""The second stage of views: crops that were made are mirrored, shifted and coloured, a whole batch at a time.

All that is drawn comes in as numbers, so that nothing is random here; an image gets the same bits in whatever batch it
is. Colours are changed as torchvision's functional operations do it, which take one factor for all images of a batch.
Kornia's take one an image but blend in floating point, without the rounding of each step: views would be others.

Shapes: N samples, H and W height and width, K numbers drawn for a view.
"""

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor

from ..config import Augment

MIRRORED = 0.5
"""Probability that a view is mirrored."""
DRAWN: dict[Augment, int] = {"paper": 7, "rrc": 0, "crop-flip": 3, "none": 0}
"""How many numbers the second stage takes for a view."""


def augmented(crops_N3HW: Tensor, draws_NK: Tensor, augment: Augment) -> Tensor:
    """The second stage of views, for a whole batch; an image gets the same bits in whatever batch it is.

    Args:
        crops_N3HW: uint8.
        draws_NK: float64, as `draws` gives them, on any device.
        augment: the augmentation; `none` and `rrc` leave the crops as they are.

    Returns:
        uint8 (N, 3, H, W), on the device of the crops.
    """
    if not len(crops_N3HW) or not DRAWN[augment]:
        return crops_N3HW
    draws_KN = draws_NK.to(crops_N3HW.device, non_blocking=True).T
    if augment == "crop-flip":
        down, right, mirror = draws_KN
        return _mirrored(_shifted(crops_N3HW, down, right), mirror)
    return _recoloured(_mirrored(crops_N3HW, draws_KN[0]), draws_KN[1:])


def _mirrored(views_N3HW: Tensor, draw_N: Tensor) -> Tensor:
    return torch.where(draw_N.view(-1, 1, 1, 1) < MIRRORED, views_N3HW.flip(-1), views_N3HW)


def _shifted(views_N3HW: Tensor, down_N: Tensor, right_N: Tensor) -> Tensor:
    """Each view padded with black and cropped at an offset of its own."""
    height, width = views_N3HW.shape[-2:]
    down, right = max(1, height // 8), max(1, width // 8)
    padded = F.pad(views_N3HW, (right, right, down, down))
    top_N, left_N = (down_N * (2 * down + 1)).long(), (right_N * (2 * right + 1)).long()
    windows: Tensor = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, 3, offsets down and right, H, W), a view
    return windows[torch.arange(len(padded), device=padded.device), :, top_N, left_N]


def _recoloured(views_N3HW: Tensor, draws_6N: Tensor) -> Tensor:
    """torchvision's adjustments with factors of each image's own, in the order of the published code."""
    distort_N, grey_N, *factors_3N, hue_N = draws_6N
    factors = [0.2 + 1.6 * drawn_N for drawn_N in factors_3N]
    black = views_N3HW.new_zeros(())
    coloured = _blended(views_N3HW, black, factors[0])
    coloured = _blended(coloured, _mean_grey(coloured), factors[1])
    coloured = _blended(coloured, TF.rgb_to_grayscale(coloured), factors[2])
    coloured = _with_hue(coloured, -0.2 + 0.4 * hue_N)
    views = torch.where(distort_N.view(-1, 1, 1, 1) < 0.8, coloured, views_N3HW)
    return torch.where(grey_N.view(-1, 1, 1, 1) < 0.2, TF.rgb_to_grayscale(views, num_output_channels=3), views)


def _blended(views_N3HW: Tensor, others: Tensor, share_N: Tensor) -> Tensor:
    """share · view + (1 − share) · other, rounded down, as torchvision blends with one share for all."""
    share, rest = (value.float().view(-1, 1, 1, 1) for value in (share_N, 1.0 - share_N))
    return (share * views_N3HW + rest * others).clamp(0, 255).to(torch.uint8)


def _mean_grey(views_N3HW: Tensor) -> Tensor:
    """Mean of the grey image, float32 (N, 1, 1, 1); summed as integers, so that the order of summing has no effect."""
    grey = TF.rgb_to_grayscale(views_N3HW)
    mean: Tensor = grey.sum(dim=(1, 2, 3), keepdim=True) / grey[0].numel()
    return mean.float()


def _with_hue(views_N3HW: Tensor, shift_N: Tensor) -> Tensor:
    """The hue turned by a share of the circle. torchvision's conversions are private; this is the textbook's.

    A hue in [0, 6) has its sector of the hexcone; each channel is V (1 − S · max(0, min(k, 4 − k, 1))) with
    k = (n + hue) mod 6 and n = 5, 3, 1 for red, green and blue.
    """
    rgb = views_N3HW.float() / 255
    value, _ = rgb.max(dim=1)
    chroma = value - rgb.min(dim=1).values
    grey = chroma == 0
    per_chroma = torch.where(grey, 1.0, chroma)
    red, green, blue = rgb.unbind(dim=1)
    hue = torch.where(
        value == red,
        (green - blue) / per_chroma,
        torch.where(value == green, (blue - red) / per_chroma + 2, (red - green) / per_chroma + 4),
    )
    turned = hue + 6 * shift_N.float().view(-1, 1, 1)
    channels = []
    for n in (5.0, 3.0, 1.0):
        k = (n + turned) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    out = (torch.stack(channels, dim=1) * 255).round().clamp(0, 255).to(torch.uint8)
    return torch.where(grey[:, None], views_N3HW, out)
