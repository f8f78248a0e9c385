"""What a run says and leaves where its surroundings are taken away; `tests/campaigns/faults.py` has many more."""

from pathlib import Path

import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_digits

import gainfinder
from gainfinder.errors import RunFolderError
from gainfinder.runs.callbacks import Callback
from killing import KillAtEpoch, Killed
from transfers import SHORT, Run, same, weights

TWO_EPOCHS: Run = {**SHORT, "epochs": 2}


class Moving(Callback):
    """Moves a folder away when the second epoch begins."""

    def __init__(self, path: Path, away: Path) -> None:
        self.path, self.away = path, away

    def epoch_begins(self, epoch: int, of: int, images: int, done: int) -> None:
        if epoch == 2:
            self.path.rename(self.away)


def test_a_run_whose_folder_is_moved_stops_and_goes_on_when_it_is_back(zoo: dict[str, str], tmp_path: Path) -> None:
    out, away = tmp_path / "out", tmp_path / "away"
    asked = {**TWO_EPOCHS, "val": "digits#1/4"}
    whole = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", **asked)
    with pytest.raises(RunFolderError, match="was moved or removed while the run wrote into it; put it back"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=out, callbacks=[Moving(out, away)], **asked)
    assert not out.exists()
    away.rename(out)
    again = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=out, **asked)
    assert again.metrics.resumed_epochs == 1
    assert same(weights(out), weights(whole))


def test_a_run_does_not_go_on_with_other_pictures_of_the_same_names(zoo: dict[str, str], tmp_path: Path) -> None:
    pictures, digits = tmp_path / "pictures", load_digits()
    for number in range(60):
        path = pictures / str(digits.target[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[number] * 15.9).astype("uint8")).save(path)
    asked = {**TWO_EPOCHS, "limit": None, "val": "digits#1/4", "out": tmp_path / "out"}
    with pytest.raises(Killed):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], str(pictures), callbacks=[KillAtEpoch(2)], **asked)
    for path in pictures.rglob("*.png"):
        with Image.open(path) as image:
            turned = ImageOps.invert(image.convert("L"))
        turned.save(path)
    named = r"Differing: of the images to learn from, .* some are others, by their contents"
    with pytest.raises(RunFolderError, match=rf"holds a different run; nothing was changed\. {named}"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], str(pictures), **asked)
