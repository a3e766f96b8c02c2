"""The auxiliary head on the third stage, in training only."""

from torch import Tensor, nn

from contseg.models.classifier import GrowingClassifier, Start
from contseg.models.layers import conv_norm_act


class AuxiliaryHead(nn.Module):
    """A 3x3 convolution, channel dropout and a classifier that grows, on the backbone's third stage.

    Args:
        channels: channels of the third stage.
        width: channels of the convolution.
        widths: outputs of each step.
        dropout: probability that a channel is dropped.
        unknown: as of `GrowingClassifier`.
        weight: weight of its supervised term in the objective.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        widths: list[int],
        dropout: float = 0.1,
        unknown: bool = False,
        weight: float = 0.4,
    ):
        super().__init__()
        self.convolution = conv_norm_act(channels, width, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = GrowingClassifier(width, widths, unknown)
        self.weight = weight

    def forward(self, stage3_BCHW: Tensor) -> Tensor:
        """(B, channels, H, W) to logits (B, K, H, W)."""
        return self.classify(self.convolution(stage3_BCHW))

    def classify(self, features_BCHW: Tensor) -> Tensor:
        """The result of the convolution to logits."""
        return self.classifier(self.dropout(features_BCHW))

    def grow(self, count: int, start: Start) -> None:
        """Add outputs, see `GrowingClassifier.grow`."""
        self.classifier.grow(count, start)
