"""The page of `contseg explain`: the section "Why" on its own."""

import shlex
from pathlib import Path

from contseg.engine.run import EXPLAIN, Run
from contseg.manifest import Manifest
from contseg.replaceable import require_replaceable, write_output
from contseg.report.header import facts_line, origin_of
from contseg.report.page import MARK as OF_PAGES
from contseg.report.page import environment
from contseg.report.why import why

MARK = f"{OF_PAGES}why "
"""A text in every page of `contseg explain`."""


def write_explanation(run: Run, out: Path) -> Path:
    """Write the page of what `contseg explain` stored in a run.

    Raises:
        ContsegError: nothing is stored; or `out` exists and is no such page, or cannot be written.
    """
    require_replaceable(out, MARK)
    facts, found = origin_of(run) | {"plan": run.plan() or {"hash": ""}}, why(run.arrays(EXPLAIN))
    words = ["contseg", "explain", str(run.folder), "--class", found["name"], "--step", str(found["step"])]
    page = (
        environment()
        .get_template("explain.html")
        .render(found=found, run=facts, facts=facts_line({"run": facts}), command=shlex.join(words))
    )
    if out.resolve() == (run.folder / "explain.html").resolve():
        with Manifest(run.folder).writing(out) as partial:
            partial.write_text(page, encoding="utf-8")
    else:
        write_output(out, page, MARK)
    return out
