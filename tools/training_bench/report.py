"""From runs to medians, ratios and targets."""

import dataclasses
import statistics
from collections.abc import Iterable

from training_bench.implementations import IMPLEMENTATIONS, OURS
from training_bench.rounds import Run

BEST_PEER = "best peer"
BEST_TUNED = "best peer, tuned ones included"
LEAST_RATIOS = {
    "din-100k": 2.5,
    "din-1m": 10.0,
    "dien-100k": 1.5,
    "mmoe-120k": 3.5,
    "mmoe-1m": 12.0,
    # Those of MMoE within 20 %.
    "ple-120k": 2.8,
    "ple-1m": 9.6,
    "shared-bottom-120k": 2.8,
    "shared-bottom-1m": 9.6,
}
MOST_GROWTH = (("din-10m", "din-10k", 1.2), ("mmoe-1m", "mmoe-120k", 1.1))


@dataclasses.dataclass(frozen=True)
class Line:
    """One implementation on one workload; ratios are our rows/s over its, round by round."""

    workload: str
    implementation: str
    variant: str = ""
    step_ms: float | None = None
    rows_per_s: float | None = None
    ratio: float | None = None
    ratio_range: tuple[float, float] | None = None
    ratio_of_fastest_steps: float | None = None
    final_loss: float | None = None
    peak_mb: float | None = None
    disturbed: float | None = None
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class Target:
    """A promise in the issue, and what came out."""

    text: str
    measured: float
    met: bool


def lines(runs: Iterable[Run]) -> list[Line]:
    """A line for each workload and implementation, then those of the best peers."""
    runs = list(runs)
    result = []
    for workload in dict.fromkeys(run.workload for run in runs):
        own = [run for run in runs if run.workload == workload]
        names = list(IMPLEMENTATIONS)
        names = [n for n in names if any(run.implementation == n for run in own)]
        result += [_line(own, workload, name, {name}) for name in names]
        peers = {n for n in names if n != OURS and IMPLEMENTATIONS[n].peer}
        shipped = {n for n in peers if not IMPLEMENTATIONS[n].tuned}
        if OURS in names and shipped:
            result.append(_line(own, workload, BEST_PEER, shipped))
        if OURS in names and peers - shipped:
            result.append(_line(own, workload, BEST_TUNED, peers))
    return [line for line in result if line.implementation in IMPLEMENTATIONS or line.step_ms]


def _line(runs: list[Run], workload: str, name: str, members: set[str]) -> Line:
    ours, theirs = _fastest(runs, {OURS}), _fastest(runs, members)
    if not theirs:
        errors = [run.error for run in runs if run.implementation in members]
        return Line(workload, name, error=errors[0])
    ratios = [theirs[n].step_ms / ours[n].step_ms for n in sorted(theirs.keys() & ours.keys())]
    compared = ratios if members != {OURS} else []
    last = theirs[max(theirs)]
    return Line(
        workload,
        name,
        last.variant if name == last.implementation else f"{last.implementation}/{last.variant}",
        step_ms=statistics.median(run.step_ms for run in theirs.values()),
        rows_per_s=statistics.median(run.measured["rows_per_s"] for run in theirs.values()),
        ratio=statistics.median(compared) if compared else None,
        ratio_range=(min(compared), max(compared)) if compared else None,
        ratio_of_fastest_steps=_fastest_step(theirs) / _fastest_step(ours) if compared else None,
        final_loss=last.measured["final_loss"],
        peak_mb=max(run.measured["peak_mb"] for run in theirs.values()),
        disturbed=max(run.disturbed for run in theirs.values()),
        error=next((r.error for r in runs if r.implementation == name and r.error), None),
    )


def _fastest(runs: list[Run], members: set[str]) -> dict[int, Run]:
    """The fastest run of these implementations in each round."""
    found: dict[int, Run] = {}
    for run in runs:
        if run.implementation in members and run.measured:
            found[run.round] = min(found.get(run.round, run), run, key=lambda r: r.step_ms)
    return found


def _fastest_step(runs: dict[int, Run]) -> float:
    return min(min(run.measured["step_ms"]) for run in runs.values())


def targets(table: list[Line], runs: Iterable[Run]) -> list[Target]:
    """The targets whose workloads were measured."""
    ratios = {line.workload: line.ratio for line in table if line.implementation == BEST_PEER}
    found = []
    for workload, least in LEAST_RATIOS.items():
        if ratios.get(workload) is not None:
            text = f"{workload}: rows/s against the best peer >= {least:g}x"
            found.append(Target(text, ratios[workload], ratios[workload] >= least))
    for large, small, most in MOST_GROWTH:
        growth = _growth(list(runs), large, small)
        if growth is not None:
            text = f"ours: step time of {large} over {small} <= {most:g}x"
            found.append(Target(text, growth, growth <= most))
    return found


def _growth(runs: list[Run], large: str, small: str) -> float | None:
    a, b = (_fastest([r for r in runs if r.workload == name], {OURS}) for name in (large, small))
    ratios = [a[n].step_ms / b[n].step_ms for n in a.keys() & b.keys()]
    return statistics.median(ratios) if ratios else None


def as_text(table: list[Line], reached: list[Target]) -> str:
    """The table for people."""
    header = ("workload", "implementation", "variant", "step ms", "rows/s", "ours is", "rounds",
              "fastest steps", "loss", "peak MB", "disturbed")  # fmt: skip
    cells = [header, *(_cells(line) for line in table)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    shown = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    errors = [f"{x.workload} {x.implementation} FAILED: {x.error}" for x in table if x.error]
    verdicts = [f"{t.text}: {t.measured:.2f}x, {'met' if t.met else 'MISSED'}" for t in reached]
    return "\n".join((*shown, "", *dict.fromkeys(errors), *verdicts))


def _cells(line: Line) -> tuple[str, ...]:
    if line.step_ms is None:
        return (line.workload, line.implementation, "FAILED", *[""] * 8)
    spread = "{:.2f}-{:.2f}".format(*line.ratio_range) if line.ratio_range else ""
    return (
        line.workload, line.implementation, line.variant, f"{line.step_ms:.1f}",
        f"{line.rows_per_s:,.0f}", _ratio(line.ratio), spread,
        _ratio(line.ratio_of_fastest_steps), f"{line.final_loss:.4f}", f"{line.peak_mb:,.0f}",
        f"{line.disturbed:.0%}",
    )  # fmt: skip


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"
