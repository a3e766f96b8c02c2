"""ImageNet weights for the backbone: torchvision's names, or those of the in-place-ABN networks."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from contseg.errors import ContsegError
from contseg.interop.published import convert_backbone
from contseg.models.resnet import ResNet


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file (.safetensors, or a PyTorch file read without executing anything).

    A dictionary that holds the weights under `state_dict`, `model_state`, `segmentor` or `model` is opened, and a
    `module.` in front of every name is dropped.

    Raises:
        ContsegError: the file is missing, damaged, or holds something that would have to be executed.
    """
    if not path.is_file():
        raise ContsegError(f"{path}: weights file not found")
    try:
        content = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
        )
    except SafetensorError as error:
        raise ContsegError(f"{path}: cannot be read as safetensors ({error})") from None
    except Exception as error:  # torch raises many kinds: damaged archives, refused pickles
        reason = str(error).splitlines()[0][:160]
        raise ContsegError(f"{path}: cannot be read as plain weights ({reason})") from None
    for key in ("state_dict", "model_state", "segmentor", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ContsegError(f"{path}: holds a {type(content).__name__}; expected a dictionary of tensors")
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def load_backbone(backbone: ResNet, path: Path) -> None:
    """Put ImageNet weights into a backbone; its classification layer is dropped, everything else must fit.

    Raises:
        ContsegError: the file cannot be read, or its tensors do not fit (which are missing, unexpected, mis-shaped).
    """
    found = convert_backbone(read_tensors(path))
    found = {name: value for name, value in found.items() if not name.startswith(("fc.", "classifier."))}
    own = backbone.state_dict()
    for name in own:
        if name.endswith("num_batches_tracked"):
            found.setdefault(name, own[name])
    missing, unexpected = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    shapes = sorted(name for name in own.keys() & found.keys() if own[name].shape != found[name].shape)
    for problem, names in (("misses", missing), ("has unexpected", unexpected), ("has other shapes for", shapes)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ContsegError(
                f"{path}: {problem} {', '.join(names[:3])}{more}; is it a {len(own)}-tensor ResNet of this depth?"
            )
    backbone.load_state_dict(found)
