"""Options of inference at evaluation. PyTorch is not imported, so that listing recipes is fast."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from contseg.options import Factor, Options, Pixels, Several

Two = Annotated[list[Pixels], Field(min_length=2, max_length=2)]
Box = Annotated[list[Annotated[int, Field(ge=1, lt=2**31)]], Field(min_length=2, max_length=2)]
"""The longer side may exceed every image, so that only the shorter one has an effect; memory is checked per image."""


class InferenceOptions(Options):
    """Whole images or windows, scales, and averaging of inference. The default is a single view of the whole image.

    Attributes:
        mode: `whole`, `slide` over windows, or `along` (EoMT): the image is resized so that its shorter side is that of the
            window, which is square, and windows follow each other along the longer side with the least overlap.
        crop: height and width of the window in pixels, or one number for both; reduced to the image's size if that is
            smaller.
        stride: vertical and horizontal stride in pixels, or one number for both; default: two thirds of the window.
        windows: windows per forward pass.
        scales: factors by which the image is resized; one view each.
        flip: whether to add mirrored views; left and right classes are exchanged (LIP).
        average: what is averaged over windows and views: `logits`, or the `scores` of the decision (probabilities).
        fit: longer and shorter side of the box into which the image is first resized (bilinear), keeping its aspect;
            default: not resized.
        resize: height and width to which the image is first resized, not keeping its aspect; default: not resized.
        antialias: whether `fit` and `resize` are antialiased, as in transformers.
        precision: `32`, or `bf16` for the network; averages are in float32.
        undecided: what pixels are that a network of masks gives to no class: a `miss`, or `ignored`, as the released code of
            SimCIS counts; then the mIoU is that of the decided pixels only.
    """

    mode: Literal["whole", "slide", "along"] = "whole"
    crop: Pixels | Two = 512
    stride: Pixels | Two | None = None
    windows: Several = 4
    scales: Annotated[list[Factor], Field(min_length=1)] = Field([1.0])
    flip: bool = False
    average: Literal["logits", "scores"] = "logits"
    fit: Box | None = None
    resize: Two | None = None
    antialias: bool = False
    precision: Literal["32", "bf16"] = "32"
    undecided: Literal["miss", "ignored"] = "miss"

    @field_validator("precision", mode="before")
    @classmethod
    def _number_as_word(cls, value: Any) -> Any:
        return "32" if value == 32 else value

    @field_validator("crop")
    @classmethod
    def _square_along(cls, value: int | list[int], info: ValidationInfo) -> int | list[int]:
        height, width = _pair(value)
        if info.data.get("mode") == "along" and height != width:
            raise ValueError(f"mode along has square windows (got {height} x {width}); set one number")
        return value

    @field_validator("stride")
    @classmethod
    def _no_gaps(cls, value: int | list[int] | None, info: ValidationInfo) -> int | list[int] | None:
        if value is not None and "crop" in info.data:
            for step, side in zip(_pair(value), _pair(info.data["crop"]), strict=True):
                if step > side:
                    raise ValueError(f"a stride of {step} leaves gaps between windows of {side}; at most {side}")
        return value

    @field_validator("resize")
    @classmethod
    def _one_resize(cls, value: list[int] | None, info: ValidationInfo) -> list[int] | None:
        if value is not None and info.data.get("fit") is not None:
            raise ValueError(f"resize {value} and fit {info.data['fit']} exclude each other; remove one")
        return value

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of the window."""
        return _pair(self.crop)

    @property
    def strides(self) -> tuple[int, int]:
        """Vertical and horizontal stride.

        Example:
            >>> InferenceOptions(crop=[640, 473]).strides
            (426, 315)
        """
        if self.stride is not None:
            return _pair(self.stride)
        height, width = self.window
        return max(1, 2 * height // 3), max(1, 2 * width // 3)

    @property
    def resizes(self) -> bool:
        """Whether the image is resized before inference."""
        return any(scale != 1 for scale in self.scales) or self.fit is not None or self.resize is not None

    @property
    def single_view(self) -> bool:
        """Whether there is one view of the whole image, so that the images of a batch pass through the network together."""
        return self.mode == "whole" and len(self.scales) == 1 and not self.flip

    def single(self) -> "InferenceOptions":
        """The same at scale 1 and not mirrored, for frequent evaluation."""
        return self.model_copy(update={"scales": [1.0], "flip": False})


def _pair(value: int | list[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
