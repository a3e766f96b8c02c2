"""Options of IDRNet in a recipe."""

from typing import Literal

from contseg.options import Channels, Options, ShareAboveZero

CONTEXT = {"fcn": "none", "pspnet": "ppm", "deeplabv3": "aspp", "upernet": "ppm"}


class IDRNetOptions(Options):
    """Options of IDRNet over the head of the network.

    Attributes:
        context: coarse context module; `auto`: that of the head (`fcn` none, `pspnet` and `upernet` PPM, `deeplabv3`
            ASPP). The published UperNets of ADE20K, Cityscapes and Pascal-Context have `aspp`.
        refine: self-attention over the coarse context `before` or `after` stage 1, or `none`.
        stage1_on: input of the coarse prediction: `context`, or the features of the `bottleneck` (PSPNet on Cityscapes).
        attention_width: channels of query, key and value.
        relation_momentum, memory_momentum: weight of the new value in an update of the tables.
        sync: with several ranks, `count`: tables are updated as in one process with the global batch; `mean`: each rank
            updates its own tables, which are averaged (as published: updates shrink with the number of ranks).
    """

    context: Literal["auto", "none", "ppm", "aspp"] = "auto"
    refine: Literal["none", "before", "after"] = "none"
    stage1_on: Literal["context", "bottleneck"] = "context"
    attention_width: Channels = 256
    relation_momentum: ShareAboveZero = 0.1
    memory_momentum: ShareAboveZero = 0.1
    sync: Literal["count", "mean"] = "count"

    def context_of(self, head: str) -> str:
        """The context module over a head.

        Example:
            >>> IDRNetOptions().context_of("pspnet")
            'ppm'
        """
        return CONTEXT[head] if self.context == "auto" else self.context
