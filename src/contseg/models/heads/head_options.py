"""What the options of every head have."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from contseg.models.heads.idrnet.options import IDRNetOptions
from contseg.models.names import Initialisation
from contseg.models.parts import PartOptions
from contseg.options import Channels

if TYPE_CHECKING:
    from contseg.models.classifier import GrowingClassifier
    from contseg.models.heads.head import Head


@dataclass(frozen=True)
class HeadInput:
    """Properties of the network that a head is made for.

    Args:
        channels: channels of the backbone's stages.
        widths: outputs of each step so far.
        output_stride: output stride from which the head derives its dilations.
        slope: slope of the backbone's leaky ReLU.
        unknown: as of `GrowingClassifier`.
    """

    channels: list[int]
    widths: list[int]
    output_stride: int = 16
    slope: float = 0.01
    unknown: bool = False


class HeadOptions(PartOptions):
    """Options of every head. A subclass overrides `make`.

    Class attributes:
        taps: names of the head's own features.
        hidden: whether each step's classifier has its own convolution, norm and ReLU.
        masks: whether it predicts masks and their classes, not a class for each pixel.
        tokens: whether classes are tokens that see each other, so that a classifier needs all of them.

    Attributes:
        width: channels of the output.
        initialisation: of the convolutions without loaded weights; default: that of the publications (`deeplabv3-mib`
            `xavier`, `deeplabv3-ssul` `he`, the others `torch`).
    """

    taps: ClassVar[tuple[str, ...]] = ()
    hidden: ClassVar[bool] = False
    masks: ClassVar[bool] = False
    tokens: ClassVar[bool] = False

    width: Channels = 256
    initialisation: Initialisation | None = None

    @property
    def refinement(self) -> IDRNetOptions | None:
        """IDRNet over this head, or None."""
        return None

    @property
    def available(self) -> tuple[str, ...]:
        """Those of `taps` that these options have."""
        return self.taps

    def make(self, below: HeadInput) -> "Head":
        """Make the untrained head."""
        raise TypeError(f"{type(self).__name__} has no make; heads override it")

    def make_classifier(self, channels: int, widths: list[int], unknown: bool) -> "GrowingClassifier":
        """Make the untrained classifier of the logits; arguments as of `GrowingClassifier`."""
        from contseg.models.classifier import GrowingClassifier

        return GrowingClassifier(channels, widths, unknown, self.hidden)
