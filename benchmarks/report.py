"""Write the tables: `python -m benchmarks.report` makes RESULTS.md and the table of the README of the newest run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.harness import history
from benchmarks.harness.bar import Bar
from benchmarks.harness.bars import BARS, GPU_BARS, VIEWER_BARS
from benchmarks.harness.calm import BUSY
from benchmarks.harness.history import Record
from benchmarks.harness.measure import FLOOR, OURS

RESULTS = Path(__file__).parent / "RESULTS.md"
README = ROOT / "README.md"
MARKERS = re.compile(r"(<!-- table: made by [^\n]*-->\n)(.*?)(<!-- /table -->)", re.S)
SHOWN_RUNS = 6
STAGES = ("decode", "forward", "render", "encode", "write")
"""Of a run."""

INTRODUCTION = """\
Made by `python -m benchmarks.run`; do not edit. Each contender's result was checked first: ours is the plane of the
torch backend in every pixel, a peer's within 1 level, files are decoded by OpenCV. Then the contenders of a table took
turns, so that a ratio within a table means more than a time. `x` is how many times longer a way takes than the fastest
of ours in the table. GB/s counts pixels, a byte each. *Extrapolated*: it ran on some channels or images only, and its
time was multiplied, which favours it. Every contender was held to the threads stated. What stands with its version is
measured where it is installed, most of it by `pip install ".[bench]"`. What the loops take on 64-bit ARM, counted in an
emulator: [ARM.md](ARM.md); what the GPU's kernel takes, counted in its program: [INSTRUCTIONS.md](INSTRUCTIONS.md)."""


def number(value: float) -> str:
    """Write a number with two or three digits that matter."""
    if value and abs(value) < 0.0995:
        return f"{value:.2g}"
    places = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{places}f}"


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{number(seconds / scale)} {unit}"
    return f"{number(seconds / 1e-6)} us"


def figure(value: float, field: str) -> str:
    """Write a figure of a record in its unit."""
    if field.endswith("_bytes") or field == "bytes":
        return f"{number(value / 1e6)} MB"
    return f"{number(value)} GB/s" if field == "gb_per_s" else duration(value)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table; every column but the first is aligned to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bar_row(bar: Bar, record: Record) -> list[str]:
    """Write a bar: what, both figures, what came out, and whether that is enough."""
    value, ours = bar.value(record), bar.ours.of(record)
    wanted = f"{'at least' if bar.at_least else 'at most'} {bar.limit:g} {bar.unit}"
    if value is None or ours is None:
        return [bar.what, "", bar.beside, "", wanted, "not measured"]
    shown = figure(ours, bar.ours.field)
    verdict = "reached" if bar.reached(value) else "**missed**"
    other = bar.other.of(record) if bar.other else None
    if bar.other is None or other is None:
        return [bar.what, shown, "", "", wanted, verdict]
    unit = {"times faster than": "x faster", "more than": "s more", "at the speed of": "% of the speed"}.get(
        bar.relation, bar.unit
    )
    return [
        bar.what, shown, f"{bar.beside}: {figure(other, bar.other.field)}", f"{number(value)} {unit}", wanted, verdict
    ]  # fmt: skip


def is_missed(bar: Bar, record: Record) -> bool:
    """Check whether a bar was measured and not reached."""
    value = bar.value(record)
    return value is not None and not bar.reached(value)


def bars_table(pairs: Iterable[tuple[Bar, Record]]) -> str:
    """Write bars, each with the run that it is held against."""
    return markdown(["what", "ours", "beside", "ratio", "bar", ""], [bar_row(bar, record) for bar, record in pairs])


def gpu_run(runs: Sequence[Record]) -> Record | None:
    """Return the newest run on a machine with a CUDA device."""
    return next((run for run in reversed(runs) if "gpu" in run["machine"]), None)


def held_bars(runs: Sequence[Record]) -> list[tuple[Bar, Record]]:
    """Return every bar with the newest run that could measure it; the newest of all where none could."""
    newest = runs[-1]
    with_browser = next((run for run in reversed(runs) if VIEWER_BARS[-1].value(run) is not None), newest)
    held = [(bar, newest) for bar in BARS] + [(bar, with_browser) for bar in VIEWER_BARS]
    held += [(bar, gpu_run(runs) or newest) for bar in GPU_BARS]
    return [(bar.held_in(run), run) for bar, run in held]


def machine_line(record: Record) -> str:
    """Return when, on what and of what commit a run was made."""
    machine = record["machine"]
    return f"{record['date'][:10]}, commit {record['commit']}, {machine['cpu']}, {machine['cores']} cores"


