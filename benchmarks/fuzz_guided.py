"""One target of `benchmarks.fuzz`, guided by coverage: python -m benchmarks.fuzz_guided TARGET SECONDS.

`benchmarks.fuzz` runs it for every target if atheris can be imported. The exit code is not 0 if an input is not refused
in one line.
"""

import sys
from collections import Counter

import atheris

with atheris.instrument_imports(include=["contseg"]):
    from benchmarks.fuzz import FOLDER, test_of

if __name__ == "__main__":
    test = test_of(sys.argv[1], 0, Counter())
    options = [f"-max_total_time={sys.argv[2]}", "-rss_limit_mb=0", f"-artifact_prefix={FOLDER}/"]
    atheris.Setup([sys.argv[0], *options], test.hypothesis.fuzz_one_input)
    atheris.Fuzz()
