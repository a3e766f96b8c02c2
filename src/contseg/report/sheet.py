"""A table of texts as Markdown and as LaTeX."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "<": r"$<$", ">": r"$>$",
}  # fmt: skip


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        title: heading.
        columns: titles of the columns.
        rows: the text of each cell.
        notes: lines below the table.
        left: number of columns from the left that contain text; the others contain numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    left: int = 1


def markdown(sheets: Iterable[Sheet]) -> str:
    """Sheets as Markdown: a heading, a table and a list of notes each.

    Example:
        >>> print(markdown([Sheet("Means", ["method", "all"], [["a|b", "61.2"]], ["in %"])]))
        ## Means
        <BLANKLINE>
        | method | all |
        |---|---:|
        | a\\|b | 61.2 |
        <BLANKLINE>
        * in %
        <BLANKLINE>
    """
    parts = []
    for sheet in sheets:
        lines = [_bars(sheet.columns), "|" + "".join("---|" if place < sheet.left else "---:|" for place in _places(sheet))]
        lines += [_bars(row) for row in sheet.rows]
        notes = "".join(f"* {note}\n" for note in sheet.notes)
        parts.append(f"## {sheet.title}\n\n" + "\n".join(lines) + "\n" + (f"\n{notes}" if notes else ""))
    return "\n".join(parts)


def latex(sheets: Iterable[Sheet]) -> str:
    """Sheets as LaTeX, for `booktabs`: a comment with the title, a table and a comment per note.

    Example:
        >>> print(latex([Sheet("Means", ["method", "all"], [["a_b", "61.2 ± 1.0"]])]))
        % Means
        \\begin{tabular}{lr}
        \\toprule
        method & all \\\\
        \\midrule
        a\\_b & 61.2 $\\pm$ 1.0 \\\\
        \\bottomrule
        \\end{tabular}
        <BLANKLINE>
    """
    parts = []
    for sheet in sheets:
        form = "".join("l" if place < sheet.left else "r" for place in _places(sheet))
        rows = "\n".join(_ands(row) for row in sheet.rows)
        notes = "".join(f"% {_line(note)}\n" for note in sheet.notes)
        parts.append(
            f"% {_line(sheet.title)}\n\\begin{{tabular}}{{{form}}}\n\\toprule\n{_ands(sheet.columns)}\n\\midrule\n{rows}\n"
            f"\\bottomrule\n\\end{{tabular}}\n{notes}"
        )
    return "\n".join(parts)


def _places(sheet: Sheet) -> range:
    return range(len(sheet.columns))


def _bars(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_line(cell).replace("|", "\\|") for cell in cells) + " |"


def _ands(cells: Sequence[str]) -> str:
    escaped = (re.sub(r"[\\&%$#_{}~^±<>]", lambda found: LATEX[found[0]], _line(cell)) for cell in cells)
    return " & ".join(escaped) + r" \\"


def _line(text: str) -> str:
    return " ".join(text.split())
