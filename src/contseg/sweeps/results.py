"""The tables of a sweep: means, costs and paired differences of its methods, as sheets and as CSV."""

import csv
import io
from collections.abc import Iterator, Sequence

import numpy as np

from contseg.engine.inputs import marks
from contseg.errors import counted
from contseg.report.sheet import Sheet
from contseg.sweeps.aggregate import (
    FEWEST_PAIRS,
    LEVEL,
    RESAMPLES,
    Paired,
    Spread,
    Values,
    paired,
    share_of,
    spread_of,
    worst_order,
)
from contseg.sweeps.outcomes import FIGURES, QUALITY, Outcomes

DASH = "–"
COSTS = {
    "seconds": "seconds", "peak_memory": "peak memory, MB", "trained_parameters": "trained", "stored": "stored, MB",
}  # fmt: skip
"""Cost to title."""
COMPARED = ("old", "new", "all", "harmonic")
COMPARED_QUALITY = ("pq_old", "pq_new", "pq_all")
BOOTSTRAP_SEED = 0
"""Of the generator of every interval, so that two tables of a sweep are equal."""
HEADER = (
    "kind", "method", "against", "seed", "order", "quantity", "value", "std_over_seeds", "seeds", "std_over_orders",
    "orders", "runs", "low", "high", "pairs", "verdict",
)  # fmt: skip


def sheets(outcomes: Outcomes) -> list[Sheet]:
    """Means, costs, differences if there are several methods, and panoptic quality if a run measured it."""
    return [means_sheet(outcomes), costs_sheet(outcomes), *differences_sheets(outcomes), *quality_sheets(outcomes)]


def means_sheet(outcomes: Outcomes) -> Sheet:
    """Mean and deviations of every metric, worst order, and share of joint training."""
    rows: list[list[str]] = []
    for name in outcomes.shown:
        spreads = [spread_of(outcomes.figure(name, key)) for key in FIGURES]
        worst, share = worst_order(outcomes.figure(name, "all")), joint_share(outcomes, name)
        last = [_number(worst[1]) if worst else DASH, _number(100 * share[0]) if share else DASH]
        rows.append([outcomes.rows[name].label, *(_number(one.mean if one else None) for one in spreads), *last])
        rows += [[*cells, "", ""] for cells in _deviation_rows(outcomes, name, spreads)]
    return Sheet("Means", ["method", *FIGURES.values(), "worst", "% joint"], rows, means_notes(outcomes))


def _deviation_rows(outcomes: Outcomes, name: str, spreads: Sequence[Spread | None]) -> list[list[str]]:
    """The rows below the means of a method."""
    return [
        [f"± {count} {kind}", *(_number(getattr(one, f"over_{kind}") if one else None) for one in spreads)]
        for kind, count in deviations(outcomes, name).items()
    ]


def quality_sheets(outcomes: Outcomes) -> list[Sheet]:
    """Mean and deviations of PQ, SQ and RQ over old, new and all classes; no sheet if no run measured them."""
    shown = outcomes.quality
    if not shown:
        return []
    rows: list[list[str]] = []
    notes = [
        "PQ, SQ and RQ of segments in %, means over classes, background not counted; a dash: not measured; deviations as of"
        " the means",
    ]
    for name in outcomes.shown:
        spreads = [spread_of(outcomes.figure(name, key)) for key in shown]
        label, runs = outcomes.rows[name].label, len(outcomes.of(name))
        rows.append([label, *(_number(one.mean if one else None) for one in spreads)])
        if any(spreads):
            rows += _deviation_rows(outcomes, name, spreads)
        partial = [
            f"{title} in {one.runs}" for title, one in zip(shown.values(), spreads, strict=True) if one and one.runs < runs
        ]
        notes += [f"{label}: of {counted(runs, 'run')}, {', '.join(partial)}"] if partial else []
    return [Sheet("Panoptic quality", ["method", *shown.values()], rows, notes)]


