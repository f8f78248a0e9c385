"""Features in parts: what is there is read, what is damaged or missing is computed."""

from pathlib import Path

import pytest
import torch

import gainfinder.heads.features
from gainfinder.data import Samples, load_images
from gainfinder.heads.features import kept_features
from gainfinder.inference import ImageFeatures

IMAGES = load_images("digits").select(range(25))


class Computed:
    """Features that tell the image, of which the seventh of each part is broken; counts the images of each part."""

    def __init__(self, most: int = 99) -> None:
        self.parts: list[int] = []
        self.most = most

    def __call__(self, images: Samples) -> ImageFeatures:
        if len(self.parts) == self.most:
            raise KeyboardInterrupt
        self.parts.append(len(images))
        positions = torch.tensor([i for i in range(len(images)) if i != 7], dtype=torch.int64)
        numbers = torch.tensor([float(images.ids[i].rpartition("/")[2]) for i in positions])
        return ImageFeatures(
            positions=positions,
            features=torch.stack([numbers, -numbers], dim=1),
            broken=(f"{images.ids[7]}: broken",) if len(images) > 7 else (),
        )


def kept(folder: Path, computed: Computed, *, seen: list[int] | None = None) -> ImageFeatures:
    seen = [] if seen is None else seen
    return kept_features(IMAGES, folder, compute=computed, batch_size=4, on_images=seen.append)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gainfinder.heads.features, "PART_IMAGES", 10)


def test_a_pass_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = kept(tmp_path / "whole", computed := Computed())
    assert computed.parts == [12, 12, 1], "of whole batches"
    assert whole.features[:, 0].tolist() == whole.positions.tolist() == [i for i in range(25) if i not in (7, 19)]
    assert whole.broken == ("digits/0007: broken", "digits/0019: broken")
    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "stopped", Computed(most=1))
    seen: list[int] = []
    found = kept(tmp_path / "stopped", computed := Computed(), seen=seen)
    assert (computed.parts, seen) == ([12, 1], [12])
    assert torch.equal(found.features, whole.features) and found.broken == whole.broken
    assert torch.equal(found.positions, whole.positions)


def test_a_damaged_part_is_computed_anew(tmp_path: Path) -> None:
    kept(tmp_path, Computed())
    part = sorted(tmp_path.iterdir())[1]
    part.write_bytes(part.read_bytes()[:-9])
    (tmp_path / ".partial-1-x").touch()
    found = kept(tmp_path, computed := Computed())
    assert computed.parts == [12] and len(found.positions) == 23
    assert len(list(tmp_path.iterdir())) == 3
