"""Predictions of a classifier for images, one forward pass an image."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data import LoadedBatch, Samples, SampleSource, load_batches, load_samples
from ..devices import default_workers, measured_in_memory, resolve_device
from ..models import Classifier, FeatureTap, InputForm, ModelSource, load_copy
from ..predictions import (
    Predictions,
    TopPredictions,
    check_logits,
    most_probable,
    refuse_features,
    refuse_unusable,
    unusable,
)
from ..views import CropCache, CropKeeper, ViewBatch, ViewSource, view_spec
from .alignment import align_samples
from .passes import ImageCount, Pass

LOGITS_AT_ONCE = 2**22
"""Where the most probable classes alone are wanted, no more logits are held than about so many: 16 MiB."""


def predict(
    model: ModelSource,
    data: SampleSource,
    *,
    labels: bool = True,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    max_broken: float = 0.01,
    on_images: ImageCount | None = None,
) -> Predictions:
    """A model's logits for some images, each through the model's evaluation transform, in float32.

    A module or classifier that is passed in is not changed.

    Args:
        model: a reference, classifier or module.
        data: a data reference, `Samples`, or a data set that yields images or (image, label).
        labels: False reads none, so that they need not fit the model's classes.
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: images a forward pass.
        workers: processes that decode images; by default none on a CPU, else up to 16.
        max_broken: largest share of images that may be undecodable; they have no row.
        on_images: called with the number of images done since the last call.

    Returns:
        Predictions in the model's class order; their target, where the images carry labels, in the same order.

    Raises:
        GainfinderError: the model or the images cannot be used.
    """
    classifier, images = _opened(model, data, labels=labels)
    return predict_samples(
        classifier,
        images,
        **_places(device, workers),
        batch_size=batch_size,
        max_broken=max_broken,
        on_images=on_images,
    )


def predict_top(
    model: ModelSource,
    data: SampleSource,
    *,
    top_k: int,
    labels: bool = True,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    max_broken: float = 0.01,
    on_images: ImageCount | None = None,
) -> TopPredictions:
    """What `predict` gives, of the most probable classes alone; logits of all are held of a few images at once.

    Args:
        model: as those of `predict`, and the following.
        data: the images.
        top_k: number of classes of each image, 1 or more; all if there are fewer.
        labels: whether labels are read.
        device: device that the model runs on.
        batch_size: images a forward pass.
        workers: processes that decode images.
        max_broken: largest share of images that may be undecodable.
        on_images: called with the number of images done since the last call.

    Raises:
        GainfinderError: the model or the images cannot be used.
    """
    classifier, images = _opened(model, data, labels=labels)
    return predict_top_samples(
        classifier,
        images,
        top_k=top_k,
        **_places(device, workers),
        batch_size=batch_size,
        max_broken=max_broken,
        on_images=on_images,
    )


def _opened(model: ModelSource, data: SampleSource, *, labels: bool) -> tuple[Classifier, Samples]:
    classifier = load_copy(model)
    return classifier, align_samples(load_samples(data, labels=labels), classifier)


def _places(device: str, workers: int | None) -> dict[str, Any]:
    """Where a model runs, and how many processes decode for it."""
    where = resolve_device(device)
    return {"device": where, "workers": default_workers(where) if workers is None else workers}


def predict_samples(
    classifier: Classifier,
    images: Samples,
    *,
    device: torch.device,
    batch_size: int = 64,
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
    max_broken: float = 0.01,
    crops: ViewSource | None = None,
    on_images: ImageCount | None = None,
    check: bool = True,
) -> Predictions:
    """A classifier's logits, each image once, through its evaluation transform, in float32.

    Args:
        classifier: the classifier; its module is moved to `device` and put into evaluation mode.
        images: the images, with labels in the classifier's class order, which become the target.
        device: device that the model runs on.
        batch_size: images a forward pass.
        workers: processes that decode; 0 decodes in this one.
        shard: (k, n): only every n-th image, from the k-th on.
        max_broken: the largest share of images that may be undecodable; they are skipped.
        crops: these images as the classifier's evaluation crops them (see `evaluation_crops`), so that they need not be
            decoded again. They give the same predictions, bit for bit.
        on_images: called with the number of images done since the last call.
        check: False where the caller checks the logits (`check_logits`), as for a shard: others have the rest.

    Raises:
        DataError: more images are broken than `max_broken` allows.
        NotFinite: the model gives logits that cannot be used.
    """
    indices = range(shard[0], len(images), shard[1])
    loaded: Iterable[LoadedBatch]
    if crops is None:
        loaded = _evaluated(classifier, images, batch_size=batch_size, workers=workers, indices=indices, device=device)
    else:
        wanted = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
        loaded = (_prepared(batch, classifier.preprocessing) for batch in crops.batches(wanted, epoch=0))
    run = Pass(classifier, images, device=device, max_broken=max_broken, on_images=on_images)
    logits_NC = torch.cat([torch.zeros(0, classifier.num_classes), *run.logits(loaded)])
    if check:
        check_logits(logits_NC, model=classifier.reference, noun=images.noun)
    return Predictions(logits=logits_NC, **run.about())


def predict_top_samples(
    classifier: Classifier,
    images: Samples,
    *,
    top_k: int,
    device: torch.device,
    batch_size: int = 64,
    workers: int = 0,
    max_broken: float = 0.01,
    on_images: ImageCount | None = None,
) -> TopPredictions:
    """What `predict_samples` gives, of the most probable classes alone; logits of all are held of a few images at once.

    Args:
        classifier: the classifier; its module is moved to `device` and put into evaluation mode.
        images: the images, with labels in the classifier's class order, which become the target.
        top_k: number of classes of each image; all if there are fewer.
        device: device that the model runs on.
        batch_size: images a forward pass.
        workers: processes that decode; 0 decodes in this one.
        max_broken: the largest share of images that may be undecodable; they are skipped.
        on_images: called with the number of images done since the last call.

    Raises:
        DataError: more images are broken than `max_broken` allows.
        NotFinite: the model gives logits that cannot be used.
    """
    loaded = _evaluated(classifier, images, batch_size=batch_size, workers=workers, device=device)
    run = Pass(classifier, images, device=device, max_broken=max_broken, on_images=on_images)
    none = torch.zeros(0, classifier.num_classes)
    top, predicted, wrong = [most_probable(none, top_k)], [none.argmax(dim=1)], 0
    for logits_NC in _joined(run.logits(loaded), numbers=LOGITS_AT_ONCE):
        wrong += int(unusable(logits_NC).sum())
        top.append(most_probable(logits_NC, top_k))
        predicted.append(logits_NC.argmax(dim=1))
    predicted_N = torch.cat(predicted)
    refuse_unusable(wrong, of=len(predicted_N), model=classifier.reference, where=f"{images.noun}s")
    log_probs, classes = zip(*top, strict=True)
    return TopPredictions(
        classes=torch.cat(classes),
        log_probs=torch.cat(log_probs),
        predicted=predicted_N,
        num_classes=classifier.num_classes,
        **run.about(),
    )


def evaluation_crops(
    images: Samples,
    preprocessing: InputForm,
    *,
    workers: int,
    resident_bytes: int | None = None,
    cache: CropCache | None = None,
    keeper: CropKeeper | None = None,
) -> ViewSource | None:
    """A source of the crops that models of this preprocessing are evaluated on, decoded once.

    None if they take more than `resident_bytes` (by default `devices.measured_in_memory`), or if the models are of one
    channel: these see images that were grey before they were resized.
    """
    if not preprocessing.shares_views:
        return None
    source = ViewSource(
        images,
        view_spec([preprocessing], "none"),
        workers=workers,
        device=torch.device("cpu"),
        resident_bytes=measured_in_memory() if resident_bytes is None else resident_bytes,
        cache=cache,
        keeper=keeper,
    )
    return source if source.fits else None


def _joined(parts: Iterable[Tensor], *, numbers: int) -> Iterator[Tensor]:
    """Join tensors, as many as hold so many numbers: operations on small ones are waited for longer than they take."""
    held: list[Tensor] = []
    for part in parts:
        held.append(part)
        if sum(one.numel() for one in held) >= numbers:
            yield torch.cat(held)
            held = []
    if held:
        yield torch.cat(held)


def _evaluated(
    classifier: Classifier,
    images: Samples,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    indices: Sequence[int] | None = None,
) -> Iterable[LoadedBatch]:
    """These of the images, or all, through a classifier's evaluation transform, for a device."""
    return load_batches(
        images,
        _Evaluation(classifier),
        batch_size=batch_size,
        workers=workers,
        indices=indices,
        pinned=device.type == "cuda",
    )


