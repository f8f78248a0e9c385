from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from gainfinder.data import load_images
from gainfinder.data.dataset import samples_of_dataset, to_pil
from gainfinder.errors import BrokenSample, DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)


class Items(Dataset[Any]):
    """A data set that counts how often its items are read."""

    def __init__(self, items: list[Any], **attributes: Any) -> None:
        self.items = items
        self.reads = 0
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([])

    def __len__(self) -> int:
        return 3


def labelled(of_items: list[Any], /, **attributes: Any) -> Items:
    return Items([(PIXELS[i], label) for i, label in enumerate(of_items)], **attributes)


@pytest.mark.parametrize("form", ["pil", "hwc", "chw", "tensor_chw", "tensor_hwc", "float", "half", "float_array"])
def test_images_of_every_form_are_alike(form: str) -> None:
    pixels = PIXELS[0]
    chw = torch.from_numpy(pixels).permute(2, 0, 1)
    forms = {
        "pil": Image.fromarray(pixels),
        "hwc": pixels,
        "chw": pixels.transpose(2, 0, 1),
        "tensor_chw": chw,
        "tensor_hwc": torch.from_numpy(pixels),
        "float": chw / 255,
        "half": (chw / 255).half(),
        "float_array": pixels / 255,
    }
    image = samples_of_dataset([forms[form]]).read(0)
    assert np.asarray(image).tolist() == pixels.tolist()


def test_grey_images_and_ambiguous_shapes() -> None:
    grey = PIXELS[0, ..., 0]
    for image in (grey, grey[..., None], torch.from_numpy(grey)[None]):
        assert np.asarray(samples_of_dataset([image]).read(0))[..., 2].tolist() == grey.tolist()
    thin = PIXELS[0, :3, :, :]
    assert np.asarray(to_pil(thin, where="x")).tolist() == thin.tolist()
    tensor = torch.from_numpy(thin.copy())
    assert np.asarray(to_pil(tensor, where="x")).tolist() == tensor.permute(1, 2, 0).tolist()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            torch.full((3, 4, 4), -1.5),
            r"item 0: pixels from -1\.5 to -1\.5, expected \[0, 1\]: it looks normalised.*drop",
        ),
        (torch.full((3, 4, 4), float("nan")), "pixels from nan to nan"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "pixels of type int64: expected uint8, or floats"),
        (np.zeros((7, 6, 5), np.uint8), r"shape \(7, 6, 5\) is no image: expected \(H, W\)"),
        ({"image": PIXELS[0]}, "expected a PIL image, an array or a tensor, got dict; items must be images or"),
    ],
)
def test_images_that_no_model_can_take(image: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        samples_of_dataset([image]).read(0)
    assert not isinstance(caught.value, BrokenSample)


def test_an_item_that_fails_is_a_broken_image() -> None:
    with pytest.raises(BrokenSample, match="Items: item 1: lost"):
        samples_of_dataset(Items([PIXELS[0], OSError("lost")])).read(1)


@pytest.mark.parametrize("attribute", ["targets", "labels"])
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_listed_labels_are_taken_without_reading(attribute: str, kind: Any) -> None:
    dataset = labelled([9, 9, 9], **{attribute: kind([2, 0, 1]), "classes": ["a", "b", "c"]})
    images = load_images(dataset)
    assert images.labels is not None
    assert images.labels.tolist() == [2, 0, 1]
    assert images.class_names == ("a", "b", "c")
    assert images.ids == ("0000000", "0000001", "0000002")
    assert images.reference == "Items"
    assert dataset.reads <= 1  # the first, which tells images from texts


@pytest.mark.parametrize(
    "attributes",
    [{}, {"targets": [0, 1]}, {"targets": ["x", "y", "z"]}, {"targets": [5, 5, 5], "target_transform": abs}],
)
def test_other_labels_are_read_from_the_items(attributes: dict[str, Any]) -> None:
    images = samples_of_dataset(labelled([2, np.int64(0), torch.tensor(1)], **attributes), class_names=["a", "b", "c"])
    assert images.labels is not None
    assert images.labels.tolist() == [2, 0, 1]
    assert images.class_names == ("a", "b", "c")


def test_subsets() -> None:
    dataset = labelled([0, 1, 2, 0], targets=[0, 1, 2, 0], classes=["a", "b", "c"])
    images = load_images(Subset(Subset(dataset, [3, 2, 1]), [2, 0]))
    assert images.labels is not None
    assert images.labels.tolist() == [1, 0]
    assert images.class_names == ("a", "b", "c")
    assert dataset.reads <= 1  # the first, which tells images from texts
    assert np.asarray(images.read(0)).tolist() == PIXELS[1].tolist()


def test_a_tensor_dataset() -> None:
    images = load_images(TensorDataset(torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.tensor([0, 1, 1, 0])))
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1, 1, 0]
    assert np.asarray(images.read(3)).tolist() == PIXELS[3].tolist()


def test_unlabelled_items_and_labels_left_out() -> None:
    assert samples_of_dataset(list(PIXELS)).labels is None
    dataset = labelled(["not", "integers"])
    assert load_images(dataset, labels=False).labels is None
    assert dataset.reads <= 1  # the first, which tells images from texts
    images = load_images(labelled([0, 1]))
    assert load_images(images) is images
    assert load_images(images, labels=False).labels is None


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (labelled([0, "dog"]), "the label of item 1 is 'dog' \\(str\\), expected an integer; pass labels=False"),
        (Items([(PIXELS[0], 1), PIXELS[1]]), "item 1 has no label although earlier ones have"),
        (Items([(PIXELS[0], 1), OSError("lost")]), r"item 1 cannot be read \(lost\), so its label is unknown"),
        (Items([]), "Items: no images found"),
        (Stream(), "expected a data set with __len__ and __getitem__, got Stream; streams have no random access"),
        (iter([]), "expected a data set with __len__ and __getitem__, got list_iterator"),
        (labelled([0, 3], classes=["a", "b"]), r"expected labels from 0 to 1 \(2 classes\)"),
    ],
)
def test_data_sets_that_cannot_be_used(dataset: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_images(dataset)
