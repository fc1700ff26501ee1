"""What was measured, as Markdown. Nothing is measured here, so that the figures of any run can be told again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from speed_parts.timing import percentile

Figures = Mapping[str, Any]
NOTHING = "–"
REFERENCE = "torch fp32"  # the network as it was trained


def report(figures: Figures) -> str:
    """All tables of a run."""
    parts = [facts, one_photo, beside, processes, batches, shares, floor]
    return "\n\n".join(text for part in parts if (text := part(figures)))


def facts(figures: Figures) -> str:
    """What one must know to read the figures."""
    lines = [f"- {name}: {fact}" for name, fact in figures["facts"].items()]
    return "\n".join(lines + [f"- {name}: not here: {why}" for name, why in figures["missing"].items()])


def one_photo(figures: Figures) -> str:
    """Ours: JPEG bytes in, caption out."""
    settings: Mapping[str, Mapping[str, Sequence[float]]] = figures["one photo"]
    head = ["one photo, ms", *(f"{setting}, p{percent}" for setting in settings for percent in (50, 95))]
    names = next(iter(settings.values()))
    return table(
        head, ([name, *(cell for taken in settings.values() for cell in times(taken[name]))] for name in names)
    )


def beside(figures: Figures) -> str:
    """All contenders with the same beam, and how many times what our fastest of each precision takes."""
    taken: Mapping[str, Sequence[float]] = figures["contenders"]
    if not taken:
        return ""
    base = references(figures)
    head = ["one photo, beam 3, ms", "million parameters", "p50", "p95", *(f"× {name}" for name in base)]
    rows = []
    for name, seconds in taken.items():
        compared = ratios(percentile(seconds, 50), [percentile(taken[other], 50) for other in base])
        rows.append([name, f"{figures['parameters'][name] / 1e6:.0f}", *times(seconds), *compared])
    return table(head, rows)


def processes(figures: Figures) -> str:
    """What processes of their own took from start to end."""
    runs: Mapping[str, Sequence[Mapping[str, float]]] = figures["processes"]
    peak = {name: max(run["mebibytes"] for run in own) for name, own in runs.items()}
    base = [name for name in references(figures) if name in peak]
    head = ["a process of its own", "wall s, median", "peak MiB", *(f"MiB × {name}" for name in base)]
    rows = []
    for name, own in runs.items():
        # Random weights come from no file, so how long they take to be there says nothing.
        wall = NOTHING if name in figures["others"] else f"{median(run['seconds'] for run in own):.2f}"
        rows.append([name, wall, f"{peak[name]:.0f}", *ratios(peak[name], [peak[b] for b in base])])
    return table(head, rows)


def batches(figures: Figures) -> str:
    """Images a second, by size of batch and width of beam; what the best batch gains, a beam costs, and it all gives.

    That is beside torch in full precision, where that was measured.
    """
    rates = throughput(figures)
    sizes = sorted({batch for _, _, batch in rates})
    gained = [f"best × batch {sizes[0]}", "best × beam 1", f"best × {REFERENCE}'s"]
    head = ["images/s from files, by batch", "beam", *map(str, sizes), *gained]
    rows = []
    for name, beam in dict.fromkeys((name, beam) for name, beam, _ in rates):
        own = [rates[name, beam, size] for size in sizes]
        narrow, slow = (
            max((rates[key] for size in sizes if (key := (other, width, size)) in rates), default=0.0)
            for other, width in ((name, 1), (REFERENCE, beam))
        )
        gains = ratios(max(own), [own[0], narrow, slow])
        rows.append([name, str(beam), *(f"{rate:.1f}" for rate in own), *gains])
    return table(head, rows)


def shares(figures: Figures) -> str:
    """Of what a picture took: reading it, the encoder, the steps, the search."""
    head = ["shares of the time", "setting", "ms a picture", "read", "grid", "steps", "search", "steps a picture"]
    rows = []
    for row in figures["shares"]:
        parts = [row[name] for name in ("read", "grid", "steps", "search")]
        percents = [f"{100 * part / sum(parts):.0f} %" for part in parts]
        each = f"{1000 * sum(parts) / row['pictures']:.1f}"
        rows.append([row["name"], row["setting"], each, *percents, f"{row['steps_taken']:.1f}"])
    return table(head, rows)


def floor(figures: Figures) -> str:
    """How near the best batches come to what the arithmetic alone would take."""
    rates: Mapping[str, float] = figures["matrix rates"]
    best: dict[tuple[str, int], float] = {}
    for (name, beam, _), rate in throughput(figures).items():
        best[name, beam] = max(rate, best.get((name, beam), 0.0))
    rows = []
    for row in figures["flops"]:
        name, beam = row["name"], row["beam"]
        measured, least = best[name, beam], rates.get(name.split()[-1], 0.0) / row["flops"]
        told = [f"{least:.0f}", f"{measured:.1f}", f"{100 * measured / least:.1f} %"] if least else [NOTHING] * 3
        rows.append([name, str(beam), f"{row['flops'] / 1e9:.2f}", *told])
    speeds = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in rates.items())
    lines = [f"Large matrices are multiplied at, in 10⁹ operations a second: {speeds}."]
    if "int8" not in rates:
        lines.append("int8 is left out: torch multiplies such matrices no faster than bf16 ones here, or not at all.")
    head = ["the floor", "beam", "10⁹ operations a picture", "floor, images/s", "best batch, images/s", "share"]
    return f"{' '.join(lines)}\n\n{table(head, rows)}"


def references(figures: Figures) -> list[str]:
    """Our fastest in each precision, by the median of one photo with the first setting."""
    taken: Mapping[str, Sequence[float]] = figures["contenders"] or next(iter(figures["one photo"].values()))
    fastest: dict[str, str] = {}
    for name in (name for name in taken if name not in figures["others"]):
        precision = name.split()[-1]
        known = fastest.setdefault(precision, name)
        if percentile(taken[name], 50) < percentile(taken[known], 50):
            fastest[precision] = name
    return list(fastest.values())


def throughput(figures: Figures) -> dict[tuple[str, int, int], float]:
    """Images a second by name, beam and batch: the median of the rounds."""
    return {(row["name"], row["beam"], row["batch"]): median(row["rates"]) for row in figures["batches"]}


def times(seconds: Sequence[float]) -> list[str]:
    """p50 and p95 in milliseconds."""
    return [f"{1000 * percentile(seconds, percent):.1f}" for percent in (50, 95)]


def ratios(value: float, bases: Iterable[float]) -> list[str]:
    """How many times each of the bases a value is, in two digits at least."""
    found = [value / base if base else math.nan for base in bases]
    return [NOTHING if math.isnan(ratio) else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}" for ratio in found]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; a bar within a cell would end it."""
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
