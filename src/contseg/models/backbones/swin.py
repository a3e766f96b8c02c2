"""Swin transformers (Liu et al., ICCV 2021) as feature pyramids, for images of any size."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contseg.models.backbones.backbone import Backbone
from contseg.models.layers import DropPath, padding_to
from contseg.models.names import Freeze

PATCH = 4
BETWEEN_REGIONS = -100.0


class Swin(Backbone):
    """Swin with a norm on every stage's output.

    Patches of 4 x 4 pixels; pairs of blocks that attend within windows, the second of each pair with the windows shifted
    by half; between stages the tokens of each 2 x 2 neighbourhood are merged. Sizes that do not fit are padded at the
    bottom and the right with zeros: images to a multiple of 4, normed tokens to a multiple of the window (they take part
    in the attention), maps to an even size before merging. The windows are never shrunk, and are shifted even where one
    covers the whole map, as in the networks published with IDRNet (timm differs in both). Parameters have the names of
    Microsoft's checkpoints, and `norm0` ... `norm3` for the outputs.

    Args:
        embed_dim: channels of the first stage; each further stage has twice as many.
        depths: blocks of each stage.
        heads: of each stage.
        window: side of the windows, in tokens.
        mlp_ratio: hidden channels of a block's two-layer network, relative to its channels.
        drop_path: probability that the last block is skipped for an image in training; earlier ones linearly less.

    Returns (forward):
        four maps (B, embed_dim * 2**i, ceil(H / 2**(i + 2)), ceil(W / 2**(i + 2))).

    Example:
        >>> swin = Swin(embed_dim=8, depths=(1, 1, 2, 1), heads=(1, 2, 2, 4), window=4)
        >>> [tuple(stage.shape[1:]) for stage in swin(torch.zeros(1, 3, 65, 81))]
        [(8, 17, 21), (16, 9, 11), (32, 5, 6), (64, 3, 3)]
    """

    def __init__(
        self,
        embed_dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        heads: tuple[int, ...] = (3, 6, 12, 24),
        window: int = 7,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.patch_embed = PatchEmbedding(embed_dim)
        self.channels = [embed_dim * 2**stage for stage in range(4)]
        chances = [drop_path * number / max(sum(depths) - 1, 1) for number in range(sum(depths))]
        stages = []
        for stage, (channels, depth, count) in enumerate(zip(self.channels, depths, heads, strict=True)):
            drops, chances = chances[:depth], chances[depth:]
            stages.append(Stage(channels, drops, count, window, mlp_ratio, merges=stage < 3))
            self.add_module(f"norm{stage}", nn.LayerNorm(channels))
        self.layers = nn.ModuleList(stages)

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """Four maps, see the class."""
        x = self.patch_embed(images_BCHW)
        maps = []
        for number, stage in enumerate(self._layers()):
            for block in stage.blocks:
                x = block(x)
            maps.append(self.get_submodule(f"norm{number}")(x).permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None:
                x = stage.downsample(x)
        return maps

    @torch.no_grad()
    def initialise(self) -> None:
        """Truncated normal weights (standard deviation 0.02) and zero biases, for training without published weights."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, WindowAttention):
                nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)

    def stages(self) -> list[list[nn.Module]]:
        """The modules of each stage: the first includes the patch embedding, the others the merging before them."""
        before = [self.patch_embed, *(stage.downsample for stage in self._layers()[:3])]
        return [[entry, stage.blocks] for entry, stage in zip(before, self._layers(), strict=True) if entry is not None]

    def _layers(self) -> list["Stage"]:
        return [stage for stage in self.layers if isinstance(stage, Stage)]

    def output_layers(self) -> list[nn.Module]:
        """The norm on the output of each stage."""
        return [self.get_submodule(f"norm{stage}") for stage in range(4)]

    def parts(self, freeze: Freeze) -> list[nn.Module]:
        """The modules that `freeze` selects; `all` includes the norms on the outputs."""
        return super().parts(freeze) + (self.output_layers() if freeze == "all" else [])


