"""A segmenter as one file: safetensors, with network, classes and source in the header. Loading executes nothing."""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from contseg.atomic import atomic_file
from contseg.data.classes import ClassTable
from contseg.errors import ContsegError
from contseg.interop import foreign
from contseg.models.adopted.options import AdoptedOptions
from contseg.models.make import make_segmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

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
    require_makeable(segmenter)
    path, header = Path(path), describe(segmenter, classes, source)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in segmenter.state_dict().items()}
    with atomic_file(path) as partial:
        save_file(tensors, partial, metadata={HEADER: json.dumps(header)})


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
        },
        "source": source or {},
    }


def load_segmenter(path: Path | str, device: str = "cpu") -> tuple[Segmenter, ClassTable]:
    """Read a segmenter and its classes (in output order), in eval mode.

    Args:
        device: `cpu`, or `meta` to check the file and read its network and classes without loading the weights.

    Raises:
        ContsegError: the file is missing or truncated, is not a segmenter (with what to do), or its tensors do not fit its
            header.
    """
    path = Path(path)
    if not path.is_file():
        folder = "; this is a folder, which load_pretrained reads" if path.is_dir() else ""
        raise ContsegError(f"{path}: segmenter file not found{folder}")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
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
            return json.loads((file.metadata() or {})[HEADER])
    except (SafetensorError, OSError, KeyError, ValueError):
        return None


def assemble(description: dict[str, Any], tensors: dict[str, Tensor], where: str) -> tuple[Segmenter, ClassTable]:
    """Make the segmenter of a description (see `describe`) and tensors, in eval mode; also returns its classes.

    Args:
        where: begins every error.

    Raises:
        ContsegError: the description lacks a key, or does not fit the tensors.
    """
    missing = [key for key in KEYS[:3] if key not in description]
    if missing:
        raise ContsegError(f"{where}: lacks '{missing[0]}'; a segmenter is described by {', '.join(KEYS)}")
    try:
        options = NetworkOptions.model_validate(description["network"])
        classes = _table(description["classes"])
        segmenter = make_segmenter(options, description["widths"])
        segmenter.load_state_dict(tensors)
    except ContsegError as error:
        raise ContsegError(f"{where}: cannot be read as a segmenter ({error}); the file is damaged") from None
    except KeyError as error:
        raise ContsegError(f"{where}: cannot be read as a segmenter (classes lack {error}); the file is damaged") from None
    except ValidationError as error:
        raise ContsegError(
            f"{where}: cannot be read as a segmenter ({_line(error)}); was it written by another version of contseg?"
        ) from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise ContsegError(f"{where}: cannot be read as a segmenter ({_line(error)}); the file is damaged") from None
    outputs = sum(segmenter.widths) - options.unknown
    if len(classes) != outputs:
        raise ContsegError(f"{where}: cannot be read as a segmenter ({len(classes)} classes for {outputs} outputs)")
    return segmenter.eval(), classes


def _table(saved: dict[str, Any]) -> ClassTable:
    colours = tuple((red, green, blue) for red, green, blue in saved["colours"])
    void = tuple(saved.get("void", ()))  # older files do not have it
    return ClassTable(tuple(saved["names"]), tuple(saved["ids"]), colours, saved["background"], void)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
