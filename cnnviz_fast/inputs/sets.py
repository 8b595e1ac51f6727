"""Files that stand for any number of images, known by their endings: lists, tars and tables."""

from __future__ import annotations

LISTS = (".txt", ".lst")
TAR = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
PARQUET = ".parquet"


def kind_of_set(name: str) -> str | None:
    """Return what a file is that stands for any number of images, in words; None for any other.

    Args:
        name: of the file; it is not opened.

    Returns:
        Such as "a list of images".
    """
    ending = name.lower()
    for kind, endings in (("list", LISTS), ("tar file", TAR), ("compressed tar file", COMPRESSED), ("table", PARQUET)):
        if ending.endswith(endings):
            return f"a {kind} of images"
    return None


def unpacked_name(name: str) -> str:
    """Return what a compressed tar file is called once it is unpacked; any other name is unchanged."""
    compressed = next((each for each in COMPRESSED if name.lower().endswith(each)), None)
    return name if compressed is None else name[: -len(compressed)] + TAR