def deviations(outcomes: Outcomes, name: str) -> dict[str, int]:
    """`seeds` and `orders` to their number, where a row has more than one."""
    places = outcomes.of(name)
    counts = {"seeds": len({seed for seed, _ in places}), "orders": len({order for _, order in places})}
    return {kind: count for kind, count in counts.items() if count > 1}


def means_notes(outcomes: Outcomes) -> list[str]:
    """What the means are of, the worst orders, and what is missing."""
    unfinished = len(outcomes.cells) - len(outcomes.finished)
    notes = [
        "mIoU in %, background not counted; mean over all finished runs of a method",
        "± seeds: standard deviation over the seeds within a class order, pooled over the orders; ± orders: standard"
        " deviation of the means of the orders; both over n - 1",
        "worst: all of the class order with the lowest mean; % joint: all, relative to joint training on the same network,"
        " data, seeds and orders",
    ]
    for name in outcomes.shown:
        label, places = outcomes.rows[name].label, outcomes.of(name)
        orders = list(dict.fromkeys(order for _, order in places))
        seeds = sorted({seed for seed, _ in places})
        words = f"{label}: {counted(len(places), 'run')}, seeds {', '.join(map(str, seeds))}, orders {', '.join(orders)}"
        if worst := worst_order(outcomes.figure(name, "all")):
            words += f"; worst order {worst[0]}"
        share = joint_share(outcomes, name)
        if share and share[1] < len(places):
            words += f"; % joint over {counted(share[1], 'run')}"
        partial = {FIGURES[key]: len(outcomes.figure(name, key)) for key in FIGURES}
        words += "".join(f"; {title} in {n} of them" for title, n in partial.items() if 0 < n < len(places))
        notes.append(words)
        runs = [cell.run for cell in outcomes.finished if cell.row == name]
        notes += [f"{label}: {text}" for text in dict.fromkeys(text for run in runs for text in marks(run))]
    return notes + ([f"{unfinished} of {counted(len(outcomes.cells), 'run')} not finished"] if unfinished else [])


def joint_share(outcomes: Outcomes, name: str) -> tuple[float, int] | None:
    """The share of joint training in `all`, and the number of pairs; see `share_of`."""
    return share_of(outcomes.figure(name, "all"), outcomes.joint(name))


def costs_sheet(outcomes: Outcomes) -> Sheet:
    """Mean seconds, largest peak memory, trained parameters and stored MB of every method."""
    rows = []
    for name in outcomes.shown:
        seconds = outcomes.cost(name, "seconds")
        most = {key: max(outcomes.cost(name, key).values(), default=None) for key in COSTS}
        cells = [_number(spread.mean if (spread := spread_of(seconds)) else None, 1)]
        cells += [_number(most["peak_memory"], 0), _count(most["trained_parameters"]), _number(most["stored"], 2)]
        rows.append([outcomes.rows[name].label, str(len(outcomes.of(name))), *cells])
    notes = [
        "seconds: mean of a run, without what the cache of step 0 saved; peak memory: of a process (reserved on the GPU, or"
        " main memory), the largest run",
        "trained: parameters that the last step updates by gradients; stored: state of the method between steps, without"
        " the model and images; a dash: not recorded by the version that trained",
    ]
    return Sheet("Costs", ["method", "runs", *COSTS.values()], rows, notes)


def differences_of(outcomes: Outcomes) -> Iterator[tuple[str, str, str, Paired]]:
    """(row, base, metric, difference) of every row against the first one, on the same seeds and orders."""
    base, *others = outcomes.shown
    for name in others:
        for key in (*COMPARED, *COMPARED_QUALITY):
            generator = np.random.default_rng(BOOTSTRAP_SEED)
            if difference := paired(outcomes.figure(name, key), outcomes.figure(base, key), generator):
                yield name, base, key, difference


