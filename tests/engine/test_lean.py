"""`training.memory: lean` changes memory and time, not what is learned."""

import pytest
from safetensors.torch import load_file

from contseg.errors import ContsegError
from tests.engine.runs import distance, learn, same, tiny_recipe, weights

SHORT = ("training.epochs=1", "training.lr=0.01", "training.lr_later=0.01", "data.options.test=4")


@pytest.mark.parametrize("method", ["mib", "lag", "plop", "ssul"])
def test_a_lean_run_ends_with_the_same_bits(tmp_path, method):
    policy = ("scenario.policy=ssul", "network.unknown=true") if method == "ssul" else ()
    runs = [
        learn(tmp_path / kind, tiny_recipe(method, *SHORT, *policy, f"training.memory={kind}")) for kind in ("full", "lean")
    ]
    assert same(*map(weights, runs))


def test_gathered_passes_are_lean_too(tmp_path):
    keys = (*SHORT, "training.batch=5", "training.accumulate=2")
    runs = [learn(tmp_path / kind, tiny_recipe("mib", *keys, f"training.memory={kind}")) for kind in ("full", "lean")]
    assert same(*map(weights, runs))


@pytest.mark.slow
def test_two_ranks_are_lean_too(tmp_path):
    runs = [
        learn(tmp_path / kind, tiny_recipe("mib", *SHORT, "training.devices=2", f"training.memory={kind}"))
        for kind in ("full", "lean")
    ]
    assert distance(*(load_file(run.segmenter_path(1)) for run in runs)) < 1e-6


def test_lean_is_not_compiled():
    with pytest.raises(ContsegError, match=r"training\.memory: .*set one of the two"):
        tiny_recipe("mib", "training.compile=true", "training.memory=lean")