class PatchEmbedding(nn.Module):
    """Images (B, 3, H, W) to normed tokens (B, ceil(H / 4), ceil(W / 4), C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.proj = nn.Conv2d(3, channels, PATCH, PATCH)
        self.norm = nn.LayerNorm(channels)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """See the class."""
        height, width = images_BCHW.shape[2:]
        padded = functional.pad(images_BCHW, (0, padding_to(PATCH, width), 0, padding_to(PATCH, height)))
        return self.norm(self.proj(padded).permute(0, 2, 3, 1))


class Stage(nn.Module):
    """The blocks of one size, every second one with shifted windows, and the merging after them."""

    def __init__(self, channels: int, drops: list[float], heads: int, window: int, mlp_ratio: float, merges: bool):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(channels, heads, window, window // 2 if number % 2 else 0, mlp_ratio, drop)
            for number, drop in enumerate(drops)
        )
        self.downsample = Merging(channels) if merges else None


class Merging(nn.Module):
    """Concatenate 2 x 2 neighbourhoods, (0,0), (1,0), (0,1), (1,1) as (row, column), norm, and reduce 4C to 2C."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), 2C)."""
        x = functional.pad(x_BHWC, (0, 0, 0, padding_to(2, x_BHWC.shape[2]), 0, padding_to(2, x_BHWC.shape[1])))
        four = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(four, dim=-1)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + network(norm(x)); (B, H, W, C) to the same."""

    def __init__(self, channels: int, heads: int, window: int, shift: int, mlp_ratio: float, drop: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window, shift)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))
        self.drop_path = DropPath(drop)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """See the class."""
        x = x_BHWC + self.drop_path(self.attn(self.norm1(x_BHWC)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same."""
        return self.fc2(functional.gelu(self.fc1(x)))


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learned bias for every offset of two tokens.

    Args:
        channels: of the tokens, a multiple of `heads`.
        window: side in tokens.
        shift: tokens by which the windows are shifted right and down.
    """

    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int, window: int, shift: int):
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        row, column = (
            torch.arange(window * window).div(window, rounding_mode="floor"),
            torch.arange(window * window) % window,
        )
        rows, columns = (place[:, None] - place[None] + window - 1 for place in (row, column))
        self.register_buffer("relative_position_index", rows * (2 * window - 1) + columns, persistent=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """(B, H, W, C), normed, to the same; padded within, so any H and W."""
        batch, height, width, channels = x_BHWC.shape
        side = self.window
        x = functional.pad(x_BHWC, (0, 0, 0, padding_to(side, width), 0, padding_to(side, height)))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        x = x.view(batch, rows, side, columns, side, channels).transpose(2, 3).reshape(-1, side * side, channels)
        q, k, v = self.qkv(x).view(x.shape[0], side * side, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = self._bias(rows, columns).to(q.dtype)  # (1 or windows, heads, tokens, tokens)
        x = functional.scaled_dot_product_attention(q, k, v, bias.repeat(batch, 1, 1, 1) if self.shift else bias)
        x = self.proj(x.transpose(1, 2).reshape(-1, side * side, channels))
        x = x.view(batch, rows, columns, side, side, channels).transpose(2, 3)
        x = x.reshape(batch, rows * side, columns * side, channels)
        if self.shift:
            x = x.roll((self.shift, self.shift), dims=(1, 2))
        return x[:, :height, :width]

    def _bias(self, rows: int, columns: int) -> Tensor:
        """The bias of the scaled products: by offset, and -100 between tokens that are only adjacent by the roll."""
        tokens = self.window**2
        table = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        bias = table.view(1, tokens, tokens, self.heads).permute(0, 3, 1, 2)
        if not self.shift:
            return bias
        device = bias.device
        down, across = (_bands(count * self.window, self.window, self.shift, device) for count in (rows, columns))
        regions = (3 * down[:, None] + across[None]).view(rows, self.window, columns, self.window)
        regions = regions.transpose(1, 2).reshape(-1, tokens)
        apart = regions[:, None, :, None] != regions[:, None, None, :]
        return bias + apart * BETWEEN_REGIONS


def _bands(length: int, window: int, shift: int, device: torch.device) -> Tensor:
    """0 up to the last window, 1 for its part that stays, 2 for the part rolled in from the other side; (length,)."""
    place = torch.arange(length, device=device)
    return (place >= length - window).long() + (place >= length - shift).long()
