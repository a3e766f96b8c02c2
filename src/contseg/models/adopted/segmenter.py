"""Segmenters around networks of other libraries."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from contseg.data.classes import ClassTable
from contseg.errors import ContsegError, counted
from contseg.models.adopted.backbone import AdoptedBackbone
from contseg.models.adopted.libraries import recognised, strip
from contseg.models.adopted.options import ADOPTED, MODELS, AdoptedOptions
from contseg.models.adopted.slot import as_first_step, convolution_like, take_out
from contseg.models.classifier import GrowingClassifier
from contseg.models.from_features import FromFeatures
from contseg.models.names import Decision
from contseg.models.options import IMAGENET_MEAN, IMAGENET_STD, Colour, NetworkOptions, ReadoutOptions
from contseg.models.output import SegmenterOutput
from contseg.models.segmenter import Segmenter

PROBE = (128, 128)
"""Size of the image with which parameters without effect are found, in networks without a fixed size."""
DEFAULT_CLASSIFIER = "decode_head.classifier"


class AdoptedSegmenter(Segmenter):
    """A network of another library with a growing classifier in the place of its last convolution, see `adopt`.

    The first step of the classifier is the original convolution; later steps have the same kernel. Everything that the
    network does after it, such as resizing, happens to the outputs of all steps alike. Taps are `head`, the input of the
    convolution, and `logits`.

    Args:
        options: options of the network; the backbone is an `AdoptedOptions`.
        widths: outputs of each step so far.
        network: the network; default: made by its library from the options, without weights.
    """

    backbone: AdoptedBackbone

    def __init__(self, options: NetworkOptions, widths: Sequence[int], network: nn.Module | None = None):
        parts = options.backbone
        assert isinstance(parts, AdoptedOptions)
        super().__init__(options, widths, None if network is None else parts.around(network))
        last = self.backbone.last
        if options.readout is None and widths[0] in outputs_of(last):
            self.classifier.steps[0] = as_first_step(last, widths[0])
        self.backbone.fill(self.classifier)

    def use_readout(self, readout: ReadoutOptions, decision: Decision = "softmax") -> None:
        """See `Segmenter.use_readout`; the tap is `head`."""
        super().use_readout(readout, decision)
        self.backbone.fill(self.classifier)

    def _classifier(self, widths: list[int]) -> GrowingClassifier:
        if self.options.readout is not None:
            return super()._classifier(widths)
        make = convolution_like(self.backbone.last)
        return GrowingClassifier(self.head.width, widths, self.options.unknown, make=make)

    def forward(
        self, images_BCHW: Tensor | None, taps: Sequence[str] = (), start: FromFeatures | None = None
    ) -> SegmenterOutput:
        """Logits as the network resizes them, and the requested taps, see `Segmenter.forward`.

        Raises:
            ContsegError: an invalid tap, a start from features, or the output of the network is not that of its last
                convolution.
        """
        self._require(taps)
        if images_BCHW is None or start is not None:
            raise ContsegError(f"{self.options.title}: a network of another library cannot start from features; give images")
        decoded, logits = self.backbone.run(images_BCHW, self.widths)
        if logits.shape[1] != sum(self.widths):
            raise ContsegError(
                f"network.backbone.classifier: {', '.join(self.backbone.classifier)} has {sum(self.widths)} outputs,"
                f" and the network returns {logits.shape[1]}; name the convolution that computes the logits"
            )
        features = {"head": decoded, "logits": logits}
        return SegmenterOutput(logits, {tap: features[tap] for tap in taps})

    def freeze_unused(self, taps: Sequence[str]) -> None:
        """Freeze parameters without effect on the logits, which ranks would wait for, such as the last norm of a BEiT."""
        later = {id(parameter) for parameter in self.classifier.later.parameters()}  # no part of the logits, but learned
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad and id(parameter) not in later]
        modes = {module: module.training for module in self.modules()}
        with torch.enable_grad():
            logits = self.eval()(self.mean.new_zeros(1, 3, *(self.backbone.size or PROBE))).logits
            gradients = torch.autograd.grad(logits.sum(), trained, allow_unused=True) if trained else ()
        for module, mode in modes.items():
            module.training = mode
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)


def outputs_of(last: Sequence[nn.Conv2d]) -> tuple[int, ...]:
    """The possible numbers of outputs of a first step: those of the convolution; with a single one, background is added."""
    count = last[0].out_channels
    return (count,) if count > 1 else (2,)


def adopt(
    module: nn.Module,
    classes: ClassTable | Sequence[str],
    classifier: str | Sequence[str] | None = None,
    *,
    mean: Colour = IMAGENET_MEAN,
    std: Colour = IMAGENET_STD,
    size: tuple[int, int] | None = None,
    multiple: int | None = None,
    name: str | None = None,
) -> Segmenter:
    """Make a segmenter of a network of another library, whose logits come from a last convolution. The module is copied.

    Old logits are bit-equal to those of the module, also after `grow(n, "random")`. Methods that read only logits or the
    tap `head` can train it further.

    Args:
        module: images (B, 3, H, W) to logits (B, K, h, w): a tensor, the first of several, or under `logits` or `out`.
        classes: one per output of the module; with a single output, background and its class.
        classifier: dotted name of the last convolution, or names of two whose results are added; default: known for
            networks of transformers, smp and torchvision, else `decode_head.classifier`.
        mean, std: of RGB in [0, 1], with which the module was trained.
        size: height and width to which every image is resized, for a module of a fixed size.
        multiple: images are padded to sides that are multiples of it.
        name: the name of `register_model` under which the module can be made again; necessary to save the segmenter, except
            for networks of the three libraries.

    Raises:
        ContsegError: there is no such convolution (names those that there are), it does not have one output per class, or
            the name is not registered.

    Example:
        >>> import torch
        >>> module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1)).eval()
        >>> segmenter = adopt(module, ["background", "cat", "dog"], classifier="2").eval()
        >>> segmenter.grow(1, "random")
        >>> images = torch.rand(2, 3, 16, 16)
        >>> torch.equal(segmenter(images).logits[:, :3], module(images)), segmenter.taps
        (True, ('head', 'logits'))
    """
    known, module = recognised(module), copy.deepcopy(module)
    if name is not None:
        MODELS.check(name)
        known = {"library": name}
    elif known:
        strip(module)
    if classifier is not None:
        known["classifier"] = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    known |= {key: value for key, value in (("size", size), ("multiple", multiple)) if value is not None}
    names = list(classes.names if isinstance(classes, ClassTable) else classes)
    return segmenter_around(module, {"classifier": (DEFAULT_CLASSIFIER,)} | known, names, mean=mean, std=std)


def segmenter_around(module: nn.Module, backbone: dict[str, Any], classes: Sequence[str], **network: Any) -> Segmenter:
    """A segmenter that contains this very module, which is changed.

    Args:
        backbone: keys of `AdoptedOptions`.
        classes: one per output of the module.
        network: other keys of `NetworkOptions`, such as `mean`.

    Raises:
        ContsegError: see `adopt`.
    """
    last = take_out(module, backbone["classifier"])
    if len(classes) not in outputs_of(last):
        has = f"{', '.join(backbone['classifier'])} of {type(module).__name__} has {counted(last[0].out_channels, 'output')}"
        way = "name the class of every output, or another convolution"
        if last[0].out_channels == 1:
            way = "name the background and the class of the output"
        raise ContsegError(f"classifier: {has}, for {counted(len(classes), 'class name')}; {way}")
    parts = {
        "backbone": {"name": ADOPTED} | backbone,
        "head": {"name": ADOPTED, "width": sum(one.in_channels for one in last)},
    }
    return AdoptedSegmenter(NetworkOptions.model_validate(parts | network), [len(classes)], module)