def _prepared(batch: ViewBatch, preprocessing: InputForm) -> LoadedBatch:
    inputs = None if batch.views is None else batch.views.inputs(preprocessing)
    return LoadedBatch(inputs=inputs, positions=batch.positions_N, broken=batch.broken)


@dataclass(frozen=True, kw_only=True)
class ImageFeatures:
    """What enters a classifier's last layer, for some images.

    Attributes:
        positions: int64 (N,), indices into the images; broken ones are missing.
        features: float32 (N, D).
        broken: `where: reason` of each broken image.
    """

    positions: Tensor
    features: Tensor
    broken: tuple[str, ...]


def features_of(
    classifier: Classifier,
    images: Samples,
    *,
    layer: str,
    device: torch.device,
    batch_size: int = 64,
    workers: int = 0,
    on_images: ImageCount | None = None,
) -> ImageFeatures:
    """The features of each image, once, through the classifier's evaluation transform, in evaluation mode.

    Args:
        classifier: the classifier; its module is moved to `device` and put into evaluation mode.
        images: the images; their labels are not read.
        layer: name of the classifier layer, as `NewHead` has it.
        device: device that the model runs on.
        batch_size: images a forward pass.
        workers: processes that decode; 0 decodes in this one.
        on_images: called with the number of images done since the last call.

    Raises:
        NotFinite: a feature is not finite.
    """
    loaded = _evaluated(classifier, images, batch_size=batch_size, workers=workers, device=device)
    run = Pass(classifier, images, device=device, max_broken=None, on_images=on_images)
    with FeatureTap(classifier, layer=layer) as tap:

        def features(inputs: Tensor) -> Tensor:
            classifier.logits(inputs)
            return tap.take().float().cpu()

        found = list(run.outputs(loaded, features))
    features_ND = torch.cat(found) if found else torch.zeros(0, 0)
    wrong = int((~features_ND.isfinite().all(dim=1)).sum())
    refuse_features(wrong, of=len(features_ND), model=classifier.reference, where=f"{images.noun}s")
    return ImageFeatures(positions=run.positions_N, features=features_ND, broken=tuple(run.broken))


