"""ImageNet weights for the backbone: torchvision's names, or those of the in-place-ABN networks."""

from pathlib import Path

from contseg.errors import ContsegError
from contseg.interop.checkpoint import read_tensors
from contseg.interop.published import convert_backbone
from contseg.models.resnet import ResNet


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
