"""The servers that keep models' weights: check that they answer, and do without them if they do not."""

from __future__ import annotations

import contextlib
import errno
import urllib.error
import urllib.request
from collections.abc import Iterator

from ..errors import advice
from ..runtime.home import has_folder

DOWNLOAD_TIMEOUT_S = 20
"""How long a server of weights may take to answer. Without a limit, a network that drops packets blocks for minutes."""

_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT}


@contextlib.contextmanager
def kept_under(variable: str) -> Iterator[None]:
    """Name, in the errors of a download, the variable for another folder where the usual one cannot be written.

    Args:
        variable: of the environment, such as TORCH_HOME.

    Raises:
        OSError: it cannot, or there is no home folder.
    """
    if not has_folder(variable):
        raise OSError(f"there is no home folder to keep them in: set HOME or {variable}")
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_WRITABLE or not error.filename:
            raise
        raise OSError(f"{error.strerror}: {error.filename}; set {variable} to another folder") from error


def knock(url: str) -> None:
    """Check that a server answers, with the timeout that torch.hub's own request lacks.

    Raises:
        OSError: it does not answer.
    """
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=DOWNLOAD_TIMEOUT_S).close()
    except urllib.error.HTTPError as answer:  # the server is there; the download shows what is wrong
        answer.close()


@contextlib.contextmanager
def hub_or_cache() -> Iterator[None]:
    """Keep the hub's client to its cache while its server cannot be reached.

    By itself it requests each file six times, for 23 s in all (huggingface_hub 2.4), before it looks into the cache.

    Raises:
        OSError: see `kept_under`.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with kept_under("HF_HOME"):
        try:
            if not before:
                try:
                    knock(constants.ENDPOINT)
                except OSError:
                    constants.HF_HUB_OFFLINE = True
            yield
        finally:
            constants.HF_HUB_OFFLINE = before


def without_weights(*, has_file: bool = True) -> str:
    """Return what to do where the weights asked for cannot be had.

    Args:
        has_file: whether a file of weights may be given instead.

    Returns:
        A sentence.
    """
    none, path = advice("weights='none'", "--weights none"), advice("weights=PATH", "--weights PATH")
    return f"Use {none} for random weights{f', or {path} for a file that is here' if has_file else ''}."
