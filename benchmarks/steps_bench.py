"""Rows of whole training steps: methods against their bare networks, and IDRNet against the head that it extends."""

from dataclasses import replace
from functools import partial

from benchmarks.steps import DEFAULT, Setting, TrainingStep
from benchmarks.timing import Work
from contseg.models.heads.idrnet.options import IDRNetOptions
from contseg.models.options import NetworkOptions

CLASSES = 150
METHODS = (
    "finetune", "mib", "plop", "sdr", "idec", "lag", "dft", "rcil", "reminder", "ucd", "dkd", "star", "adapter",
    "mbs", "barm",
)  # fmt: skip


def against_networks(name: str, setting: Setting = DEFAULT) -> tuple[Work, Work]:
    """A training step of a method, and its bare networks; 21 classes of which 16 are old."""
    step = TrainingStep(name, setting)
    return step.update, step.bare


def idrnet_training(crop: int = 512, width: int = 64, head_width: int = 512) -> tuple[Work, Work]:
    """A training step of IDRNet over FCN with both passes, and that of FCN; ResNet-50-D8, 150 classes, one step.

    Args:
        width: channels of the backbone's first stage.
        head_width: channels of the heads.
    """
    backbone = {"name": "resnet50", "stem": "deep", "output_stride": 8, "contracted": True, "slope": 0.0, "width": width}

    def made(idrnet: IDRNetOptions | None) -> TrainingStep:
        network = NetworkOptions(backbone=backbone, head={"name": "fcn", "width": head_width, "idrnet": idrnet})
        setting = replace(DEFAULT, network=network, old=CLASSES - 1, new=1, crop=crop, images=1, index=0)
        return TrainingStep("finetune", setting)

    return made(IDRNetOptions()).update, made(None).update


ROWS = {
    **{f"{name}-step": partial(against_networks, name) for name in METHODS},
    "idrnet-step": idrnet_training,
}
