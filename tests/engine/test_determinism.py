"""`training.deterministic`: only deterministic algorithms while a run trains, and one line where there is none."""

import os
import subprocess
import sys
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


PRODUCTS = """
import torch
import contseg

torch.set_num_threads(1)
left, right = torch.randn(21, 64), torch.randn(64, 1)
room, found = torch.empty(64 + left.numel()), set()
for place in range(16):
    moved = room[place : place + left.numel()].view(left.shape).copy_(left)
    found.add(tuple((moved @ right).flatten().tolist()))
print(len(found))
"""


def test_a_product_has_the_same_bits_wherever_its_matrix_is_in_memory():
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    assert subprocess.check_output([sys.executable, "-c", PRODUCTS], env=environment, text=True).strip() == "1"


def test_how_mkl_computes_is_the_choice_of_the_user():
    code = "import os, contseg; print(os.environ['MKL_CBWR'])"
    environment = dict(os.environ, MKL_CBWR="COMPATIBLE")
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip() == "COMPATIBLE"
