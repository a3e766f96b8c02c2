"""Every golden file is reproduced, values and gradients. `CONTSEG_GOLDENS=DIR` runs the same tests on another folder."""

import re

import pytest

from tests.parity import (  # noqa: F401 (they register their claims)
    check_adapter,
    check_barm,
    check_cfsseg,
    check_classics,
    check_comformer,
    check_dkd,
    check_eomt,
    check_ewf,
    check_idec,
    check_idrnet,
    check_inference,
    check_lag,
    check_losses,
    check_mask_continual,
    check_mask_decisions,
    check_masks,
    check_mbs,
    check_methods,
    check_networks,
    check_panoptic,
    check_protocols,
    check_rcil,
    check_reminder,
    check_sdr,
    check_selecting,
    check_star,
    check_ucd,
    check_undecided,
)
from tests.parity.goldens import CLAIMS, ROOT, Golden

FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.glob("*/*")
    if path.suffix in (".npz", ".json") and not path.name.startswith("manifest_")
)
LARGE = ("idrnet/upernet_swinlarge_aspp_after.npz",)  # 305 million parameters to fill


@pytest.mark.parametrize("file", [pytest.param(file, marks=[pytest.mark.slow] * (file in LARGE)) for file in FILES])
def test_golden_is_reproduced(file):
    name = file.removesuffix(".npz").removesuffix(".json")
    checks = [check for pattern, check in CLAIMS if re.fullmatch(pattern, name)]
    assert len(checks) == 1, f"{file}: claimed by {len(checks)} checks; every golden needs exactly one"
    checks[0](Golden(ROOT / file))


def test_there_are_goldens():
    assert FILES, f"{ROOT} holds no family/file.npz"
