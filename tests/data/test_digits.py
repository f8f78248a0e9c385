import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits

from gainfinder.data import load_images
from gainfinder.errors import BadReference


def test_digits_are_scikit_learns() -> None:
    images, theirs = pickle.loads(pickle.dumps(load_images("digits"))), load_digits()
    assert len(images) == 1797
    assert images.ids[12] == "digits/0012"
    assert images.class_names == tuple("0123456789")
    assert images.labels.tolist() == theirs.target.tolist()
    assert not images.mirrorable
    pixels = np.asarray(images.read(12))
    assert pixels.shape == (8, 8, 3)
    assert pixels[..., 1].tolist() == np.round(theirs.images[12] * 255 / 16).tolist()


def test_digits_have_no_settings() -> None:
    with pytest.raises(BadReference, match="unknown setting 'size'"):
        load_images("digits?size=3")
