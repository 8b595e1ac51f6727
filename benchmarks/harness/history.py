"""Records of runs: one small JSON file a run, in a folder for each class of machine.

Such as history/amd-epyc-2-cores-avx2/2025-01-31T1200-0a1b2c3.json, which holds
{"date", "commit", "machine", "second_core", "versions", "tables": {table: {contender: {"median_s", ...}}}}.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import ROOT
from benchmarks.harness import outputs
from cnnviz_fast.formats import png
from cnnviz_fast.runtime.workers import default_threads

FOLDER = ROOT / "benchmarks" / "history"
PACKAGES = ("torch", "torchvision", "numpy", "numba", "opencv-python-headless", "pillow", "matplotlib")

Record = dict[str, Any]


def cpu_model() -> str:
    """Return the processor's name as the system gives it, without clock rates and trade marks."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"^model name\s*: (.+)$", info.read_text(), re.M)):
        name = found[1]
    return " ".join(re.sub(r"\((R|TM)\)|@.*|\b(CPU|Processor|\d+-Core)\b", " ", name).split())


def machine() -> dict[str, Any]:
    """Describe this machine by what times depend on, and by nothing that would tell whose it is."""
    cpu, cores = cpu_model(), default_threads()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    native, _ = png.native()
    vectors = native.vector_level() if native else "no native encoder"
    return {
        "class": re.sub(r"[^a-z0-9]+", "-", f"{cpu} {cores} cores {vectors} {gpu}".lower()).strip("-"),
        "cpu": cpu,
        "cores": cores,
        "vectors": vectors,
        "system": f"{platform.system()} {platform.machine()}",
        "files_in": outputs.place(),
        **({"gpu": gpu} if gpu else {}),
    }


def versions() -> dict[str, str]:
    """Return the versions that times depend on."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def commit() -> str:
    """Return the commit, followed by + where files differ from it; "unknown" outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()

    try:
        # What a run itself writes is no change.
        own = (":!README.md", ":!benchmarks/RESULTS.md", ":!benchmarks/history")
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", ":/", *own) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def record_of(report: dict[str, Any], second_core: Sequence[float]) -> Record:
    """Make a record of a run.

    Args:
        report: of pytest-benchmark. Its medians and spreads are kept, its single times are not.
        second_core: how calm the machine was before and after, see calm.second_core.

    Returns:
        The record.
    """
    tables: dict[str, dict[str, Any]] = {}
    for case in report["benchmarks"]:
        info = dict(case["extra_info"])
        entry = {"role": info.pop("role"), **{f"{key}_s": case["stats"][key] for key in ("median", "min", "iqr")}}
        entry["rounds"] = case["stats"]["rounds"]
        if info["bytes"]:
            entry["gb_per_s"] = info["bytes"] / entry["median_s"] / 1e9
        table, contender = info.pop("table"), info.pop("contender")
        left_out = {"bytes": 0, "threads": 1, "of": 1, "ran": info["of"], "version": ""}
        entry.update({key: value for key, value in info.items() if value != left_out.get(key)})
        tables.setdefault(table, {})[contender] = {
            key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in entry.items()
        }
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes").removesuffix("+00:00")
    return {
        "date": date,
        "commit": commit(),
        "machine": machine(),
        "second_core": [round(share, 2) for share in second_core],
        "versions": versions(),
        "tables": tables,
    }


def dumps(record: Record) -> str:
    """Return a record as JSON with a line for each contender, so that a difference between two can be read."""
    head = {key: value for key, value in record.items() if key != "tables"}
    tables = ",\n".join(
        f"  {json.dumps(table)}: {{\n"
        + ",\n".join(f"   {json.dumps(name)}: {json.dumps(entry)}" for name, entry in contenders.items())
        + "\n  }"
        for table, contenders in record["tables"].items()
    )
    return json.dumps(head, indent=1)[:-2] + ',\n "tables": {\n' + tables + "\n }\n}\n"


def load(path: Path) -> Record:
    """Read a record."""
    record: Record = json.loads(path.read_text())
    return record


def keep(record: Record) -> Path:
    """Add a record to the history."""
    name = f"{record['date'].replace(':', '')}-{record['commit'].replace('+', '-changed')}.json"
    path = FOLDER / record["machine"]["class"] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dumps(record))
    return path


def runs(machine_class: str = "*") -> list[Record]:
    """Return the kept records of a class of machines, or of all, oldest first."""
    return sorted(map(load, FOLDER.glob(f"{machine_class}/*.json")), key=lambda record: str(record["date"]))
