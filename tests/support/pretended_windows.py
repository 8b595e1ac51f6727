"""A process that lacks what Windows lacks: it imports all of the package, and draws, runs and makes a page.

    python -m support.pretended_windows FOLDER

What the package is built on has begun on the system that is really there; the package begins on this one. Paths and
processes stay those of the system.
"""

from __future__ import annotations

import errno
import fcntl as posix_locks
import importlib
import os
import pkgutil
import signal
import socket
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEFORE = ("numba", "PIL.Image", "safetensors.torch", "starlette.applications", "torchvision.transforms.v2", "uvicorn")
"""What decides by the system that is there when it is imported."""

POSIX_MODULES = ("fcntl", "grp", "posix", "pwd", "resource", "syslog", "termios", "tty", "pty")

POSIX_NAMES = {
    os: """O_CLOEXEC O_DIRECTORY O_DSYNC O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH O_SYNC O_TMPFILE chown chroot
        copy_file_range environb eventfd fchdir fchmod fchown fdatasync fork forkpty fstatvfs getegid geteuid getgid
        getgroups getloadavg getpgid getpgrp getpriority getresuid getsid getuid getxattr initgroups killpg lchown
        listxattr lockf major makedev memfd_create minor mkfifo mknod nice openpty pathconf pipe2 posix_fadvise
        posix_fallocate posix_spawn pread preadv pwrite pwritev readv register_at_fork removexattr sched_getaffinity
        sched_setaffinity sched_yield sendfile setegid seteuid setgid setpgid setsid setuid setxattr splice statvfs
        sync sysconf tcgetpgrp ttyname uname wait wait3 wait4 waitid writev""",
    signal: """SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIGWINCH alarm
        getitimer pause pthread_kill pthread_sigmask setitimer sigwait""",
    socket: "AF_UNIX CMSG_LEN SCM_RIGHTS recv_fds send_fds",
}  # fmt: skip


def msvcrt() -> types.ModuleType:
    """Return the locks of Windows, made of those of this system: the bytes behind the position of a descriptor."""
    module = types.ModuleType("msvcrt")
    module.LK_LOCK, module.LK_NBLCK = 1, 2

    def locking(descriptor: int, mode: int, count: int) -> None:
        kind = posix_locks.LOCK_EX | (posix_locks.LOCK_NB if mode == module.LK_NBLCK else 0)
        try:
            posix_locks.lockf(descriptor, kind, count, os.lseek(descriptor, 0, os.SEEK_CUR))
        except OSError as error:
            raise OSError(errno.EACCES, "Permission denied") from error

    module.locking = locking
    return module


def refusing_open_files(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call that moves or removes files, which refuses those that this process has open."""

    def refuse(*paths: Any, **more: Any) -> Any:
        held = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
        held |= {line.split(maxsplit=5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines()}
        for path in paths:
            if os.path.realpath(os.fsdecode(path)) in held:
                raise PermissionError(errno.EACCES, f"it is open: {path}")
        return call(*paths, **more)

    return refuse


def import_all() -> None:
    """Import every module of the package, but for those of Ray, which may not be installed."""
    package = importlib.import_module("cnnviz_fast")
    names = [found.name for found in pkgutil.walk_packages(package.__path__, "cnnviz_fast.")]
    for name in names:
        if ".ray" not in name and not name.endswith("__main__"):
            importlib.import_module(name)


def become_windows() -> None:
    """Take away what Windows lacks, and let files be that are open; the package is imported after that."""
    for module in POSIX_MODULES:
        sys.modules[module] = None  # which no import takes
    sys.modules["msvcrt"] = msvcrt()
    for module, names in POSIX_NAMES.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    for name in ("replace", "rename", "unlink", "remove"):
        setattr(os, name, refusing_open_files(getattr(os, name)))
    tempfile.TemporaryFile = tempfile.NamedTemporaryFile  # as it is there
    for name in [name for name in sys.modules if name.startswith("cnnviz_fast")]:
        del sys.modules[name]
    sys.platform = "win32"
    from cnnviz_fast.runtime.native import native

    if (encoder := native()[0]) is not None:
        encoder.move_file = refusing_open_files(encoder.move_file)


def main(folder: Path) -> None:
    """Import, draw, run, take a damaged run up, and make a page."""
    for module in BEFORE:
        importlib.import_module(module)
    become_windows()
    import_all()

    from cnnviz_fast.cli.main import main as cnnviz
    from cnnviz_fast.diagnostics import demo

    def call(command: str, *arguments: object) -> None:
        assert cnnviz([command, *map(str, arguments)]) == 0, (command, arguments)

    photos = Path(demo.__file__).parent / "photos"
    drawn = ["cnnviz:small", photos / "cat.jpg", photos / "coffee.jpg", "--layer", "stage1", "--size", 32]
    run = [*drawn, "--readers", 0, "--quiet"]
    collected = [*run, "--tile", 9, "--save", "sheets,statistics,top", "--out", folder / "run"]
    packed = [*run, "--save", "atlases", "--shards", 1, "--out", folder / "packed"]
    call("render", *drawn, "--tile", 9, "--out", folder / "sheets")
    call("render", *drawn, "--tile", 9, "--each", "--out", folder / "tiles")
    call("run", *collected)
    (folder / "run" / "stage1" / "cat.png").unlink()
    call("run", *collected)
    call("run", *packed)
    call("run", *packed)
    call("atlas", folder / "packed", "--tile", 9, "--out", folder / "atlases")
    call("page", *drawn, "--out", folder / "page.html")
    call("patches", folder / "run", "--layer", "stage1", "--channels", "0-3", "--out", folder / "patches")
    call("doctor")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
