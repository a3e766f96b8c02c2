"""A segmenter as one file: safetensors, with network, classes and source in the header. Loading executes nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from contseg.atomic import atomic_file
from contseg.data.classes import ClassTable
from contseg.data.lists import require_file
from contseg.errors import ContsegError
from contseg.interop import foreign
from contseg.manifest import check_file
from contseg.models.adopted.options import AdoptedOptions
from contseg.models.make import make_segmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.parsing import parse_json

HEADER = "contseg"
KEYS = ("network", "widths", "classes", "source")


def save_segmenter(
    path: Path | str, segmenter: Segmenter, classes: ClassTable, source: dict[str, Any] | None = None
) -> None:
    """Write a segmenter to a file, atomically and with the permissions of the umask.

    Args:
        classes: in output order.
        source: where it comes from (recipe, step, plan hash); stored in the header.

    Raises:
        ContsegError: see `require_makeable`.
    """
    with atomic_file(Path(path)) as partial:
        write_segmenter(partial, segmenter, classes, source)


def write_segmenter(path: Path, segmenter: Segmenter, classes: ClassTable, source: dict[str, Any] | None = None) -> None:
    """`save_segmenter`, into a file that another function makes complete."""
    require_makeable(segmenter)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in segmenter.state_dict().items()}
    save_file(tensors, path, metadata={HEADER: json.dumps(describe(segmenter, classes, source))})


def require_makeable(segmenter: Segmenter) -> None:
    """Check that the network can be made again from its options.

    Raises:
        ContsegError: it is a module that was adopted without the name of a function that makes it.
    """
    parts = segmenter.options.backbone
    if isinstance(parts, AdoptedOptions) and not parts.library:
        raise ContsegError(
            "segmenter: a module in memory cannot be saved, as a file contains no code; register a function that makes it"
            " with contseg.register_model(make, NAME), and adopt it with name=NAME"
        )


def describe(segmenter: Segmenter, classes: ClassTable, source: dict[str, Any] | None = None) -> dict[str, Any]:
    """A segmenter without its tensors, as JSON: network, widths, classes (in output order), source."""
    return {
        "network": segmenter.options.model_dump(mode="json"),
        "widths": segmenter.widths,
        "classes": {
            "names": list(classes.names),
            "ids": list(classes.ids),
            "colours": [list(colour) for colour in classes.colours],
            "background": classes.background,
            "void": list(classes.void),
            **({"things": list(classes.things)} if classes.things else {}),  # earlier versions know no such key
        },
        "source": source or {},
    }


def load_segmenter(path: Path | str, device: str = "cpu") -> tuple[Segmenter, ClassTable]:
    """Read a segmenter and its classes (in output order), in eval mode.

    Args:
        device: `cpu`, or `meta` to check the file and read its network and classes without loading the weights.

    Raises:
        ContsegError: the file is missing or truncated, is not a segmenter (with what to do), its tensors do not fit its
            header, or it differs from the manifest of its folder.
    """
    path = Path(path)
    require_file(path)
    if not path.is_file():
        advice = "this is a folder, which load_pretrained reads" if path.is_dir() else "check the path"
        raise ContsegError(f"{path}: segmenter file not found; {advice}")
    try:
        with safe_open(path, framework="pt") as file:
            header = parse_json((file.metadata() or {})[HEADER], str(path))
            names = file.keys()
            if device == "meta":
                tensors = {name: torch.empty(file.get_slice(name).get_shape(), device=device) for name in names}
            else:
                tensors = {name: file.get_tensor(name) for name in names}
    except KeyError:
        raise ContsegError(f"{path}: no segmenter of contseg; {foreign.describe(path)}") from None
    except (SafetensorError, OSError, ValueError) as error:
        if path.stat().st_size and not foreign.is_safetensors(path):
            raise ContsegError(f"{path}: no segmenter of contseg; {foreign.describe(path)}") from None
        raise ContsegError(f"{path}: cannot be read as a segmenter ({_line(error)}); the file is damaged") from None
    if device != "meta":
        check_file(path, "restore the file that was written, or train again")
    with torch.device(device):
        return assemble(header, tensors, str(path))


def has_header(path: Path) -> bool:
    """Whether a file begins like one of `save_segmenter`; nothing else in it is checked.

    Example:
        >>> has_header(Path("missing.safetensors"))
        False
    """
    return header_of(path) is not None


def header_of(path: Path) -> dict[str, Any] | None:
    """The header of a file of `save_segmenter`, see `describe`; None for other files."""
    try:
        with safe_open(path, framework="pt") as file:
            header = parse_json((file.metadata() or {})[HEADER], str(path))
    except (SafetensorError, OSError, KeyError, ContsegError):
        return None
    return header if isinstance(header, dict) else None


def assemble(description: dict[str, Any], tensors: dict[str, Tensor], where: str) -> tuple[Segmenter, ClassTable]:
    """Make the segmenter of a description (see `describe`) and tensors, in eval mode; also returns its classes.

    Args:
        where: begins every error.

    Raises:
        ContsegError: the description lacks a key, or does not fit the tensors.
    """
    if not isinstance(description, dict):
        raise ContsegError(
            f"{where}: described by a {type(description).__name__}, not by {', '.join(KEYS)}; the file is damaged"
        )
    missing = [key for key in KEYS[:3] if key not in description]
    if missing:
        raise ContsegError(f"{where}: lacks '{missing[0]}'; a segmenter is described by {', '.join(KEYS)}")
    try:
        options = NetworkOptions.model_validate(description["network"])
        classes, widths = _TABLE.validate_python(description["classes"]), _WIDTHS.validate_python(description["widths"])
        _require_tensors(options, widths, tensors)
        segmenter = make_segmenter(options, widths)
        segmenter.load_state_dict(tensors)
    except ContsegError as error:
        raise ContsegError(f"{where}: cannot be read as a segmenter ({error}); the file is damaged") from None
    except ValidationError as error:
        raise ContsegError(
            f"{where}: cannot be read as a segmenter ({_line(error)}); was it written by another version of contseg?"
        ) from None
    except (TypeError, ValueError, RuntimeError, LookupError, ArithmeticError, AttributeError, MemoryError) as error:
        raise ContsegError(f"{where}: cannot be read as a segmenter ({_line(error)}); the file is damaged") from None
    outputs = sum(segmenter.widths) - options.unknown
    if len(classes) != outputs:
        raise ContsegError(f"{where}: cannot be read as a segmenter ({len(classes)} classes for {outputs} outputs)")
    return segmenter.eval(), classes


_TABLE = TypeAdapter(ClassTable)
_WIDTHS = TypeAdapter(list[Annotated[int, Field(ge=0)]])


def _require_tensors(options: NetworkOptions, widths: list[int], tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a network has other tensors than a file; it is made without memory, of which a header could
    claim any amount.
    """
    if len(widths) > len(tensors):
        raise ValueError(f"{len(widths)} steps for {len(tensors)} tensors")
    try:
        with torch.device("meta"):
            expected = make_segmenter(options, widths).state_dict()
    except RuntimeError as error:
        if "meta tensor" in str(error):
            return  # libraries whose networks read values while they are made
        raise
    for name, tensor in expected.items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            found = list(tensors[name].shape) if name in tensors else "missing"
            raise ValueError(f"{name} is {found}, and the header describes {list(tensor.shape)}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
