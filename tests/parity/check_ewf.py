"""Golden files of EWF."""

import torch

from contseg.methods.ewf import fuse, fusion_share, moved_threshold
from tests.parity.goldens import claims


@claims(r"ewf/fusion(_threshold)?")
def check_fusion(golden):
    old, new = (
        {name.removeprefix(prefix): golden.tensor(name) for name in golden.arrays if name.startswith(prefix)}
        for prefix in ("in_old.", "in_new.")
    )
    alpha = fusion_share(golden.meta["n_old"], golden.meta["n_new"])
    assert new.keys() > old.keys()
    if "out_alpha" in golden.arrays:
        golden.check("out_alpha", torch.tensor(alpha, dtype=torch.float64))
    moved = "out_threshold" in golden.arrays
    if moved:
        golden.check("out_threshold", moved_threshold([(old[name], new[name]) for name in old]))
    added = {name: value.clone() for name, value in new.items() if name not in old}
    fuse(old, new, alpha, "moved" if moved else "all")
    assert all(torch.equal(new[name], value) for name, value in added.items())
    for name, value in new.items():
        golden.check(f"out_{name}", value)
