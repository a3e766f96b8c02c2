"""A growing classifier of class tokens, which look at the patches of the image together (Segmenter, MBS)."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from contseg.errors import ContsegError
from contseg.models.classifier import GrowingClassifier, Start
from contseg.models.transformer import TransformerBlock, initialise_transformer
from contseg.precision import precise

EPSILON = 1e-5


class TokenClassifier(GrowingClassifier):
    """Logits as cosines between the patches of an image and a token per class (Segmenter: Strudel et al., ICCV 2021; MBS).

    The features of the patches and the tokens of all classes are one sequence, in which all attend to all. Projections of
    both are compared by cosine, and the cosines of a patch are normalised over the classes, see `mask_norm`.

    Because of this norm and of the attention, a new class changes the logits of all others: there is no way to grow that
    keeps old logits equal.

    Args:
        channels: channels of the features and of a token.
        widths: outputs of each step; background is the first output.
        depth: blocks.
        heads: of the attention.
        drop_path: probability that the last block is skipped for an image in training; earlier ones linearly less.

    Raises:
        ContsegError: a single class, whose norm over the classes is undefined.

    Example:
        >>> classifier = TokenClassifier(8, [3])
        >>> classifier.grow(2, "background")
        >>> logits, features = classifier.run(torch.ones(1, 8, 4, 5), ("patches", "classes", "tokens"))
        >>> logits.shape, [tuple(feature.shape) for feature in features.values()]
        (torch.Size([1, 5, 4, 5]), [(1, 8, 4, 5), (1, 5, 8), (1, 5, 8)])
    """

    taps = ("patches", "classes", "tokens", "patch_logits")

    def __init__(self, channels: int, widths: list[int], depth: int = 2, heads: int = 1, drop_path: float = 0.1):
        if sum(widths) < 2:
            raise ContsegError(
                "network.head: mask-transformer normalises over the classes, and there is one; add background or a class"
            )
        super().__init__(channels, widths)
        chances = [drop_path * number / max(depth - 1, 1) for number in range(depth)]
        self.blocks = nn.ModuleList(TransformerBlock(channels, heads, chance) for chance in chances)
        self.norm = nn.LayerNorm(channels)
        initialise_transformer(self)
        self.patch_projection, self.class_projection = (nn.Linear(channels, channels, bias=False) for _ in range(2))
        for projection in (self.patch_projection, self.class_projection):
            nn.init.normal_(projection.weight, std=channels**-0.5)

    def _make(self, width: int) -> nn.Module:
        return ClassTokens(width, self.channels)

    @property
    def widths(self) -> list[int]:
        """Outputs of each step."""
        return [len(step.get_parameter("tokens")) for step in self.steps]

    @property
    def tokens(self) -> Tensor:
        """The learned tokens of all classes, (K, channels)."""
        return self._all("tokens")

    def _all(self, name: str) -> Tensor:
        return torch.cat([step.get_parameter(name) for step in self.steps])

    def forward(self, features_BCHW: Tensor, steps: slice = slice(None)) -> Tensor:
        """(B, channels, H, W) to (B, sum of widths, H, W); all classes are computed, as they see each other.

        Args:
            steps: steps whose outputs to return.
        """
        return self._chosen(self.run(features_BCHW, ())[0], steps)

    def _chosen(self, logits_BKHW: Tensor, steps: slice) -> Tensor:
        return torch.cat(list(logits_BKHW.split(self.widths, dim=1))[steps], dim=1) if steps != slice(None) else logits_BKHW

    def run(self, features_BCHW: Tensor, taps: Collection[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits (B, K, H, W) and features: `patches` (B, channels, H, W) and `classes` (B, K, channels), projected and not
        normalised; `tokens` (B, K, channels), the learned ones; `patch_logits`, the logits.
        """
        grid, tokens = features_BCHW.shape[2:], self.tokens.expand(features_BCHW.shape[0], -1, -1)
        x_BNC = torch.cat([features_BCHW.flatten(2).transpose(1, 2), tokens], dim=1)
        for block in self.blocks:
            x_BNC = block(x_BNC)
        x_BNC, count = self.norm(x_BNC), tokens.shape[1]
        patches, classes = self.patch_projection(x_BNC[:, :-count]), self.class_projection(x_BNC[:, -count:])
        with torch.autocast(features_BCHW.device.type, enabled=False):
            unit_BNC, unit_BKC = (functional.normalize(precise(each), dim=2) for each in (patches, classes))
            scores = mask_norm(unit_BNC @ unit_BKC.transpose(1, 2), self._all("gain"), self._all("shift"))
        logits = scores.transpose(1, 2).unflatten(2, grid)
        features = {
            "patches": patches.transpose(1, 2).unflatten(2, grid),
            "classes": classes,
            "tokens": tokens,
            "patch_logits": logits,
        }
        return logits, {name: value for name, value in features.items() if name in taps}

    def of_vectors(self, features_NC: Tensor, steps: slice = slice(None)) -> Tensor:
        """Not possible.

        Raises:
            ContsegError: always; a patch has logits within its image only.
        """
        raise ContsegError("classifier: its class tokens see a whole image, so it cannot be applied to single vectors")

    def reserve(self, widths: Sequence[int]) -> None:
        """Only `[]`, which changes nothing.

        Raises:
            ContsegError: classes of later steps, which would be seen by those of this step.
        """
        if widths:
            raise ContsegError("classifier: its class tokens see each other, so none can be reserved for later steps")

    @torch.no_grad()
    def grow(self, count: int, start: Start) -> None:
        """Add `count` outputs, with tokens at `random` or as copies of that of `background`, and gains 1 and shifts 0.

        Every start changes the old logits, which are normalised over all classes. A copy of the token of background has its
        logit except for gain and shift; several copies learn differently through their labels alone.

        Raises:
            ContsegError: another start.
        """
        if start not in ("background", "random"):
            raise ContsegError(f"grow: cannot start new classes from '{start}'; this network has background and random")
        new = self._make(count).to(self.tokens)
        if start == "background":
            new.get_parameter("tokens").copy_(self.tokens[:1].expand(count, -1))
        self.steps.append(new)


class ClassTokens(nn.Module):
    """The tokens of the classes of a step, and gain and shift of their logits.

    Args:
        count: classes.
        channels: of a token.
    """

    def __init__(self, count: int, channels: int):
        super().__init__()
        self.tokens = nn.Parameter(nn.init.trunc_normal_(torch.empty(count, channels), std=0.02))
        self.gain = nn.Parameter(torch.ones(count))
        self.shift = nn.Parameter(torch.zeros(count))


def mask_norm(scores_BNK: Tensor, gain_K: Tensor, shift_K: Tensor) -> Tensor:
    """Scores of each position, normalised over the classes: (s - mean) / (std + 1e-5) gain + shift, std without bias.

    Example:
        >>> mask_norm(torch.tensor([[[0.0, 1.0, 2.0]]]), torch.ones(3), torch.zeros(3)).round(decimals=3)
        tensor([[[-1.,  0.,  1.]]])
    """
    centred = scores_BNK - scores_BNK.mean(dim=2, keepdim=True)
    return centred / (scores_BNK.std(dim=2, keepdim=True) + EPSILON) * gain_K + shift_K
