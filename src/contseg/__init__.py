"""Continual semantic segmentation: learn new classes or domains step by step, and measure what was forgotten.

The rooms, top floor first; imports only point down:

    cli  sweeps  report  dryrun  recipes  engine  methods  evaluation  interop  models  losses  scenarios  data

Names below are loaded when they are first used, so that importing the package is quick.
"""

from importlib import import_module
from typing import Any

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
    "StepContext": "contseg.methods.method",
    "load_pretrained": "contseg.interop.pretrained",
    "load_segmenter": "contseg.interop.segmenter_file",
    "make_job": "contseg.recipes.build",
    "make_method": "contseg.methods.registry",
    "make_plan": "contseg.scenarios.plan",
    "open_dataset": "contseg.data.open",
    "predict_image": "contseg.evaluation.predict",
    "read_recipe": "contseg.recipes.read",
    "register_method": "contseg.methods.registry",
    "save_pretrained": "contseg.interop.pretrained",
    "save_segmenter": "contseg.interop.segmenter_file",
    "start_run": "contseg.recipes.build",
    "train": "contseg.engine.train",
    "write_report": "contseg.report.page",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'contseg' has no attribute '{name}'")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
