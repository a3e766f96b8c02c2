"""Fine-tuning: the lower bound, which forgets."""

from dataclasses import dataclass

from contseg.methods.method import Method


@dataclass(frozen=True)
class Finetune(Method):
    """Plain cross-entropy on the labels of each step, without any term that preserves old classes.

    In the scenario `offline` this is joint training, the upper bound.
    """

    name = "finetune"
    learns = ("pixels", "masks")
    first_step_is_plain = True
    handles_unknown = True
