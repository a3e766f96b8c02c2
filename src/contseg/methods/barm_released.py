"""BARM as its released code computes it."""

from dataclasses import dataclass

import torch
from torch import nn

from contseg.methods.barm import BARM
from contseg.models.segmenter import Segmenter
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class BARMReleased(BARM):
    """A new branch takes the convolution and the gains of step 0's branch, but not its statistics: mean 0 and variance 1.

    Norms are frozen in later steps, so it keeps these. The released code also starts two processes whose gradients are not
    averaged, each with half of the images; a run here is the one whose weights are saved, on all images.
    """

    variant = "released"

    @torch.no_grad()
    def prepare(self, segmenter: Segmenter, step: Step) -> None:
        """Forget the statistics of the new branch."""
        super().prepare(segmenter, step)
        if step.old_count:
            for module in segmenter.classifier.steps[-1].modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.reset_running_stats()
