"""Continual semantic segmentation: learn new classes or domains step by step, and measure forgetting.

The subpackages, from top to bottom; imports only point down:

    cli  sweeps  extension  report  dryrun  recipes  engine  methods  evaluation  interop  models  losses  scenarios  data

The names below are imported on first use, so that `import contseg` is fast.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# MKL reads it at its first product. On some processors it otherwise adds in an order that depends on the place of a matrix
# in memory, so that a run that was interrupted may end with other bits. It costs no time (measured on AMD).
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from contseg.data.classes import ClassTable as ClassTable
    from contseg.data.open import open_dataset as open_dataset
    from contseg.data.open import register_dataset as register_dataset
    from contseg.engine.own_loop import evaluation_batches as evaluation_batches
    from contseg.engine.own_loop import training_batches as training_batches
    from contseg.engine.run import Run as Run
    from contseg.engine.train import train as train
    from contseg.errors import ContsegError as ContsegError
    from contseg.evaluation.predict import evaluate as evaluate
    from contseg.evaluation.predict import predict_image as predict_image
    from contseg.extension.extend import extend as extend
    from contseg.extension.forget import forget as forget
    from contseg.extension.merge import merge as merge
    from contseg.interop.hf_export import export_hf as export_hf
    from contseg.interop.onnx import export_onnx as export_onnx
    from contseg.interop.pretrained import load_pretrained as load_pretrained
    from contseg.interop.pretrained import load_statistics as load_statistics
    from contseg.interop.pretrained import save_pretrained as save_pretrained
    from contseg.interop.segmenter_file import load_segmenter as load_segmenter
    from contseg.interop.segmenter_file import save_segmenter as save_segmenter
    from contseg.interop.torch_export import export_torch as export_torch
    from contseg.methods.method import Method as Method
    from contseg.methods.method import StepContext as StepContext
    from contseg.methods.registry import make_method as make_method
    from contseg.methods.registry import register_method as register_method
    from contseg.models.adopted.options import register_model as register_model
    from contseg.models.adopted.segmenter import adopt as adopt
    from contseg.models.backbones.options import register_backbone as register_backbone
    from contseg.models.heads.options import register_head as register_head
    from contseg.models.segmenter import NetworkOptions as NetworkOptions
    from contseg.models.segmenter import Segmenter as Segmenter
    from contseg.recipes.build import make_job as make_job
    from contseg.recipes.build import start_run as start_run
    from contseg.recipes.models import open_model as open_model
    from contseg.recipes.read import read_recipe as read_recipe
    from contseg.report.page import write_report as write_report
    from contseg.scenarios.plan import make_plan as make_plan
    from contseg.scenarios.scenario import Scenario as Scenario
    from contseg.scenarios.scenario import ScenarioOptions as ScenarioOptions
    from contseg.scenarios.step import Step as Step

__version__ = "0.1.0"

_WHERE = {
    "ClassTable": "contseg.data.classes",
    "ContsegError": "contseg.errors",
    "Method": "contseg.methods.method",
    "NetworkOptions": "contseg.models.segmenter",
    "Run": "contseg.engine.run",
    "Scenario": "contseg.scenarios.scenario",
    "ScenarioOptions": "contseg.scenarios.scenario",
    "Segmenter": "contseg.models.segmenter",
    "Step": "contseg.scenarios.step",
    "StepContext": "contseg.methods.method",
    "adopt": "contseg.models.adopted.segmenter",
    "evaluate": "contseg.evaluation.predict",
    "evaluation_batches": "contseg.engine.own_loop",
    "extend": "contseg.extension.extend",
    "forget": "contseg.extension.forget",
    "export_hf": "contseg.interop.hf_export",
    "export_onnx": "contseg.interop.onnx",
    "export_torch": "contseg.interop.torch_export",
    "load_pretrained": "contseg.interop.pretrained",
    "load_segmenter": "contseg.interop.segmenter_file",
    "load_statistics": "contseg.interop.pretrained",
    "make_job": "contseg.recipes.build",
    "make_method": "contseg.methods.registry",
    "make_plan": "contseg.scenarios.plan",
    "merge": "contseg.extension.merge",
    "open_dataset": "contseg.data.open",
    "open_model": "contseg.recipes.models",
    "predict_image": "contseg.evaluation.predict",
    "read_recipe": "contseg.recipes.read",
    "register_backbone": "contseg.models.backbones.options",
    "register_dataset": "contseg.data.open",
    "register_head": "contseg.models.heads.options",
    "register_model": "contseg.models.adopted.options",
    "register_method": "contseg.methods.registry",
    "save_pretrained": "contseg.interop.pretrained",
    "save_segmenter": "contseg.interop.segmenter_file",
    "start_run": "contseg.recipes.build",
    "train": "contseg.engine.train",
    "training_batches": "contseg.engine.own_loop",
    "write_report": "contseg.report.page",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'contseg' has no attribute '{name}'")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
