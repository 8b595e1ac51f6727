"""The built program of the viewer, which is in the repository beside its source."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

VIEWER = Path(__file__).parents[2] / "cnnviz_fast" / "viewer"


@pytest.mark.skipif(
    not shutil.which("node") or not (VIEWER / "source" / "node_modules").is_dir(),
    reason="no Node, or `npm ci` has not been run in cnnviz_fast/viewer/source",
)
def test_bundle_is_what_the_source_builds() -> None:
    build = ["node", "build.mjs", "--check"]  # `npm run check` looks at the types too, which takes ten times as long
    check = subprocess.run(build, cwd=VIEWER / "source", capture_output=True, text=True)
    assert check.returncode == 0, check.stdout + check.stderr


def test_bundle_is_small() -> None:
    program, style = ((VIEWER / "static" / name).read_bytes() for name in ("viewer.js", "viewer.css"))
    assert len(gzip.compress(program)) + len(gzip.compress(style)) <= 60_000


def test_bundle_may_stand_inside_a_page() -> None:
    program, style = ((VIEWER / "static" / name).read_text("ascii") for name in ("viewer.js", "viewer.css"))
    assert "</" not in style
    assert "</script" not in program.lower()
    assert "<!--" not in program
