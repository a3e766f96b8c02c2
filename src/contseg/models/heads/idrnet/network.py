"""IDRNet: Intervention-Driven Relation Network (Jin et al., NeurIPS 2023), as a head for any backbone."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from contseg.data.classes import IGNORE
from contseg.models.classifier import GrowingClassifier, Start
from contseg.models.heads.head import Head
from contseg.models.heads.idrnet.aggregation import aggregate, assign, class_means
from contseg.models.heads.idrnet.attention import SelfAttention
from contseg.models.heads.idrnet.options import IDRNetOptions
from contseg.models.heads.idrnet.tables import Tables, label_statistics, label_sums
from contseg.models.layers import ASPP, PPM, FeaturePyramid, conv_norm_act, resize
from contseg.models.output import AuxiliaryOutput
from contseg.ranks import Ranks

STAGE1_WEIGHT = 0.4


@dataclass
class Passed:
    """Intermediate results of a forward pass for the pass with a deleted class. (Not frozen: Fabric rebuilds outputs.)

    Args:
        features: F, (B, C, h, w).
        context: G after fusion, or None.
        known: E = features concatenated with the memory of each pixel's class, (B, 2C, h, w).
        stage1: logits (B, K, h, w).
        dropout: (B, C, 1, 1) factors of the second decoder's channels.
    """

    features: Tensor
    context: Tensor | None
    known: Tensor
    stage1: Tensor
    dropout: Tensor


class IDRNet(Head):
    """Coarse prediction, interaction between classes weighted by learned relations, fine prediction.

    1. F = 3x3 of the last stage; G = context module of F (none, PPM or ASPP); stage-1 logits from G or F.
    2. E = F concatenated with the memory of the class that stage 1 predicts for each pixel.
    3. Aggregation over the classes of an image, by the table of means (positive relations only) and of variances.
    4. Self-attention over E and both aggregations; F, its result and G (fused with earlier stages for UperNet) are decoded.

    In training, `observe` deletes one class from each image, measures the change of the loss of every labelled class, and
    moves the tables towards it.

    Args:
        channels: channels of the backbone's stages.
        widths: outputs of each step so far.
        options: options of IDRNet.
        family: `fcn`, `pspnet`, `deeplabv3` or `upernet`; determines the context module and whether stages are fused.
        width: C (512; 1024 in two publications).
        fpn_width: channels of the pyramid of `upernet`.
        dilations: of the ASPP.
        dropout: probability that a channel is dropped before a classifier.
        unknown: as of `GrowingClassifier`.
    """

    def __init__(
        self,
        channels: list[int],
        widths: list[int],
        options: IDRNetOptions,
        family: str,
        width: int = 512,
        fpn_width: int = 512,
        dilations: tuple[int, ...] = (1, 12, 24, 36),
        dropout: float = 0.1,
        unknown: bool = False,
    ):
        super().__init__()
        self.options, self.width, self.probability = options, width, dropout
        self.uses = (0, 1, 2, 3) if family == "upernet" else (3,)
        self.bottleneck = conv_norm_act(channels[3], width, 3)
        kind = options.context_of(family)
        context_width = fpn_width if family == "upernet" else width
        if kind == "ppm":
            self.context: nn.Module | None = PPM(width, context_width)
        else:
            self.context = ASPP(width, context_width, dilations) if kind == "aspp" else None
        refines = self.context is not None and options.refine != "none"
        self.context_refiner = SelfAttention(context_width, context_width, options.attention_width) if refines else None
        on_context = self.context is not None and options.stage1_on == "context"
        self.decoder_stage1 = conv_norm_act(context_width if on_context else width, width)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier_stage1 = GrowingClassifier(width, widths, unknown)
        self.attention = SelfAttention(6 * width, width, options.attention_width)
        self.pyramid = FeaturePyramid(channels[:3], fpn_width, fpn_width) if family == "upernet" else None
        fused = 0 if self.context is None else context_width + 3 * fpn_width * (family == "upernet")
        self.decoder_stage2 = conv_norm_act(2 * width + fused, width)
        self.tables = Tables(sum(widths), width, options.relation_momentum, options.memory_momentum)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Stages of the backbone to the input of the final classifier, (B, width, h, w)."""
        return self.run(maps)[0]

    def run(self, maps: list[Tensor]) -> tuple[Tensor, Passed]:
        """The result of `forward`, and its intermediate results."""
        features = self.bottleneck(maps[-1])
        size = (features.shape[2], features.shape[3])
        context = self.context(features) if self.context is not None else None
        if self.context_refiner is not None and self.options.refine == "before":
            context = self.context_refiner(context)
        before = context if context is not None and self.options.stage1_on == "context" else features
        stage1 = resize(self.classifier_stage1(self.dropout(self.decoder_stage1(before))), size)
        if self.context_refiner is not None and self.options.refine == "after":
            context = self.context_refiner(context)
        if self.pyramid is not None:
            context = self.pyramid(maps[:3], context)
        remembered = self._look_up(features, stage1)
        ones = features.new_ones(features.shape[0], self.width, 1, 1)
        dropout = functional.dropout(ones, self.probability, self.training)
        passed = Passed(features, context, remembered, stage1, dropout)
        return self.decode(passed), passed

    def _look_up(self, features_BCHW: Tensor, stage1_BKHW: Tensor) -> Tensor:
        """E: the features concatenated with the memory of each pixel's class, which gets no gradient."""
        classes = assign(stage1_BKHW.detach(), self.tables.seen).classes
        rows = self.tables.memory.to(features_BCHW.dtype)[classes].transpose(1, 2)
        return torch.cat([features_BCHW, rows.reshape(features_BCHW.shape)], dim=1)

    def decode(self, passed: Passed, removed_B: Tensor | None = None) -> Tensor:
        """The rest of the network, with class `removed_B` deleted from each image (default: none)."""
        assignment = assign(passed.stage1, self.tables.seen)
        means = class_means(passed.known, assignment)
        shape = (*means.shape[::2], *passed.known.shape[2:])
        received = [
            aggregate(means, assignment, table, drop, removed_B).reshape(shape).to(passed.known.dtype)
            for table, drop in ((self.tables.mean, True), (self.tables.variance, False))
        ]
        attended = self.attention(torch.cat([passed.known, *received], dim=1))
        parts = [passed.features, attended]
        if passed.context is not None:
            size = (passed.context.shape[2], passed.context.shape[3])
            parts = [*(resize(part, size) for part in parts), passed.context]
        return self.decoder_stage2(torch.cat(parts, dim=1)) * passed.dropout

    def auxiliary(self, passed: Passed) -> list[AuxiliaryOutput]:
        """The logits of stage 1."""
        return [AuxiliaryOutput(passed.stage1, name="stage1", weight=STAGE1_WEIGHT)]

    def grow(self, count: int, start: Start) -> None:
        """Add classes to the stage-1 classifier and to all tables.

        No pixel is assigned to them before training sees them; with start `random` all old logits stay bit-equal.
        """
        self.classifier_stage1.grow(count, start)
        self.tables.grow(count)

    @torch.no_grad()
    def observe(
        self,
        passed: Passed,
        classifier: nn.Module,
        logits_BKHW: Tensor,
        labels_BHW: Tensor,
        ranks: Ranks,
        generator: torch.Generator,
    ) -> None:
        """Delete a class from each image and update the tables (once per iteration, after the losses).

        Args:
            passed: intermediate results of this iteration's forward pass.
            classifier: the final classifier.
            logits_BKHW: its logits, at feature resolution.
            labels_BHW: the method's final labels, 255 ignored.
            ranks, generator: as of `StepContext`.
        """
        count = len(self.tables.counter)
        present = assign(passed.stage1, self.tables.seen).present
        together = self.options.sync == "count" and ranks.count > 1
        everywhere = ranks.gather(present.to(torch.uint8)).bool() if together else present
        chosen = self.tables.choose(everywhere, generator)
        batch = len(present)
        removed = chosen[ranks.rank * batch : (ranks.rank + 1) * batch] if together else chosen
        self.intervene(passed, classifier, logits_BKHW, labels_BHW, removed, chosen, ranks if together else None)
        if self.options.sync == "mean" and ranks.count > 1:
            self.tables.average(ranks)
        assert len(self.tables.counter) == count

    @torch.no_grad()
    def intervene(
        self,
        passed: Passed,
        classifier: nn.Module,
        logits_BKHW: Tensor,
        labels_BHW: Tensor,
        removed_B: Tensor,
        removed_everywhere: Tensor | None = None,
        ranks: Ranks | None = None,
    ) -> Tensor:
        """Run the pass without the classes `removed_B` and update all tables; returns its logits (B, K, h, w).

        As published, this pass updates the norm statistics of the attention and of the last decoder a second time.

        Args:
            removed_everywhere: deleted classes of all ranks' images, with `ranks`: the tables are then updated as in one
                process with the global batch.
        """
        count = len(self.tables.counter)
        without = classifier(self.decode(passed, removed_B))
        before, after = (_cross_entropies(logits, labels_BHW) for logits in (logits_BKHW.detach(), without))
        figures, pixels = label_statistics(before, labels_BHW, count)
        change = label_statistics(after, labels_BHW, count)[0] - figures
        sums, totals = label_sums(passed.features.detach(), labels_BHW, count)
        if ranks is not None and removed_everywhere is not None:
            removed_B, change, pixels = removed_everywhere, ranks.gather(change), ranks.gather(pixels)
            sums, totals = ranks.sum(sums), ranks.sum(totals)
        self.tables.update_relations(removed_B, change, pixels)
        self.tables.update_memory(sums, totals)
        return without


def _cross_entropies(logits_BKHW: Tensor, labels_BHW: Tensor) -> Tensor:
    """Cross-entropy per pixel of resized logits, (B, H, W); image by image, so that one full-size map is in memory."""
    size = (labels_BHW.shape[1], labels_BHW.shape[2])
    return torch.cat(
        [
            functional.cross_entropy(resize(logits, size), labels, ignore_index=IGNORE, reduction="none")
            for logits, labels in zip(logits_BKHW.split(1), labels_BHW.split(1), strict=True)
        ]
    )
