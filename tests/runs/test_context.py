"""What transfers share is found again by content, and the least recently used goes when there is too much of it."""

from dataclasses import replace

import torch

from gainfinder import load_model
from gainfinder.data import load_images
from gainfinder.predictions import Predictions
from gainfinder.runs.context import SharedWork


def test_predictions_are_found_by_what_they_are_of_not_by_who_loaded_it(zoo: dict[str, str]) -> None:
    digits, shared, model = load_images("digits#1/20"), SharedWork(), load_model(zoo["vit"])
    assert shared.find(model, digits) is None
    found = Predictions(model="m", ids=digits.ids, logits=torch.zeros(len(digits), 10), target=None)
    shared.add(model, digits, found)
    again = shared.find(replace(load_model(zoo["vit"]), reference="other"), digits)
    assert again is not None and again.model == "other" and again.logits is found.logits
    assert shared.find(load_model(zoo["resnet"]), digits) is None
    assert shared.find(model, load_images("digits#2/20")) is None
    with torch.no_grad():
        next(model.module.parameters()).add_(1)
    assert shared.find(model, digits) is None


def test_the_least_recently_used_predictions_go_first(zoo: dict[str, str]) -> None:
    parts = [load_images(f"digits#{number}/20") for number in (1, 2, 3)]
    model = load_model(zoo["vit"])
    found = [Predictions(model="m", ids=part.ids, logits=torch.zeros(len(part), 10), target=None) for part in parts]
    shared = SharedWork(limit=2 * 4 * 10 * max(map(len, parts)))
    shared.add(model, parts[0], found[0])
    shared.add(model, parts[1], found[1])
    assert shared.find(model, parts[0]) is not None
    shared.add(model, parts[2], found[2])
    assert [shared.find(model, part) is not None for part in parts] == [True, False, True]


def test_crops_of_the_same_images_are_decoded_once(zoo: dict[str, str]) -> None:
    shared, model, digits = SharedWork(), load_model(zoo["vit"]), load_images("digits#1/20")
    first = shared.crops(digits, model, workers=0)
    other = shared.crops(digits.select(range(len(digits))), model, workers=0)
    assert first is not None and other is not None
    assert first._cached is other._cached is not None
