"""What a run over many images makes, and how it goes about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import OptionError
from .declared import SelfChecking, option, takes_keywords
from .keywords import OwnRunKeywords
from .parsers import choice, choices, flag, positive, text, whole

if TYPE_CHECKING:
    from typing_extensions import Unpack

SAVES = ("sheets", "tiles", "atlases", "maps", "sum", "mean", "max", "statistics")
PROGRESS = ("auto", "bar", "json", "none")
ENGINES = ("local", "ray")


@takes_keywords(OwnRunKeywords)
@dataclass(frozen=True, kw_only=True)
class RunOptions(SelfChecking):
    """What a run over many images makes, and how it goes about it."""

    if TYPE_CHECKING:

        def __init__(self, **options: Unpack[OwnRunKeywords]) -> None: ...

    save: tuple[str, ...] = option(
        "sheets",
        choices(*SAVES),
        "sheets (default), tiles (a file for each channel), atlases (to be drawn later), maps, their sum, mean or max, "
        "statistics (of all images); such as sheets,statistics",
        "KINDS", "run",
    )  # fmt: skip
    batch: int | None = option(None, whole(1), "images at once, as memory allows (default 16, CUDA 64)", "N", "run")
    readers: int | None = option(
        None,
        whole(0),
        "processes that read (default: half the cores, at most 8; 0: a thread), or Ray's actors (default: one a GPU, "
        "else one for two CPUs, at most 8)",
        "N", "run", older="workers",
    )  # fmt: skip
    timeout: float = option(60.0, positive, "time for an image to be read", "SECONDS", "run")
    strict: bool = option(False, flag, "stop at the first image that fails", group="run")
    shards: int | None = option(None, whole(1), "write tar files of about this size, not loose files", "MB", "run")
    parquet: bool = option(False, flag, "write the index as index.parquet too", group="run")
    statistics: str | None = option(
        None,
        text,
        "of an earlier run, for normalize dataset (else measured)",
        "FILE", "run",
    )  # fmt: skip
    progress: str = option(
        "auto", choice(*PROGRESS), "auto (default), bar, json (a line a second) or none", "HOW", "run"
    )
    engine: str = option("local", choice(*ENGINES), "local: this process; ray: Ray's actors", "NAME", "run")
    address: str | None = option(None, text, "of a Ray cluster (default: one on this machine)", "HOST", "run")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.address is not None and self.engine != "ray":
            raise OptionError(f"address goes with engine 'ray', got engine {self.engine!r}.")
