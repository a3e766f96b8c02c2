"""Swin of the IDRNet toolbox: convert its names and its order of merged tokens to ours (Microsoft's)."""

import math
import re
from typing import Any

from torch import Tensor

from contseg.errors import ContsegError
from contseg.interop.names import renamed
from contseg.models.names import VARIANTS

DROP_PATH = 0.3
"""Stochastic depth of the published configurations."""
SWIN_NAMES = (
    (r"^backbone\.patch_embed\.projection\.", "backbone.patch_embed.proj."),
    (r"^backbone\.stages\.", "backbone.layers."),
    (r"^(backbone\.layers\..*)\.attn\.w_msa\.", r"\1.attn."),
    (r"^(backbone\.layers\..*)\.ffn\.layers\.0\.0\.", r"\1.mlp.fc1."),
    (r"^(backbone\.layers\..*)\.ffn\.layers\.1\.", r"\1.mlp.fc2."),
)
MERGED = re.compile(r"backbone\.layers\.\d\.downsample\.(norm|reduction)\.")


def swin_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a segmenter, with those of its Swin under our names; `backbone_net.` is already renamed to `backbone.`.

    When four tokens are merged, the toolbox groups values by channel and lists the tokens by row. We group them by token and
    list the tokens by column. Indices that follow from the window size are dropped.

    Example:
        >>> import torch
        >>> name, norm = "backbone.stages.0.downsample.norm.weight", torch.arange(8)  # two channels
        >>> swin_tensors({name: norm})
        {'backbone.layers.0.downsample.norm.weight': tensor([0, 4, 2, 6, 1, 5, 3, 7])}
    """
    found = {renamed(name, SWIN_NAMES): value for name, value in tensors.items()}
    return {
        name: _reordered(value) if MERGED.match(name) else value
        for name, value in found.items()
        if not name.endswith(".relative_position_index")
    }


def _reordered(values: Tensor) -> Tensor:
    """(..., C 4) in the toolbox's order to (..., 4 C) in ours."""
    four = values.unflatten(-1, (-1, 4))[..., [0, 2, 1, 3]]
    return four.transpose(-1, -2).flatten(-2).contiguous()


def swin_options(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The options of the Swin backbone in a file of the toolbox.

    Raises:
        ContsegError: an unknown Swin.
    """
    width = int(tensors["backbone_net.patch_embed.projection.weight"].shape[0])
    count = re.compile(r"backbone_net\.stages\.(\d)\.blocks\.\d+\.norm1\.weight")
    stages = [int(found[1]) for name in tensors if (found := count.fullmatch(name))]
    depths = tuple(stages.count(stage) for stage in range(4))
    for name, about in VARIANTS.items():
        if (about["embed_dim"], about["depths"]) == (width, depths):
            rows = len(tensors["backbone_net.stages.0.blocks.0.attn.w_msa.relative_position_bias_table"])
            window = (math.isqrt(rows) + 1) // 2
            return {"name": name, "drop_path": DROP_PATH} | ({} if window == about["window"] else {"window": window})
    raise ContsegError(f"weights: Swin of width {width} and depths {depths}; supported: {', '.join(VARIANTS)}")
