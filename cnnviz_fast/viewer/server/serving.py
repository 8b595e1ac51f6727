"""The server runs: a port is found, the address told, and requests are answered until it is interrupted."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...errors import OptionError, reason_of
from ...runtime.extras import import_extra
from ..collection import Collection
from ..computed import Compute, directly
from .safety import LOOPBACK, Access, new_token

if TYPE_CHECKING:
    from .live import LiveRun

PORT = 8720
"""Of the server where none is given: one that no well-known service has."""

TRIES = 20
"""Ports that are tried, one after the other, where the one before is in use."""

MOST_HEAD_BYTES = 1 << 18
"""Of a request: the address of a sheet names its channels, 7 bytes each where a layer of 30,000 is sorted."""

EVERYWHERE = ("0.0.0.0", "::", "")
"""Hosts that stand for all addresses of this machine."""


def refuse_without_extra() -> None:
    """Raise OptionError, with the command that installs it, where the server's packages are missing."""
    for package in ("starlette", "uvicorn"):
        import_extra(package, "view", "local servers", OptionError)


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a port, or on one of the next where that is in use.

    Args:
        host: name or address to listen on.
        port: the port; 0 for any that is free.

    Raises:
        OptionError: the host is none of this machine's, or no port is free.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise OptionError(f"host must be a name or an address of this machine, got {host!r}.") from error
    # Windows means by SO_REUSEADDR that others may listen on the same port.
    alone = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
    for candidate in range(port, min(port + TRIES, 65536)):
        found = socket.socket(family, socket.SOCK_STREAM)
        try:
            found.setsockopt(socket.SOL_SOCKET, alone, 1)
            found.bind((address[0], candidate, *address[2:]))
            found.listen()
        except OSError as error:
            found.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise OptionError(f"host {host!r} cannot be listened on: {reason_of(error)}.") from error
            continue
        return found
    raise OptionError(f"port must be free, and {port} to {port + TRIES - 1} are not. Give another.")


def serve(
    shown: Collection,
    listening: socket.socket,
    host: str,
    *,
    live: LiveRun | None = None,
    compute: Compute = directly,
    token: str | None = None,
    started: Callable[[str], object] = lambda address: None,
) -> None:
    """Answer requests until the process is interrupted.

    Args:
        shown: what is shown.
        listening: see bound_socket.
        host: that it listens on. On others than LOOPBACK every request needs a token.
        live: a model that looks at uploads, whose run is the last one that is shown.
        compute: calls what takes torch.
        token: of every request; None makes one where one is needed.
        started: called with the address to open.
    """
    import h11
    import uvicorn

    from .app import application

    port = listening.getsockname()[1]
    needs_token = host not in LOOPBACK or token is not None
    access = Access(host, port, (token or new_token()) if needs_token else None)
    shown_host = socket.gethostname() if host in EVERYWHERE else host
    name = f"[{shown_host}]" if ":" in shown_host else shown_host
    address = f"http://{name}:{port}/" + (f"?token={access.token}" if access.token else "")

    config = uvicorn.Config(
        application(shown, access, live, compute), http="h11", log_level="error", access_log=False, lifespan="off",
        server_header=False, timeout_graceful_shutdown=1, timeout_keep_alive=30,
        h11_max_incomplete_event_size=MOST_HEAD_BYTES,
    )  # fmt: skip

    def is_ours(record: logging.LogRecord) -> bool:
        """Return whether an error is of this server, not of a request that stops being HTTP while it is answered."""
        return not (record.exc_info and isinstance(record.exc_info[1], h11.LocalProtocolError))

    for logger in ("uvicorn.error", "asyncio"):  # which close its connection, and show a traceback
        logging.getLogger(logger).addFilter(is_ours)
    started(address)  # who asks from now on waits until the server takes what comes to the socket
    with contextlib.suppress(KeyboardInterrupt):  # which is how a server ends
        uvicorn.Server(config).run(sockets=[listening])
