"""`training.deterministic`: only deterministic algorithms while a run trains, and one line where there is none."""

import os
from dataclasses import dataclass

import pytest
import torch

from contseg.engine.randomness import deterministic
from contseg.errors import ContsegError
from contseg.methods.finetune import Finetune
from tests.engine.runs import learn, same, tiny_recipe, weights

ON = "training.deterministic=true"


@dataclass(frozen=True)
class Observing(Finetune):
    """Requires deterministic algorithms."""

    def after_update(self, context):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]


def test_holds_while_a_run_trains_and_on_cpu_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    run = learn(tmp_path / "on", tiny_recipe("finetune", ON), method=Observing())
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
    assert same(weights(run), weights(learn(tmp_path / "off", tiny_recipe("finetune"))))


def test_an_operation_without_a_deterministic_algorithm_is_one_line():
    values, index = torch.zeros(4), torch.tensor([1, 1])
    found = r"^training.deterministic: put_ of PyTorch has no deterministic"
    with pytest.raises(ContsegError, match=found) as caught, deterministic(True):
        values.put_(index, torch.ones(2))
    assert "\n" not in str(caught.value)
    with deterministic(False):
        values.put_(index, torch.ones(2))


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match=r"^sizes differ$"), deterministic(True):
        raise RuntimeError("sizes differ")
