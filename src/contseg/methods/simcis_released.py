"""SimCIS as its released code computes it, where EoMT has the same parts."""

from collections.abc import Sequence
from dataclasses import dataclass

from contseg.errors import ContsegError
from contseg.methods.simcis import SimCIS
from contseg.models.heads.options import EoMTOptions
from contseg.models.options import NetworkOptions
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class SimCISReleased(SimCIS):
    """What the released code computes differently.

    * A pixel is decided by `network.head.decision: owner-simcis`, which leaves pixels undecided, and these may be left out
      of the mIoU (`evaluation.undecided: ignored`).
    * The consistent selection is a sum over patches, so its weight is as many times larger as there are queries.
    * It may learn with `scenario.variant: released`, which annotates the first class of the next step. Images that show it
      get no masks of the teacher. The released network has an output for this class from the start and learns it a step
      early; here it has none yet, so a query learns its mask, and that it is no object.

    Without the second distillation of the released code, which decodes the positions of the old model once more.
    """

    variant = "released"
    handles_leak = True
    ignores_undecided = True

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """Check that queries are selected, and that pixels have owners."""
        super().check(network, steps)
        if isinstance(network.head, EoMTOptions) and network.head.decision != "owner-simcis":
            raise ContsegError(
                f"network.head.decision: the released code of '{self.name}' leaves pixels undecided; set"
                f" network.head.decision=owner-simcis (it is {network.head.decision})"
            )

    def selection_weight(self, places: int) -> float:
        """`selection` for each patch, as the sum is only divided by the number of images."""
        return self.selection * places
