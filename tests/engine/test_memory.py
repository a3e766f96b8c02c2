"""Peak memory of a process."""

import subprocess
import sys

PRINT_PEAK = "from contseg.engine.memory import peak_memory; print(peak_memory(on_gpu=False))"
LARGE_PARENT = f"""
import subprocess, sys
from contseg.engine.memory import peak_memory
held = bytearray(1_500_000_000)
held[::4096] = b"1" * len(held[::4096])
print(peak_memory(on_gpu=False))
subprocess.run([sys.executable, "-c", {PRINT_PEAK!r}], check=True)
"""


def test_the_peak_of_a_process_is_its_own_and_not_that_of_the_process_which_started_it():
    printed = subprocess.run([sys.executable, "-uc", LARGE_PARENT], check=True, capture_output=True, text=True).stdout
    parent, child = map(int, printed.split())
    assert parent > 1_500_000_000
    assert 50_000_000 < child < 1_000_000_000
