"""Labels that are bare numbers: what is assumed of them, and when they look like those of other classes."""

from collections.abc import Sequence

from .order import shown_around

_REMEDY = "if they number other classes, give labels by name: class folders, or texts in a Parquet column"


def number_doubt(numbers: Sequence[int], *, data: str, model: str, model_count: int) -> str | None:
    """A note on labels without names that are of a part of a model's classes.

    They are taken as positions among the model's classes. That can be wrong without an error where they number classes
    of their own, or count from 1.

    Args:
        numbers: the distinct labels of the whole data, ascending, none below 0.
        data: reference of the data.
        model: reference of the model.
        model_count: number of the model's classes.

    Returns:
        None where each class of the model occurs, or a label is none of its classes.

    Example:
        >>> number_doubt([0, 1, 2], data="pets", model="net", model_count=10)
        'pets: its labels are numbers without names and taken as positions among the 10 classes of net, of which 3 \
occur (0 to 2); if they number other classes, give labels by name: class folders, or texts in a Parquet column'
        >>> number_doubt([0, 1, 2], data="pets", model="net", model_count=3) is None
        True
    """
    if not numbers or len(numbers) >= model_count or numbers[-1] >= model_count:
        return None
    from_one = counts_from_one(numbers)
    return (
        f"{data}: its labels are numbers without names and taken as positions among the {model_count:,} classes of "
        f"{model}, of which {len(numbers):,} {'occurs' if len(numbers) == 1 else 'occur'} ({_span(numbers)}); "
        + ("none is 0: if they count from 1, subtract 1 from each" if from_one else _REMEDY)
    )


def numbering_doubt(
    numbers: Sequence[int],
    *,
    data: str,
    model: str,
    names: Sequence[str] | None,
    other: str,
    other_names: Sequence[str] | None,
) -> str | None:
    """A note on labels without names where two models, matched by name, have their classes at other positions.

    Args:
        numbers: the distinct labels of the whole data, ascending.
        data: reference of the data.
        model: reference of the model among whose classes the labels are taken as positions.
        names: its class names, in the order of its outputs; None where it has none.
        other: reference of another model.
        other_names: its class names, likewise.

    Returns:
        None where each number is the same class of both, or one is none of the other's; where a model names no
        classes, or they have none in common, so that positions are all that there is.

    Example:
        >>> pets = {"data": "pets", "model": "a", "names": ["cat", "dog"], "other": "b"}
        >>> numbering_doubt([0, 1], **pets, other_names=["dog", "cat"])
        'pets: its labels are numbers without names and taken as positions among the classes of a (cat, dog); b has \
them at other positions (dog, cat): if they were numbered by those, give labels by name'
        >>> numbering_doubt([0, 1], **pets, other_names=["cat", "dog", "cow"]) is None
        True
    """
    if not numbers or names is None or other_names is None or not set(names) & set(other_names):
        return None
    if numbers[-1] >= min(len(names), len(other_names)):
        return None
    first = next((number for number in numbers if names[number] != other_names[number]), None)
    if first is None:
        return None
    return (
        f"{data}: its labels are numbers without names and taken as positions among the classes of {model} "
        f"({shown_around(names, first)}); {other} has them at other positions ({shown_around(other_names, first)}): "
        "if they were numbered by those, give labels by name"
    )


def counts_from_one(numbers: Sequence[int]) -> bool:
    """Whether distinct labels, ascending, look like those of classes that are counted from 1: 1 is there, and no 0.

    Example:
        >>> counts_from_one([1, 2, 3]), counts_from_one([0, 1]), counts_from_one([3, 4]), counts_from_one([])
        (True, False, False, False)
    """
    return bool(numbers) and numbers[0] == 1


def _span(numbers: Sequence[int]) -> str:
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