def merge_shards(parts: Iterable[Predictions], images: Samples) -> Predictions:
    """Put the shards of one model's predictions back into the order of the images."""
    shards = list(parts)
    if len(shards) == 1:
        return shards[0]
    position_of = {sample_id: i for i, sample_id in enumerate(images.ids)}
    ids = [sample_id for shard in shards for sample_id in shard.ids]
    order = sorted(range(len(ids)), key=lambda row: position_of[ids[row]])
    labels = [shard.target for shard in shards if shard.target is not None]
    return Predictions(
        model=shards[0].model,
        ids=tuple(ids[row] for row in order),
        logits=torch.cat([shard.logits for shard in shards])[order],
        target=torch.cat(labels)[order] if labels else None,
        class_names=shards[0].class_names,
        broken=tuple(sorted(reason for shard in shards for reason in shard.broken)),
        dropped_mass=sum(shard.dropped_mass * len(shard) for shard in shards) / max(1, len(ids)),
        noun=images.noun,
    )


class _Evaluation:
    """A classifier's evaluation transform in the form that `load_batches` calls; picklable, without the module."""

    def __init__(self, classifier: Classifier) -> None:
        self.transform = classifier.preprocessing.evaluation_transform()

    def __call__(self, index: int, sample: Any) -> Tensor:
        transformed: Tensor = self.transform(sample)
        return transformed
