"""The oldest torch that reads checkpoints of its own format safely; the package runs with older ones too."""

from __future__ import annotations

import re

from ..errors import ModelError, advice

SAFE = (2, 10)
"""Before torch 2.10 a file could write outside its tensors in spite of weights_only=True, and so run code
(CVE-2026-24747):
https://github.com/pytorch/pytorch/security/advisories/GHSA-63cw-57p8-fm3p"""


def check_torch_reads_safely(label: str, trusted: bool) -> None:
    """Check that a file of torch's own format cannot run code while this torch reads it, or is trusted not to.

    Args:
        label: what to call the file in messages.
        trusted: whether the user says where it comes from.

    Raises:
        ModelError: torch is too old for a file that is not trusted.
    """
    import torch

    found = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if trusted or (found is not None and (int(found[1]), int(found[2])) >= SAFE):
        return
    raise ModelError(
        f"{label} must be read by torch 2.10 or later, in which such a file cannot run code, got torch "
        f"{torch.__version__}. If you trust it, pass {advice('trust_checkpoint=True', '--trust-checkpoint')}; files of "
        f"safetensors need no trust."
    )
