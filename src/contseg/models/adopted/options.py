"""Options of a network of another library. PyTorch is not imported, so that lists of recipes are fast."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from contseg.errors import ContsegError
from contseg.models.backbones.options import BackboneOptions
from contseg.models.heads.options import HeadInput, HeadOptions
from contseg.options import Pixels, ShareAboveZero
from contseg.plugins import Registry

if TYPE_CHECKING:
    from torch import nn

    from contseg.models.adopted.backbone import AdoptedBackbone
    from contseg.models.heads.head import Head

ADOPTED = "adopted"
"""The name of backbone and head of an adopted network in `network`."""

Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Size = Annotated[tuple[Pixels, Pixels], Field(strict=False)]


class AdoptedOptions(BackboneOptions):
    """A whole network of another library, without its last convolution, see `contseg.adopt`.

    Attributes:
        library: `transformers`, `smp`, `torchvision`, or a name of `register_model`; empty for a module in memory, which
            cannot be saved.
        architecture: class or function of the library.
        config: the arguments from which the library makes the network, as values that JSON supports.
        classifier: dotted names of the last convolutions; the results of several are added.
        size: height and width to which every image is resized, for networks of a fixed size.
        multiple: images are padded to sides that are multiples of it.
        norm_momentum: of batch norms; default: those of the network.
    """

    name: Literal["adopted"] = "adopted"
    library: str = ""
    architecture: str = ""
    config: dict[str, Any] = Field({})
    classifier: Names
    size: Size | None = None
    multiple: Pixels = 1
    norm_momentum: ShareAboveZero | None = None  # type: ignore[assignment]

    @property
    def title(self) -> str:
        """The network in words, for messages."""
        return f"{self.architecture} of {self.library}" if self.architecture else self.library or "a module in memory"

    @property
    def taps(self) -> tuple[str, ...]:
        """None: the network is not divided into stages."""
        return ()

    @property
    def stride(self) -> int:
        """1: images of any size are accepted."""
        return 1

    def make(self) -> "AdoptedBackbone":
        """The network, built by its library without weights and without network access.

        Raises:
            ContsegError: the library is not installed, or cannot make the network of these options.
        """
        from contseg.models.adopted.libraries import KNOWN, make_module
        from contseg.models.normalization import set_momentum

        if self.library in KNOWN:
            network = make_module(self.library, self.architecture, self.config)
        else:
            network = MODELS[self.library]()
        backbone = self.around(network)
        if self.norm_momentum is not None:
            set_momentum(backbone, self.norm_momentum)
        return backbone

    def around(self, network: "nn.Module") -> "AdoptedBackbone":
        """The backbone that contains this very network.

        Raises:
            ContsegError: see `AdoptedBackbone`.
        """
        from contseg.models.adopted.backbone import AdoptedBackbone

        return AdoptedBackbone(network, self.classifier, self.size, self.multiple)


class AdoptedHeadOptions(HeadOptions):
    """No head of its own: the head of an adopted network is part of the network.

    Attributes:
        width: channels of the input of the last convolution.
    """

    name: Literal["adopted"] = "adopted"

    def make(self, below: HeadInput) -> "Head":
        """A head that is not called."""
        from contseg.models.heads.head import Head

        head = Head()
        head.uses, head.width = (), below.channels[-1]
        return head


def _require_callable(make: Any) -> None:
    if not callable(make):
        raise ContsegError(f"{make!r}: a model is registered by a function that makes it without weights")


MODELS: Registry[Callable[[], "nn.Module"]] = Registry("models", "network.backbone.library", {}, _require_callable)
"""Functions that make networks of one's own without weights, so that adopted ones can be saved and loaded."""
register_model = MODELS.register
