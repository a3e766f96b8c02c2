"""The bench counts what a step keeps, and lean keeps less."""

import torch

from benchmarks.memory_bench import LiveBytes, SavedBytes, training_peak


def test_live_bytes_are_those_of_the_tensors_that_exist():
    with LiveBytes() as live:
        one = torch.empty(1000, device="meta")
        other = one + 1
        del one
        third = other.view(10, 100)
    assert (live.now, live.peak) == (4000, 8000)
    assert third.shape == (10, 100)


def test_saved_bytes_leave_weights_aside_and_count_a_storage_once():
    weight, values = torch.ones(1000, requires_grad=True), torch.ones(500)
    saved = SavedBytes(weight)
    with saved:
        (weight[:500] * values * values).sum()
    assert saved.bytes == 2000  # the values, which both products save


def test_a_lean_step_needs_less():
    full, lean = (training_peak(memory, images=2, crop=128) for memory in ("full", "lean"))
    assert lean["peak"] < full["peak"]
    assert lean["weights"] == full["weights"] > full["gradients"] == full["optimiser"] > 0
