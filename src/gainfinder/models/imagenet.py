"""Names of the ImageNet-1k classes: one list for all sources, so that models and image folders match by name."""

from collections.abc import Sequence

from timm.data import ImageNetInfo


def imagenet_wnids() -> tuple[str, ...]:
    """The 1000 WordNet ids in the order of the logits.

    Example:
        >>> imagenet_wnids()[:2]
        ('n01440764', 'n01443537')
    """
    return tuple(ImageNetInfo("imagenet-1k").label_names())


def as_wnids(names: Sequence[str]) -> tuple[str, ...]:
    """WordNet ids in place of the 1000 ImageNet class names in their usual order; other names as they are.

    Libraries spell the English names differently and two of them twice alike (crane, maillot), so they cannot be
    matched one by one: a list is ImageNet's if nearly all of its names agree, in order, in their first term.
    """
    known = ImageNetInfo("imagenet-1k").label_descriptions()
    if len(names) != len(known):
        return tuple(names)
    agreeing = sum(_first_term(name) == _first_term(other) for name, other in zip(names, known, strict=True))
    return imagenet_wnids() if agreeing >= 0.95 * len(known) else tuple(names)


def imagenet_texts(names: Sequence[str] | None, count: int) -> tuple[str, ...] | None:
    """What ImageNet's classes are called: of each the first of its lemmas in WordNet, as timm lists them.

    Args:
        names: names of the classes, or None.
        count: number of classes.

    Returns:
        Names for classes that are all called by a WordNet id, and for 1000 that have no names or only their indices;
        None for others.

    Example:
        >>> imagenet_texts(["n01443537", "n01440764"], 2), imagenet_texts(["cat", "n01440764"], 2)
        (('goldfish', 'tench'), None)
    """
    info = ImageNetInfo("imagenet-1k")
    if names is None or tuple(names) == tuple(map(str, range(count))):
        names = info.label_names() if count == info.num_classes() else ()
    try:
        return tuple(info.label_name_to_description(name).split(",", maxsplit=1)[0] for name in names) or None
    except KeyError:
        return None


def _first_term(name: str) -> str:
    return name.split(",", maxsplit=1)[0].strip().lower().replace("_", " ")
