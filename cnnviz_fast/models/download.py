"""The servers that keep models' weights: check that they answer, and do without them if they do not."""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.request
from collections.abc import Iterator

from ..errors import advice

DOWNLOAD_TIMEOUT_S = 20
"""How long a server of weights may take to answer. Without a limit, a network that drops packets blocks for minutes."""


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
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
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
