"""Run the benchmarks: `python -m benchmarks.run` records a full run and writes the tables, in about twenty
minutes, with all peers that `pip install ".[bench]"` brings.

`--short` takes 20 seconds, records nothing, and fails when a ratio is worse than the newest recorded run's by more
than SHORT_SLACK, twice in a row, and by more than a busy second core explains. `--out FILE` writes the record of a run
to a file instead of the history.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cnnviz_fast
from benchmarks import ROOT, report
from benchmarks.harness import calm, compare, history

# In the order of the tables.
SHORT_CASES = ("bench_render", "bench_encode", "bench_write", "bench_files", "bench_startup")
"""Those that have tables of the short form."""
CASES = (
    *SHORT_CASES, "bench_scaling", "bench_capture", "bench_attribution", "bench_weights", "bench_run", "bench_top",
    "bench_patches", "bench_viewer", "bench_gpu",
)  # fmt: skip

SHORT_SLACK = 2.0
"""A short run has few rounds on a machine that does other things too; what it is there to catch is far beyond this."""
OTHER_MACHINE_SLACK = 4.0
"""Where no run of the same class of machine is recorded: ratios depend on vector units and caches, but not by this."""


def measure(short: bool) -> history.Record:
    """Run the cases in a process of their own and return the record.

    Raises:
        SystemExit: a case failed: something that is to be timed gives a wrong result.
    """
    cases = SHORT_CASES if short else CASES
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "report.json"
        command = [
            sys.executable, "-m", "pytest", *(f"benchmarks/cases/{name}.py" for name in cases), "-q", "-o", "addopts=",
            "--benchmark-only", "--benchmark-columns=median,iqr,rounds", "--benchmark-sort=name",
            f"--benchmark-json={written}", *(["--short"] if short else []),
        ]  # fmt: skip
        rounds = 40 if short else 200
        before = calm.second_core(rounds)
        if code := subprocess.run(command, cwd=ROOT).returncode:
            raise SystemExit(code)
        return history.record_of(json.loads(written.read_text()), [before, calm.second_core(rounds)])


def guard(new: history.Record) -> int:
    """Hold a short run against the newest recorded one, with a second try; 1 where ratios stay worse."""
    same = history.runs(new["machine"]["class"])
    known = same or history.runs()
    if not known:
        print("no run is recorded yet: nothing to compare with. Record one: python -m benchmarks.run")
        return 0
    old, slack = known[-1], SHORT_SLACK if same else OTHER_MACHINE_SLACK

    def allowed() -> float:
        # Without its second core a machine takes up to twice as long for what two threads do, and for nothing else.
        return slack / min(1.0, *new["second_core"])

    if compare.worse(old, new, allowed()):
        print("some ratios are worse; once more, in case the machine was busy")
        new = compare.best_of(new, measure(short=True))
    found = compare.worse(old, new, allowed())
    for ratio in found:
        print(f"worse: {ratio}")
    verdict = f"{len(found)} ratios are" if found else "no ratio is"
    print(f"{verdict} worse by more than {allowed():.1f} x than on {old['date']} on {old['machine']['cpu']}")
    print(report.calm_line(new))
    return 1 if found else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run, then record or compare; the exit code is 0 unless a result is wrong or a ratio got worse."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--short", action="store_true", help="20 seconds; compares, records nothing")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the record there, not to the history")
    arguments = parser.parse_args(argv)
    print(f"measured is the package in {Path(cnnviz_fast.__file__).parent}")
    record = measure(arguments.short)
    if arguments.out:
        arguments.out.write_text(history.dumps(record))
    if arguments.short:
        return guard(record)
    if not arguments.out:
        print(f"recorded: {history.keep(record).relative_to(ROOT)}")
        report.write()
    print(report.bars_table(report.held_bars([record])))
    print(report.calm_line(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
