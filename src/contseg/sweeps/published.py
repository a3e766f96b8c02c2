"""The means of a sweep next to published numbers."""

from collections.abc import Mapping

from contseg.errors import counted
from contseg.recipes.published import COUNTED
from contseg.recipes.published import FIGURES as COMPARED
from contseg.report.comparison import compare, notes_on, protocol_of, published_lines, quality_of, with_marks
from contseg.report.sheet import Sheet
from contseg.report.table import CAPTION, Block, Line, columns, numbers
from contseg.sweeps.aggregate import spread_of
from contseg.sweeps.cells import Cell
from contseg.sweeps.outcomes import GROUPS, QUALITIES, QUALITY, Outcomes


def published_blocks(outcomes: Outcomes) -> dict[str, list[Block]]:
    """Protocol to the means over the seeds of each row and class order for which numbers were published."""
    groups: dict[str, list[Block]] = {}
    places: dict[tuple[str, str], list[Cell]] = {}
    for cell in outcomes.finished:
        places.setdefault((cell.row, cell.order), []).append(cell)
    for (row, order), cells in places.items():
        figures = _means(outcomes, row, order)
        segments = _segments(figures)
        comparisons = compare(cells[0].recipe, {**figures, **segments})
        if not comparisons:
            continue
        comparisons = with_marks(comparisons, [cell.run for cell in cells])
        own = Line("run", COUNTED["no"], {key: figures[key] for key in COMPARED}, quality=quality_of(segments))
        name = f"{cells[0].label}, mean of {counted(len(cells), 'seed')}"
        block = Block(name, (own, *published_lines(comparisons)), tuple(notes_on(comparisons)))
        groups.setdefault(protocol_of(cells[0].run), []).append(block)
    return groups


def _means(outcomes: Outcomes, row: str, order: str) -> Mapping[str, float | None]:
    found = [outcome for (_, other), outcome in outcomes.of(row).items() if other == order]
    means = {}
    for key in found[0].figures:
        values = {(seed, order): value for seed, one in enumerate(found) if (value := one.figures.get(key)) is not None}
        spread = spread_of(values)
        means[key] = round(spread.mean, 4) if spread else None
    return means


def _segments(figures: Mapping[str, float | None]) -> dict[str, dict[str, float | None]]:
    """Means by quality and group as in summary.json; {} where they were not measured."""
    if all(figures[key] is None for key in QUALITY):
        return {}
    return {key: {group: figures[f"{key}_{group}"] for group in GROUPS} for key in QUALITIES}


def published_sheets(groups: Mapping[str, list[Block]]) -> list[Sheet]:
    """A sheet per protocol."""
    return [
        Sheet(
            f"Published numbers: {protocol}",
            list(columns(numbers(blocks))),
            [row for block in blocks for row in block.rows(numbers(blocks))],
            [CAPTION, *(f"{block.run}: {note}" for block in blocks for note in block.notes)],
            left=2,
        )
        for protocol, blocks in groups.items()
    ]
