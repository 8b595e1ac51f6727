"""What a run over many images makes, and how it goes about it."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import OptionError
from .declared import SelfChecking, option
from .parsers import (
    choice,
    choices,
    flag,
    positive,
    text,
    whole,
)

SAVES = ("sheets", "tiles", "atlases", "maps", "sum", "mean", "max", "statistics")


PROGRESS = ("auto", "bar", "json", "none")


ENGINES = ("local", "ray")


@dataclass(frozen=True, kw_only=True)
class RunOptions(SelfChecking):
    """Say what a run over many pictures makes, and how it goes about it."""

    save: tuple[str, ...] = option(
        "sheets",
        choices(*SAVES),
        "what comes out of each picture and layer: sheets, a file for each channel (tiles), small files that are drawn "
        "later at any size (atlases), the maps themselves (maps) or their sum, mean or max over the channels; and of "
        "all pictures together statistics. Several as sheets,statistics",
        "|".join(SAVES),
    )
    batch: int | None = option(
        None, whole(1), "pictures that go through the model at once (default 16, on CUDA 64); fewer where memory ends",
        "N",
    )  # fmt: skip
    workers: int | None = option(
        None,
        whole(0),
        "processes that read pictures (default: half the cores, at most 8); 0 reads in a thread. With engine ray, "
        "actors (default: one for each GPU of the cluster, or else for every two CPUs, at most 8)",
        "N",
    )
    timeout: float = option(60.0, positive, "seconds that a picture may take to be read", "SECONDS")
    strict: bool = option(False, flag, "stop at the first picture that fails")
    shards: int | None = option(
        None, whole(1), "write tar files instead of loose ones, each ended with the batch that makes it so large", "MB"
    )
    parquet: bool = option(False, flag, "write the index as index.parquet too")
    statistics: str | None = option(
        None, text, "file of the statistics of an earlier run, for normalize dataset (default: run over them first)",
        "FILE",
    )  # fmt: skip
    progress: str = option(
        "auto",
        choice(*PROGRESS),
        "what is said meanwhile on stderr: a bar, a line of JSON a second, or nothing (auto: a bar where somebody sees "
        "it)",
        "|".join(PROGRESS),
    )
    engine: str = option("local", choice(*ENGINES), "what runs it: this process, or Ray's actors", "|".join(ENGINES))
    address: str | None = option(None, text, "of a Ray cluster, with engine ray (default: one on this machine)", "HOST")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.address is not None and self.engine != "ray":
            raise OptionError(f"address goes with engine 'ray', got engine {self.engine!r}.")
