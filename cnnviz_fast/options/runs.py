"""What a run over many images makes, and how it goes about it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from .declared import SelfChecking, option, takes_keywords
from .keywords import OwnRunKeywords
from .parsers import choice, choices, flag, positive, text, whole, whole_within

if TYPE_CHECKING:
    from typing_extensions import Unpack

SAVES = ("sheets", "tiles", "atlases", "maps", "sum", "mean", "max", "statistics", "top", "attribution")
PROGRESS = ("auto", "bar", "json", "none")
ENGINES = ("local", "ray")
TOP_BY = ("max", "mean", "min")

MOST_ENTRIES = 2**16
"""Of a channel: far more than anybody looks at, and few enough to be held."""

MOST_REPEATS = 2**8
MOST_BANDS = 2**6

SAMPLE_OF_A_BAND = 8
"""Images of the sample behind bands for each that is drawn."""

CLASS_FOLDERS = "folders"
"""Of `labels`: the class of an image is the folder that it lies in."""


def most_drawn(bands: int) -> int:
    """Return the most images that can be drawn from each of so many bands; 0 bands are draws from all images."""
    return MOST_ENTRIES // (SAMPLE_OF_A_BAND * bands) if bands else MOST_ENTRIES


@takes_keywords(OwnRunKeywords)
@dataclass(frozen=True, kw_only=True)
class RunOptions(SelfChecking):
    """What a run over many images makes, and how it goes about it."""

    if TYPE_CHECKING:

        def __init__(self, **options: Unpack[OwnRunKeywords]) -> None: ...

    save: tuple[str, ...] = option(
        "sheets",
        choices(*SAVES),
        "sheets (default), tiles (a file a channel), atlases (to be drawn later), maps, their sum, mean or max, "
        "statistics, top, attribution (see below); such as sheets,statistics",
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
    timeout: float = option(60.0, positive, "most seconds to read an image", "SECONDS", "run")
    strict: bool = option(False, flag, "stop at the first image that fails", group="run")
    shards: int | None = option(None, whole(1), "write tar files of about this size, not loose files", "MB", "run")
    parquet: bool = option(False, flag, "write the index as index.parquet too", group="run")
    statistics: str | None = option(
        None,
        text,
        "for normalize dataset: of an earlier run (else measured)",
        "RUN", "run",
    )  # fmt: skip
    progress: str = option(
        "auto", choice(*PROGRESS), "auto (default), bar, json (a line a second) or none", "HOW", "run"
    )
    engine: str = option("local", choice(*ENGINES), "local: this process; ray: Ray's actors", "NAME", "run")
    address: str | None = option(None, text, "address of a Ray cluster (default: one on this machine)", "HOST", "run")
    array: bool = option(False, flag, "share it with the tasks of this job array (Slurm, SGE)", group="run")
    top_k: int = option(16, whole_within(1, MOST_ENTRIES), "images kept for each channel, the strongest", "K", "top")
    top_by: str = option("max", choice(*TOP_BY), "response to an image: max (default), mean, min of a map", "H", "top")
    top_repeat: int = option(1, whole_within(1, MOST_REPEATS), "most entries of one image in a channel", "N", "top")
    top_random: int = option(0, whole_within(0, MOST_ENTRIES), "random images too, of those that excite it", "N", "top")
    top_bands: int = option(0, whole_within(0, MOST_BANDS), "as many from each of N bands of response", "N", "top")
    top_seed: int = option(0, whole(0), "seed of the random images", "N", "top")
    labels: str | None = option(
        None,
        text,
        "classes of images: folders, or a .csv, .tsv, .json file",
        "FILE", "top",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.address is not None and self.engine != "ray":
            raise OptionError(f"address goes with engine 'ray', got engine {self.engine!r}.")
        if "top" not in self.save and (given := [name for name, value in TOP.items() if getattr(self, name) != value]):
            raise OptionError(f"{given[0]} goes with save 'top', got save {','.join(self.save)!r}.")
        if self.top_bands and not self.top_random:
            raise OptionError("top_bands go with top_random, the images of each band. Give both.")
        if self.top_by == "mean" and self.top_repeat > 1:
            raise OptionError(f"top_repeat must be 1 with top_by 'mean', since a map has one, got {self.top_repeat}.")
        if self.top_random > (most := most_drawn(self.top_bands)):
            raise OptionError(
                f"top_random must be at most {most:,} with {self.top_bands} top_bands, got {self.top_random:,}."
            )

    @property
    def top(self) -> dict[str, Any]:
        """Return the options of the images that excite each channel most, without labels."""
        return {name: getattr(self, name) for name in TOP if name != "labels"}


TOP: dict[str, Any] = {
    field.name: field.default for field in dataclasses.fields(RunOptions) if field.metadata["group"] == "top"
}
"""Options of the images that excite each channel most -> what they are where they are left out."""
