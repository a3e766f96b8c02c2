"""Describe a file that is not a segmenter of contseg, and how to use it."""

from pathlib import Path

from contseg.errors import ContsegError
from contseg.interop.checkpoint import read_tensors
from contseg.interop.convert import recognise
from contseg.interop.names import RESNET_NAMES, prefixes_of, unwrapped

LOOKED_FOR = (
    "a run (recipe.yaml), a segmenter (segmenter.json, or a file segmenter.safetensors), a folder of transformers or smp"
    " (config.json and model.safetensors), or a state dict of torchvision"
)
"""What a model may be; for errors."""


def is_safetensors(path: Path) -> bool:
    """Whether a file begins like a safetensors file: eight bytes with a length, then the brace of the header."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def describe(path: Path) -> str:
    """The end of an error on a file that is not a segmenter of contseg: what it contains, and what to do.

    Example:
        >>> import tempfile, torch
        >>> from contseg.models.backbones.resnet import ResNet
        >>> path = Path(tempfile.mkdtemp()) / "weights.pth"
        >>> torch.save(ResNet("resnet18", width=4).state_dict(), path)
        >>> describe(path)
        'it contains the weights of a backbone only; start step 0 from them with backbone_weights=FILE'
    """
    try:
        tensors = read_tensors(path)
    except ContsegError as error:
        return f"it is neither a segmenter nor a checkpoint that can be read: {str(error).removeprefix(f'{path}: ')}"
    try:
        source = recognise(unwrapped(tensors))
    except ContsegError:
        if prefixes_of(tensors, RESNET_NAMES):
            return "it contains the weights of a backbone only; start step 0 from them with backbone_weights=FILE"
        names = ", ".join(list(tensors)[:2])
        return f"it contains {len(tensors)} tensors such as {names}, of no supported code base; give {LOOKED_FOR}"
    return (
        f"it is a checkpoint of {source}; turn it into a segmenter with contseg convert {path} --classes NAMES --out FOLDER"
    )
