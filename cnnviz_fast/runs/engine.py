"""What a run asks of an engine, which does the work: this process (local.py), or Ray's actors (ray/engine.py)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..models.loaded import LoadedModel
from ..runtime.stage_times import Stages
from .batches import Findings, OutputSpec
from .images import Images
from .outcomes import ImageId, Outcome
from .spec import RunSpec


@dataclass(frozen=True)
class EngineTask:
    """What an engine is to do.

    Attributes:
        model: to run.
        images: all images of the run.
        spec: of the run.
        output_spec: what is made of every image.
        findings: what is learnt on the way; the engine adds to it.
        is_done: key of an image -> whether it is left out. Called once for each image.
        named: position of an image -> its key, name and stem.
        stop: no further batch is begun once it is set.
        stages: seconds in each stage; the engine adds those that this process does not measure itself.
    """

    model: LoadedModel
    images: Images
    spec: RunSpec
    output_spec: OutputSpec
    findings: Findings
    is_done: Callable[[str], bool]
    named: Callable[[int], ImageId]
    stop: threading.Event
    stages: Stages


class Engine(Protocol):
    """Makes the outputs of images."""

    def stop_event(self, folder: Path) -> threading.Event:
        """Return the event that stops a run in a folder."""

    def outcomes(self, task: EngineTask) -> Generator[Outcome, None, None]:
        """Make what is wanted of the images.

        Args:
            task: what is to be done.

        Yields:
            What became of each batch. Closing the generator ends all work that is still under way.

        Raises:
            CnnvizError: an error of every image.
        """
