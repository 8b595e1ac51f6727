"""The table of patches: which image, where on its map, and which box of the photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError, WriteError, reason_of
from ..runtime.extras import import_extra
from ..runtime.files import cannot_write, whole_file

if TYPE_CHECKING:
    from .cut import Place
    from .entries import Entries
    from .photos import Photo

BOX = ("y0", "x0", "y1", "x1")
"""Of a patch in pixels of the upright photo; it may reach beyond the photo."""


def records_of(
    channels: Sequence[int],
    entries: Entries,
    places: Sequence[Sequence[Place | None]],
    photos: Mapping[str, Photo],
) -> list[dict[str, Any]]:
    """Return a record for each patch.

    Args:
        channels: of the rows.
        entries: of the patches.
        places: of the patches; None where that is not known.
        photos: key -> photo.

    Returns:
        Records of channel, rank from 0, value, key of the image, path and member of its photo, its class, the unit's
        y and x on the map, and the box; None for what is not known.
    """
    found = []
    columns = entries.values.tolist(), entries.images.tolist(), entries.positions.tolist(), places
    for channel, *row in zip(channels, *columns, strict=True):
        for rank, (value, key, (y, x), there) in enumerate(zip(*row, strict=True)):
            if not key:
                continue
            photo = photos.get(key)
            record = {"channel": channel, "rank": rank, "value": value, "image": key}
            record |= {name: photo and getattr(photo, name) for name in ("path", "member")}
            record |= {"class": photo and photo.label, "y": y, "x": x}
            found.append(record | dict(zip(BOX, there.box if there else [None] * 4, strict=True)))
    return found


def write_table(path: Path, table: Sequence[Mapping[str, Any]]) -> Path:
    """Write a table as Parquet.

    Args:
        path: the file.
        table: the records.

    Returns:
        The path.

    Raises:
        OptionError: pyarrow is not installed.
        WriteError: the file cannot be written.
    """
    arrow = import_extra("pyarrow", "parquet", "Parquet tables", OptionError)
    parquet = import_extra("pyarrow.parquet", "parquet", "Parquet tables", OptionError)
    kinds = {"channel": arrow.int32(), "rank": arrow.int32(), "value": arrow.float32()}
    kinds |= dict.fromkeys(("image", "path", "member", "class"), arrow.string())
    kinds |= dict.fromkeys(("y", "x"), arrow.int32()) | dict.fromkeys(BOX, arrow.float64())
    try:
        columns = {name: arrow.array([record[name] for record in table], kind) for name, kind in kinds.items()}
        with whole_file(path) as file:
            parquet.write_table(arrow.table(columns), file)
    except arrow.ArrowException as error:
        raise WriteError(f"cannot write {path}: {reason_of(error)}.") from error
    except OSError as error:
        raise cannot_write(path, error) from error
    return path
