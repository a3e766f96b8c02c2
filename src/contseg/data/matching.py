"""Match the classes of a dataset with those of a model, by name."""

from dataclasses import dataclass

from contseg.data.classes import ClassTable
from contseg.data.datasets.class_list import is_background
from contseg.errors import ContsegError


@dataclass(frozen=True)
class ClassMatch:
    """The classes of a dataset as a model knows them; classes with the name of a background are in neither part.

    Attributes:
        known: id in the model's table, by id in the dataset.
        new: ids in the dataset of classes that the model lacks, in the order of the class list.
        notes: matched names that are spelled differently, one line each.
    """

    known: dict[int, int]
    new: tuple[int, ...]
    notes: tuple[str, ...] = ()


def match_classes(data: ClassTable, model: ClassTable) -> ClassMatch:
    """Match classes by name, regardless of case and of spaces around the name.

    Raises:
        ContsegError: two classes of `data` have the same name in this sense.

    Example:
        >>> data = ClassTable.of(["background", "boat", "Car "])
        >>> match_classes(data, ClassTable.of(["background", "car", "bus"]))
        ClassMatch(known={2: 1}, new=(1,), notes=("class 'Car ' is the model's 'car'",))
    """
    by_name = {plain_name(name): (number, name) for number, name in zip(model.ids, model.names, strict=True)}
    known: dict[int, int] = {}
    new: list[int] = []
    notes: list[str] = []
    spelled: dict[str, str] = {}
    for number, name in zip(data.ids, data.names, strict=True):
        if (data.has_background and number == 0) or is_background(name):
            continue
        if (other := spelled.setdefault(plain_name(name), name)) != name:
            raise ContsegError(f"classes '{other}' and '{name}': two classes with the same name; rename one, or merge them")
        if plain_name(name) not in by_name:
            new.append(number)
            continue
        known[number], own = by_name[plain_name(name)]
        if own != name:
            notes.append(f"class '{name}' is the model's '{own}'")
    return ClassMatch(known, tuple(new), tuple(notes))


def plain_name(name: str) -> str:
    """The name in the form in which names are compared.

    Example:
        >>> plain_name(" Traffic light")
        'traffic light'
    """
    return name.strip().casefold()
