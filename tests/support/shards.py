"""Small image files and tar shards of them."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

from PIL import Image

from cnnviz_fast.inputs.in_memory import decode_image


def png(value: int) -> bytes:
    """Return the file of a PNG of 4 x 4 px, all of one grey."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value,) * 3).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form, errors="surrogateescape") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def greys(items: object) -> list[int]:
    """Read items and return the grey of each, after a trip through pickle."""
    return [decode_image(pickle.loads(pickle.dumps(item)).open()).getpixel((0, 0))[0] for item in items]