def calm_line(record: Record) -> str:
    """Return how much of its cores the machine had for the run."""
    shares = record["second_core"]
    busy = " **The machine was busy: times of 2 threads are too long.**" if min(shares) < BUSY else ""
    return (
        f"Two threads did {' and '.join(f'{share:.2f}' for share in shares)} of twice the work of one before and after "
        f"the run, where a calm machine does 1.{busy}"
    )


def gpu_line(record: Record | None) -> str:
    """Return where the bars of CUDA come from."""
    if record is None:
        return "No run on a machine with a CUDA device is recorded, so what needs one is not measured."
    return f"Bars of CUDA: {machine_line(record)}, {record['machine']['gpu']}."


def contender_row(name: str, entry: dict[str, Any], fastest: float) -> list[str]:
    """Write a contender of a table."""
    shown = f"**{name}**" if entry["role"] == OURS else f"{name} (floor)" if entry["role"] == FLOOR else name
    if "version" in entry:
        shown += f" ({entry['version']})"
    if "of" in entry:
        shown += f", *extrapolated from {entry['ran']} of {entry['of']:,}*"
    extra = [figure(entry[key], key) if key in entry else "" for key in ("file_bytes", "peak_bytes", "gb_per_s")]
    stages = {name: entry[f"{name}_s"] for name in STAGES if f"{name}_s" in entry}
    extra.append(", ".join(f"{name} {duration(spent)}" for name, spent in stages.items()))
    times = [duration(entry["median_s"]), duration(entry["iqr_s"]) if entry["rounds"] > 3 else "-"]
    return [
        shown, str(entry.get("threads", 1)), *times, str(entry["rounds"]), number(entry["median_s"] / fastest), *extra
    ]  # fmt: skip


def contender_table(contenders: dict[str, dict[str, Any]]) -> str:
    """Write a table of a run; columns that nobody fills are left out."""
    header = ["", "threads", "median", "IQR", "rounds", "x", "file", "memory", "speed", "stages, all threads together"]
    fastest = min(entry["median_s"] for entry in contenders.values() if entry["role"] == OURS)
    rows = [contender_row(name, entry, fastest) for name, entry in contenders.items()]
    kept = [i for i in range(len(header)) if i < 6 or any(row[i] for row in rows)]
    return markdown([header[i] for i in kept], ([row[i] for i in kept] for row in rows))


def trend_table(runs: Sequence[Record]) -> str:
    """Write how the bars' values went over the last runs of a class of machines."""
    header = ["", *(f"{run['date'][:10]} {run['commit']}" for run in runs)]
    rows: dict[str, list[str]] = {}  # some bars are on the same ratio
    for bar in (*BARS, *VIEWER_BARS, *GPU_BARS):
        label = f"{bar.what}{f', {bar.relation} {bar.beside}' if bar.relation else ''}"
        values = [bar.value(run) for run in runs]
        if bar not in BARS and not any(values):
            continue
        rows[label] = [label, *("-" if value is None else f"{number(value)} {bar.unit}" for value in values)]
    return markdown(header, rows.values())


def results(runs: Sequence[Record]) -> str:
    """Write RESULTS.md for the newest of all runs."""
    record = runs[-1]
    same = [run for run in runs if run["machine"]["class"] == record["machine"]["class"]]
    machine = record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    parts = [
        "# Results",
        INTRODUCTION,
        f"{machine_line(record)}, vector instructions: {machine['vectors']}, {machine['system']}; files go to "
        f"{'a file system in memory' if machine['files_in'] == 'memory' else 'the disk'}. {versions}.",
        calm_line(record),
        "## Bars",
        bars_table(held_bars(runs)),
        gpu_line(gpu_run(runs)),
        *(f"{bar.what}: {bar.note}" for bar, run in held_bars(runs) if bar.note and is_missed(bar, run)),
        "## All tables",
    ]
    for table, contenders in record["tables"].items():
        parts += [f"### {table}", contender_table(contenders)]
    parts += ["## The bars over the last runs on this class of machine", trend_table(same[-SHOWN_RUNS:])]
    return "\n\n".join(parts) + "\n"


def readme_with_table(readme: str, runs: Sequence[Record]) -> str:
    """Return the README with the newest table between its markers."""
    record = runs[-1]
    busy = " The machine was busy." if min(record["second_core"]) < BUSY else ""
    body = (
        f"{bars_table((bar, run) for bar, run in held_bars(runs) if bar.head)}\n\n"
        f"{machine_line(record)}.{busy} Every number, with the peers and what is not measured: "
        f"[benchmarks/RESULTS.md](benchmarks/RESULTS.md), by `python -m benchmarks.run`.\n"
    )
    return MARKERS.sub(lambda found: f"{found[1]}{body}{found[3]}", readme)


def write() -> None:
    """Write both files."""
    runs = history.runs()
    RESULTS.write_text(results(runs))
    README.write_text(readme_with_table(README.read_text(), runs))


if __name__ == "__main__":
    write()
