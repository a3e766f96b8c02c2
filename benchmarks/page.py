"""What docs/performance.md shows of kept results; each table is between two markers, the rest is written by hand."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import Results
from benchmarks.rows import BARRED, OTHERS, Row
from contseg.errors import ContsegError

PAGE = Path("docs") / "performance.md"
NOT_MEASURED = "-"
UNITS = {"ratio": "", "share": "", "MiB": " MiB", "s": " s"}


def with_block(text: str, name: str, body: str) -> str:
    """A page with a new body between its markers `<!-- NAME -->` and `<!-- /NAME -->`.

    Example:
        >>> print(with_block("a\\n<!-- t -->\\nold\\n<!-- /t -->\\nb", "t", "new"))
        a
        <!-- t -->
        new
        <!-- /t -->
        b
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, opened, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise ContsegError(f"{PAGE}: has no lines {begin} and {end}; restore them, the table is written between them")
    return f"{before}{begin}\n{body}\n{end}{after}"


def write_block(name: str, body: str, path: Path = PAGE) -> None:
    """Replace one block of the page."""
    path.write_text(with_block(path.read_text(encoding="utf-8"), name, body), encoding="utf-8")


def block(text: str, name: str) -> str:
    """The body between two markers.

    Example:
        >>> block("<!-- t -->\\n1\\n<!-- /t -->", "t")
        '1'
    """
    found = re.search(rf"<!-- {name} -->\n(.*?)\n?<!-- /{name} -->", text, re.DOTALL)
    return found[1] if found else ""


def markdown(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown.

    Example:
        >>> print(markdown(["a", "b"], [[1, "x"]]))
        | a | b |
        |---|---|
        | 1 | x |
    """
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"|{'|'.join(line)}|" if line[0] == "---" else f"| {' | '.join(map(str, line))} |" for line in lines)


def number(value: float | None) -> str:
    """A figure with three digits, or a dash; what three decimals would show as zero has one digit.

    Example:
        >>> number(0.0478), number(1.2345), number(12.31), number(1234.5), number(0.00031), number(None)
        ('0.048', '1.23', '12.3', '1234', '0.0003', '-')
    """
    if value is None:
        return NOT_MEASURED
    if 0 < abs(value) < 0.0005:
        return f"{value:.1g}"
    digits = next((digits for least, digits in ((100, 0), (10, 1), (0.1, 2)) if abs(value) >= least), 3)
    return f"{value:.{digits}f}"


def figure(value: float | None, row: Row) -> str:
    """A value as the table shows it: ratios with three decimals, because bars are as near as 1.06; others as `number`.

    Example:
        >>> figure(1.0637, Row("a", "work")), figure(46.4, Row("b", "memory", unit="MiB"))
        ('1.064', '46.4')
    """
    return f"{value:.3f}" if value is not None and row.unit in ("ratio", "share") else number(value)


def value_of(results: Results, row: Row) -> float | None:
    """The kept value of a row, rounded as it is shown, so that a verdict fits what is read."""
    kept = results[row.name]
    return None if kept is None else float(figure(kept["value"], row))


def cells(row: Row, results: Results, gpu: Results) -> list[str]:
    """A line of the table."""
    value, on_gpu, unit = value_of(results, row), value_of(gpu, row), UNITS[row.unit]
    bar = "" if row.bar is None else f"{'at least' if row.more_is_better else 'at most'} {row.bar:g}{unit}"
    shown = figure(value, row) + (unit if value is not None else "")
    verdict = row.verdict(value)
    official = f"{row.official}{unit}" if row.official else ""
    if not verdict and row.bar is not None:
        verdict = NOT_MEASURED
    gpu_cell = "" if on_gpu is None else figure(on_gpu, row) + unit  # empty, not a dash: most machines have none
    return [row.work, row.yardstick, official, shown, bar, verdict, gpu_cell]


TITLES = ("work", "relative to", "official", "value", "bar", "", "GPU")


def bench_block(results: Results, gpu: Results) -> str:
    """Both tables of `make bench`, each with the notes of its rows, and where the figures come from."""
    parts = [
        part
        for rows in (BARRED, OTHERS)
        for part in (markdown(TITLES, [cells(row, results, gpu) for row in rows]), _notes(rows))
    ]
    names = {row.name: row for row in (*BARRED, *OTHERS)}
    parts.append(_sources("Measured on", results.origins(names)))
    if gpu.origins(names):
        parts.append(_sources("GPU:", gpu.origins(names)))
    return "\n\n".join(part for part in parts if part)


def _notes(rows: Sequence[Row]) -> str:
    return "\n".join(
        textwrap.fill(
            f"* {row.work}: {row.note}", 118, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        for row in rows
        if row.note
    )


def _sources(before: str, origins: Sequence[str]) -> str:
    if not origins:
        return ""
    return "\n".join([f"{before}:" if not before.endswith(":") else before, "", *(f"* {one}" for one in origins)])
