"""Options of the heads of vision transformers."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from contseg.models.heads.head_options import HeadInput, HeadOptions
from contseg.options import Channels, Depth, Share, ShareBelowOne

if TYPE_CHECKING:
    from contseg.models.classifier import GrowingClassifier
    from contseg.models.heads.head import Head

MaskDecision = Literal["einsum", "owner", "owner-simcis"]
Span = Annotated[tuple[Share, Share], Field(strict=False)]


class EoMTOptions(HeadOptions):
    """Queries in the last blocks of a plain ViT, which predict masks and their classes, see `contseg.models.eomt`.

    Attributes:
        width, initialisation: always 0 and none: those of the ViT and of PyTorch.
        queries: number of queries.
        blocks: number of last blocks that the queries pass.
        annealing: for each of these blocks, the shares of a step's updates at which its masked attention begins to be opened
            and is open; default: one block after the other, from 1 / (blocks + 2) on, as published for DINOv2.
        masked: in which steps attention is masked at first: in the `first`, in `every`, or in `none`.
        start: `learned` queries, or the `patches` that look most like a class (SimCIS), as many as there are queries.
        shares: what mask logits become: a `sigmoid` of each, or a `softmax` over queries, which then compete for each pixel.
        decision: the class of a pixel: `einsum`, the greatest sum over queries of class probability times mask; `owner`,
            that of the query with the greatest product, where its mask is at least one half (CoMFormer); `owner-simcis`, the
            same with sharper scores, of queries with a class of probability over 0.4 whose mask and pixels nearly agree.
            Pixels of no query are undecided, see `contseg.models.mask_decision`.
    """

    not_shared: ClassVar[frozenset[str]] = frozenset({"width", "initialisation"})
    masks: ClassVar[bool] = True
    taps: ClassVar[tuple[str, ...]] = ("tokens", "queries")

    name: Literal["eomt"] = "eomt"
    width: Literal[0] = 0
    initialisation: None = None
    queries: Channels = 100
    blocks: Annotated[int, Field(ge=1, le=64)] = 4
    annealing: Annotated[tuple[Span, ...], Field(strict=False)] | None = None
    masked: Literal["first", "every", "none"] = "first"
    start: Literal["learned", "patches"] = "learned"
    shares: Literal["sigmoid", "softmax"] = "sigmoid"
    decision: MaskDecision = "einsum"

    @property
    def available(self) -> tuple[str, ...]:
        """Of patches, also what is selected: `selection` and `selected`."""
        return (*self.taps, "selection", "selected") if self.start == "patches" else self.taps

    @model_validator(mode="after")
    def _spans_of_every_block(self) -> "EoMTOptions":
        if self.annealing is not None:
            if len(self.annealing) != self.blocks:
                raise ValueError(f"annealing: {len(self.annealing)} spans for {self.blocks} blocks; give one for each block")
            if wrong := [span for span in self.annealing if span[0] > span[1]]:
                raise ValueError(f"annealing: {list(wrong[0])} ends before it begins; exchange the two shares")
        return self

    def make(self, below: HeadInput) -> "Head":
        """An `EoMTHead`."""
        from contseg.models.eomt.head import EoMTHead

        return EoMTHead(
            below.channels[-1], self.queries, self.blocks, below.output_stride, self.annealing, self.start == "patches"
        )


class MaskTransformerOptions(HeadOptions):
    """The head of Segmenter and MBS, with class tokens: `contseg.models.heads.mask_transformer.MaskTransformer` and
    `contseg.models.class_tokens.TokenClassifier`.

    Attributes:
        width: channels of a token.
        depth: blocks over patches and class tokens.
        heads: of the attention; default: one per 64 channels.
        drop_path: probability that the last block is skipped for an image in training; earlier ones linearly less.
    """

    taps: ClassVar[tuple[str, ...]] = ("patches", "classes", "tokens", "patch_logits")
    tokens: ClassVar[bool] = True

    name: Literal["mask-transformer"] = "mask-transformer"
    width: Channels = 768
    depth: Depth = 2
    heads: Channels | None = None
    drop_path: ShareBelowOne = 0.1

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "MaskTransformerOptions":
        if self.width % self.attention_heads:
            raise ValueError(f"heads: {self.attention_heads} do not divide {self.width} channels; give a divisor of width")
        return self

    @property
    def attention_heads(self) -> int:
        """Heads of the attention."""
        return self.heads or max(1, self.width // 64)

    def make(self, below: HeadInput) -> "Head":
        """A `MaskTransformer`."""
        from contseg.models.heads.mask_transformer import MaskTransformer

        return MaskTransformer(below.channels, self.width)

    def make_classifier(self, channels: int, widths: list[int], unknown: bool) -> "GrowingClassifier":
        """A `TokenClassifier`."""
        from contseg.models.class_tokens import TokenClassifier

        return TokenClassifier(channels, widths, self.depth, self.attention_heads, self.drop_path)
