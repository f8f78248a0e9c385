"""What the headers of images say is told."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gainfinder.data import load_images


def turned(path: Path, orientation: int = 6) -> None:
    """A picture of 60 × 40 pixels, its upper half white, that EXIF turns."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.mark.parametrize("name", ["1.jpg", "1.png", "1.webp"])
def test_exif_orientation_is_told_and_a_choice(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    turned(tmp_path / name)
    Image.new("RGB", (60, 40)).save(tmp_path / "2.png")
    stored = load_images(str(tmp_path))
    assert stored.read(0).size == (60, 40)
    assert len(caplog.messages) == 1
    assert "1 of 2 images are turned by their EXIF orientation" in caplog.messages[0]
    assert "?orient=exif" in caplog.messages[0]
    caplog.clear()
    upright = load_images(f"{tmp_path}?orient=exif")
    image = upright.read(0)
    assert image.size == (40, 60) and not caplog.messages
    assert np.asarray(image)[30, 35, 0] > 200  # the white half lies on the right
    assert np.asarray(image)[30, 5, 0] < 50
    assert upright.fingerprint != stored.fingerprint


def test_pillow_turns_tiff_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    turned(tmp_path / "1.tif")
    for setting in ("", "?orient=exif"):
        assert load_images(f"{tmp_path}{setting}").read(0).size == (40, 60)
    assert not caplog.messages


def test_sixteen_bits_and_frames_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    frames = [Image.new("RGB", (4, 4), (i, 0, 0)) for i in (10, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    images = load_images(tmp_path)
    assert np.asarray(images.read(1))[0, 0, 0] < 50
    assert any("1 of 2 images have 16 bits a channel; the upper 8 are read" in text for text in caplog.messages)
    assert any("1 of 2 images have several frames or pages; the first is read" in text for text in caplog.messages)


def test_transparency_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(tmp_path / "1.png")
    assert np.asarray(load_images(tmp_path).read(0))[0, 0].tolist() == [200, 0, 0]
    assert "1 of 1 images may be transparent in parts; the colours below are read" in caplog.messages[0]


def test_of_many_images_some_are_looked_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(150):
        Image.new("RGBA", (1, 1)).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    load_images(tmp_path)
    assert " of the 128 images looked at may be transparent" in caplog.messages[0]
