"""JPEGs encoded on the CUDA device where an index plane lies, so that only the bytes of the file leave it.

This needs torchcodec, an optional package, which uses NVIDIA's nvJPEG. Without it, and whenever it fails, Pillow
encodes on the host (see `picture`). nvJPEG writes chroma at full resolution (4:4:4); Pillow's quarter of it (4:2:0)
would blur the edges of tiles. nvJPEG has no grey files: grey sheets get three equal channels. Its working memory is its
own, outside torch's, and torchcodec keeps it for the next sheet.
"""

from __future__ import annotations

import importlib.util
import logging
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import reason_of

if TYPE_CHECKING:
    import torch

    from ..palette import Palette

_LOG = logging.getLogger(__package__)

_TRIAL_DEVICE = "cuda"

MOST_PX = 1 << 28
"""Most pixels of a sheet that nvJPEG gets. It counts its buffer, 2,048 bytes and 384 for each 8 x 8 px, in 32 signed
bits. From 358 million px on that overflows: it fails, and reportedly makes the CUDA context unusable
(https://github.com/NVIDIA/CUDALibrarySamples/issues/360). A sheet of 2^28 px, with sides up to 65,500 px and each
rounded up to 8, needs three quarters of that. A test recomputes all of this."""


def missing(device: str | None = None) -> str:
    """Return why no JPEG can be encoded on a CUDA device, or "" if it can. Encodes one to find out.

    Args:
        device: such as 'cuda:1'; None for the current one.

    Returns:
        The reason. It is found once, unless memory was short, which is tried again the next time.

    Raises:
        RuntimeError: the device was lost.
    """
    try:
        return _fails_on(device or _TRIAL_DEVICE)
    except Exception as error:
        return _failure(error, device or _TRIAL_DEVICE)


@cache
def _fails_on(device: str) -> str:
    """Return why a device cannot encode, or "" if it can; raise an error that may not occur the next time."""
    import torch

    from ..runtime.device import device_at

    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if importlib.util.find_spec("torchcodec") is None:
        return 'torchcodec is not installed, install it with: pip install "cnnviz_fast[cuda-jpeg]"'
    try:
        blank = torch.zeros(16, 16, dtype=torch.uint8, device=device)
        _encode(blank, np.zeros((256, 3), dtype=np.uint8), quality=90)
    except Exception as error:  # an old version, a build without CUDA, or anything else
        if device_at(torch.device(device)).is_full(error):
            raise
        return _failure(error, device)
    return ""


def takes(height: int, width: int, device: str) -> bool:
    """Check whether a sheet of this size, drawn on this CUDA device, can be encoded there."""
    return height * width <= MOST_PX and not missing(device)


def encode(index: torch.Tensor, palette: Palette, quality: int) -> bytes | None:
    """Encode an index plane in its colours, on the device where it lies.

    Args:
        index: (H, W) uint8, on a CUDA device.
        palette: the colours of its entries.
        quality: 1 to 100, on the same scale as Pillow's.

    Returns:
        The file; None if the plane is too large, or torchcodec is missing or fails, which is logged once.

    Raises:
        RuntimeError: the device was lost.
    """
    device, (height, width) = str(index.device), index.shape
    if not takes(height, width, device):
        return None
    try:
        return _encode(index, palette.colors, quality)
    except Exception as error:  # most often no memory: nvJPEG takes several times that of the sheet
        _failure(error, device)
        return None


def _encode(index: torch.Tensor, colors: NDArray[np.uint8], quality: int) -> bytes:
    """Colour and encode an index plane.

    Source:
        JpegEncoder of torchcodec 0.17 takes (3, H, W) uint8, contiguous, and encodes on the current stream, and
        waits for it: src/torchcodec/encoders/_image_encoders.py and src/torchcodec/_core/EncodeJpegCuda.cpp in
        https://github.com/meta-pytorch/torchcodec.
    """
    import torch
    from torchcodec.encoders import JpegEncoder

    table = torch.tensor(colors.T, device=index.device)
    planes = table.index_select(1, index.flatten().int()).view(3, *index.shape)
    encoded: torch.Tensor = JpegEncoder(planes).to_tensor(quality=quality)
    return encoded.cpu().numpy().tobytes()


def _failure(error: Exception, device: str) -> str:
    """Log once why Pillow encodes, and return the reason; raise the error if the device was lost."""
    import torch

    from ..runtime.device import device_at

    if device_at(torch.device(device)).is_lost(error):
        raise error
    reason = reason_of(error, named=True)
    _log_once(reason)
    return reason


@cache
def _log_once(reason: str) -> None:
    """Log why Pillow encodes JPEGs."""
    _LOG.warning("Pillow encodes JPEGs, since torchcodec (0.16 or newer is needed) does not work here: %s", reason)