def differences_sheets(outcomes: Outcomes) -> list[Sheet]:
    """Paired differences to the first method, with intervals; no sheet if there is a single method."""
    if len(outcomes.shown) < 2:
        return []
    rows = []
    for name, _, key, one in differences_of(outcomes):
        interval = DASH if one.low is None or one.high is None else f"{one.low:+.1f} to {one.high:+.1f}"
        cells = [(FIGURES | QUALITY)[key], f"{one.difference:+.1f}", interval, str(one.pairs), one.verdict]
        rows.append([outcomes.rows[name].label, *cells])
    notes = [
        f"mean over the runs of both with the same seed and order, in points; {100 * LEVEL:.0f} % interval: bootstrap of the"
        f" pairs, {RESAMPLES} resamples, seed {BOOTSTRAP_SEED}",
        f"undecided: the interval contains 0; too few pairs: under {FEWEST_PAIRS}, which cannot decide even if all agree",
    ]
    title = f"Differences to {outcomes.rows[outcomes.shown[0]].label}"
    return [Sheet(title, ["method", "metric", "difference", "interval", "pairs", "verdict"], rows, notes, left=2)]


def comma_separated(outcomes: Outcomes) -> str:
    """All numbers, not rounded, one per line: of each run, of each method, and of each difference."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HEADER, lineterminator="\n")
    writer.writeheader()
    for cell in outcomes.finished:
        outcome = outcomes.found[cell.row, cell.seed, cell.order]
        place = {"kind": "run", "method": cell.label, "seed": cell.seed, "order": cell.order}
        for key in (*FIGURES, *outcomes.quality):
            writer.writerow(place | {"quantity": key, "value": outcome.figures[key]})
        for key in COSTS:
            writer.writerow(place | {"quantity": key, "value": outcome.costs[key]})
    for name in outcomes.shown:
        _write_row(writer, outcomes, name)
    if len(outcomes.shown) > 1:
        for name, base, key, one in differences_of(outcomes):
            labels = {"method": outcomes.rows[name].label, "against": outcomes.rows[base].label}
            numbers = {"value": one.difference, "low": one.low, "high": one.high, "pairs": one.pairs}
            writer.writerow({"kind": "difference", **labels, "quantity": key, **numbers, "verdict": one.verdict})
    return text.getvalue()


def _write_row(writer: csv.DictWriter, outcomes: Outcomes, name: str) -> None:
    label = outcomes.rows[name].label
    quantities: dict[str, Values] = {key: outcomes.figure(name, key) for key in (*FIGURES, *outcomes.quality)}
    for key, values in (quantities | {key: outcomes.cost(name, key) for key in COSTS}).items():
        writer.writerow({"kind": "mean", "method": label, "quantity": key, **_spread_cells(spread_of(values))})
    if worst := worst_order(outcomes.figure(name, "all")):
        writer.writerow({"kind": "worst order", "method": label, "order": worst[0], "quantity": "all", "value": worst[1]})
    if share := joint_share(outcomes, name):
        line = {"quantity": "all", "value": share[0], "pairs": share[1]}
        writer.writerow({"kind": "share of joint", "method": label, **line})


def _spread_cells(spread: Spread | None) -> dict[str, float | None]:
    if spread is None:
        return {"runs": 0}
    deviations = {"std_over_seeds": spread.over_seeds, "std_over_orders": spread.over_orders}
    return {"value": spread.mean, **deviations, "seeds": spread.seeds, "orders": spread.orders, "runs": spread.runs}


def _number(value: float | None, digits: int = 1) -> str:
    return DASH if value is None else f"{value:.{digits}f}"


def _count(value: float | None) -> str:
    """A number of parameters.

    Example:
        >>> _count(0), _count(12_345), _count(1_234_567), _count(None)
        ('0', '12.3k', '1.23M', '–')
    """
    if value is None:
        return DASH
    return f"{value:.0f}" if value < 1000 else f"{value / 1e3:.1f}k" if value < 1e6 else f"{value / 1e6:.2f}M"
