"""`cnnviz view`: a server in a process of its own, as users start it, and what is refused before."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from support.command_line import error_of, run
from support.loopback import DIRECT
from support.waiting import wait_until

import cnnviz_fast as cf
from cnnviz_fast.cli import main as cli


def test_view_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    atlas = cf.save_atlas(torch.ones(2, 3, 3), tmp_path / "a.atlas")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        argv = [sys.executable, "-m", "cnnviz_fast", "view", str(atlas), "--no-open", "--port", str(port)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stderr is not None
            try:
                address = server.stdout.readline().strip()
                assert address.startswith("http://127.0.0.1:")
                assert f"port {port} is in use" in server.stderr.readline()
                with DIRECT.open(f"{address}data/a-0-0-0") as answer:
                    assert answer.read() == atlas.read_bytes()
                with pytest.raises(urllib.error.HTTPError, match="421"):
                    DIRECT.open(urllib.request.Request(address, headers={"Host": "evil.example"}))
                # Runs are served without torch, which takes 500 MB.
                if os.path.exists("/proc/self/maps"):
                    assert "libtorch" not in Path(f"/proc/{server.pid}/maps").read_text()
                server.send_signal(signal.SIGINT)
                wait_until(lambda: server.poll() is not None)
                assert server.returncode == cli.DONE
            finally:
                server.kill()


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        ([], cli.USAGE, "Name the folder of a run, or give --model"),
        (["{atlas}", "--port", "70000"], cli.USAGE, "port must be 0 to 65535"),
        (["{atlas}", "--host", "no such host.invalid"], cli.USAGE, "name or an address of this machine"),
        (["--model", "resnet18", "--photos", "."], cli.USAGE, "photos go with a run"),
        (["{atlas}", "--photos", "."], cli.USAGE, "photos go with the folder of a run"),
        (["{atlas}", "--layer", "a"], cli.USAGE, "layer must go with a model"),
        (["{folder}"], cli.FAILED, "holds no atlases"),
        (["{folder}/nothing"], cli.FAILED, "cannot be read"),
    ],
)
def test_view_refuses_in_one_line(
    argv: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    atlas = cf.save_atlas(torch.ones(2, 3, 3), tmp_path / "a.atlas")
    (tmp_path / "folder").mkdir()
    assert run("view", *(part.format(atlas=atlas, folder=tmp_path / "folder") for part in argv)) == code
    assert said in error_of(capsys)
