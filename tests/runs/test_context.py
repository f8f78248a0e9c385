"""What a run and its steps share is kept for as long as it is asked for."""

import torch

from gainfinder.data import load_images
from gainfinder.predictions import Predictions
from gainfinder.runs.context import SharedWork


def test_a_model_that_is_forgotten_leaves_the_others() -> None:
    digits = load_images("digits#1/20")
    shared, kept, gone = SharedWork(), object(), object()
    found = Predictions(model="m", ids=digits.ids, logits=torch.zeros(len(digits), 10), target=None)
    for model in (kept, gone):
        assert shared.find(model, digits) is None
        shared.add(model, digits, found)
    shared.forget(gone)
    assert shared.find(kept, digits) is found
    assert shared.find(gone, digits) is None and gone not in shared._kept
