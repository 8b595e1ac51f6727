"""The servers that keep models' weights: asked for an answer, or left alone where they give none."""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.request
from collections.abc import Iterator

DOWNLOAD_TIMEOUT_S = 20
"""How long a server of weights may take to answer; a network that drops packets would hold a download for minutes."""


def knock(url: str) -> None:
    """Ask a server for anything at all, with the timeout that torch.hub's own request lacks; OSError without answer."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=DOWNLOAD_TIMEOUT_S).close()
    except urllib.error.HTTPError as answer:  # it is there; what is wrong shows in the download
        answer.close()


@contextlib.contextmanager
def hub_or_cache() -> Iterator[None]:
    """Let the hub's client use its cache alone while its server cannot be reached.

    Left to itself it tries each file six times, 23 s in all (huggingface_hub 2.4), before it looks into the cache.
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
