"""A run in a folder as it is shown: its index says which images there are, its atlases lie in files and tars."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..channels.dataset_files import facts_of, read_columns
from ..errors import AtlasError, CnnvizError, InputError
from ..formats.atlas_files import AtlasFile
from ..formats.atlas_head import SUFFIX, AtlasHead
from ..inputs.arrays import ARRAY_EXTENSIONS
from ..models.views import view_as_described
from ..patches.top_files import read_classes, top_layers_of
from ..provenance import Provenance
from ..runs.folder.index import Line
from ..runs.folder.run_file import fingerprint_in, refuse_older
from ..runs.folder.tar_members import TarMembers, paths_of
from ..runtime.run_files import collected_name
from .arrays import array_preprocess_in, planes_of
from .commands import recipe_in
from .computed import Compute, directly, patches, similarity, view_of_array
from .index import RunIndex
from .payloads import statistics_payload
from .photos import Photos
from .shown import ShownImage, ShownLayer, ShownScore, inside, model_of, view_size

if TYPE_CHECKING:
    from ..patches.classes import ClassResponses

STATISTICS_NAME, TOP_NAME = map(collected_name, ("statistics", "top"))

FIRST_IMAGES = 100
"""Of a run are looked at for the layers that it has."""

SIMILAR_IMAGES = 16
"""Over which channels are compared, at most."""

_MOST_TAR_BYTES = 1 << 62


class RunFolder:
    """A run in a folder; see ShownRun. What it holds is read when it is looked at.

    Images are listed, and their atlases and photos found, without torch, which takes 500 MB and seconds to load: only
    what is computed of a run loads it, which a server does in another process.
    """

    def __init__(
        self,
        folder: Path,
        notes: list[str],
        photos: Photos | None = None,
        cut_at_once: int = 1,
        compute: Compute = directly,
    ) -> None:
        """Find the images of a run and its layers.

        Args:
            folder: of the run.
            notes: gets a sentence on each file that is damaged: what there is of it is left out.
            photos: where its photos lie now; None shows none.
            cut_at_once: channels whose patches are cut together, for which each photo is decoded once.
            compute: calls what takes torch.

        Raises:
            InputError: it is no run, one of an older version, or one without atlases.
        """
        facts = fingerprint_in(folder)
        if facts is None:
            raise InputError(f"folder {str(folder)!r} is not that of a run: it has no run.json.")
        refuse_older(folder, facts)
        self._folder, self._photos, self._facts = folder, photos, facts
        self._notes, self._cut_at_once, self._compute = notes, cut_at_once, compute
        try:
            self._index = RunIndex(folder)
        except OSError as error:
            raise InputError(f"the index of run {str(folder)!r} cannot be read: {error.strerror}.") from error
        self.name = folder.name or str(folder)
        self.model = model_of(facts)
        self.image_count = len(self._index)
        if self._index.is_damaged:
            notes.append(f"the index of run {self.name!r} is damaged, and what is behind the damage is not shown.")
        self._of_top = top_layers_of(folder / TOP_NAME)
        measured = facts_of(folder / STATISTICS_NAME).get("layers")
        self._measured = measured if isinstance(measured, list) else list(self._statistics)
        if not self._of_top[0]:
            self._read_whole(TOP_NAME, read_classes)  # which says why, where there is such a file
        self._sizes: dict[tuple[str, ...], tuple[int, int]] = {}
        self._arrays = array_preprocess_in(facts.get("preprocess"))
        self._leaves_planes_out = facts.get("planes") is not None  # so that nothing says where the others lie
        first = self._first_atlases()
        if not first:
            raise InputError(
                f"run {str(folder)!r} holds no atlases, which are what is shown. Make another: "
                f"cnnviz run MODEL SOURCE --layer L --save atlases --out DIR"
            )
        heads = {name: head for name, file in first.items() if (head := _head_of(file)) is not None}
        self.layers = [ShownLayer.of(name, heads[name], self._kinds_of(name)) for name in heads]
        self._numbers = {layer.name: number for number, layer in enumerate(self.layers)}
        self.recipe = recipe_in(facts, next((head.provenance for head in heads.values()), Provenance()))

    def image(self, number: int) -> ShownImage:
        """See ShownRun."""
        lines = self._index.lines(number)
        named = [line for line in lines if isinstance(line.get("layer"), str) and _atlas_in(line) is not None]
        there = {line["layer"]: line for line in named}
        absent = tuple(n for n, layer in enumerate(self.layers) if layer.name not in there)
        name = lines[0].get("image") if lines else None
        shapes = tuple(str(line.get("shape")) for line in there.values())  # of a damaged line anything
        if shapes not in self._sizes:  # most images of a run are of one size, which the first of them tells
            heads = [self._head(number, layer) for layer in there]
            self._sizes[shapes] = view_size([head for head in heads if head is not None])
        has_photo = self._photo_path(lines) is not None
        under: dict[tuple[int, int], int] = {}  # one frame for all layers of as many planes
        frames = {layer: under.setdefault(place, layer) for layer, place in self._planes(lines).items() if has_photo}
        # The heat maps of a run are layers too, with a channel for each target.
        scores = tuple(
            ShownScore(None, said, self._numbers[layer], channel)
            for layer, channel, said in _scores_in(named)
            if layer in self._numbers
        )
        return ShownImage(str(name or f"image {number}"), self._sizes[shapes], has_photo, absent, scores, frames)

    def atlas(self, layer: int, image: int) -> AtlasFile | None:
        """See ShownRun."""
        return self._atlas_of(self.layers[layer].name, image)

    def photo(self, image: int, frame: int | None = None) -> bytes | None:
        """See ShownRun."""
        lines = self._index.lines(image)
        path = self._photo_path(lines)
        if path is None or self._photos is None:
            return None
        place = (None, 1) if frame is None else self._planes(lines).get(frame)
        if place is None:
            return None
        if self._arrays is not None:
            return self._compute(view_of_array, path, self._arrays, self._photos.max_pixels, *place)
        return self._photos.view(path, lambda *size: view_as_described(self._facts.get("preprocess"), *size))

    def payload(self, kind: str, layer: int, channel: int | None = None) -> bytes | None:
        """See ShownRun."""
        name = self.layers[layer].name
        if kind == "similarity":
            files = (self._file_of(layer, image) for image in range(min(SIMILAR_IMAGES, self.image_count)))
            return self._compute(similarity, list(filter(None, files)), name, self.layers[layer].shape[0])
        if kind == "patches" and channel is not None and self._photos is not None:
            return self._compute(patches, self._folder, self._photos, self._cut_at_once, name, channel)
        if kind == "statistics":
            columns = dict(self._statistics.get(name, {}))
            if name in self._classes:
                columns["selectivity"] = self._classes[name].selectivity()
            return statistics_payload(columns)
        return None

    def attribution(self, image: int, number: int) -> None:
        """See ShownRun. There is none: they are channels of layers."""

    def _first_atlases(self) -> dict[str, AtlasFile]:
        """Return layer -> an atlas of it, of the first images of the run."""
        found: dict[str, AtlasFile] = {}
        for number in range(min(FIRST_IMAGES, self.image_count)):
            for line in self._index.lines(number):
                name = line.get("layer")
                if isinstance(name, str) and name not in found and _atlas_in(line) is not None:
                    with contextlib.suppress(AtlasError):
                        if (file := self._atlas_of(name, number)) is not None and _head_of(file) is not None:
                            found[name] = file
        return found

    def _atlas_of(self, layer: str, image: int) -> AtlasFile | None:
        """Return where the atlas of a layer of an image lies; raise AtlasError where that is not in the folder."""
        lines = self._index.lines(image)
        line = next((line for line in lines if line.get("layer") == layer), None)
        member = None if line is None else _atlas_in(line)
        if line is None or member is None:
            return None
        if "shard" not in line:
            return AtlasFile(member, inside(self._folder, member))
        position = lines.index(line)
        before = lines[position - 1] if position else self._index.before(image)
        return self._in_tar(line, member, before)

    def _in_tar(self, line: Line, member: str, before: Line | None) -> AtlasFile:
        """Find an atlas in a tar: behind the files of the line before it, as its own line lists them."""
        shard, files = str(line["shard"]), line["files"]
        start = before.get("end") if before is not None and before.get("shard") == shard else 0
        if not (isinstance(start, int) and 0 <= start < _MOST_TAR_BYTES):
            start = 0  # of a damaged line
        for path in paths_of(self._folder, shard):
            with contextlib.suppress(OSError):
                real = inside(self._folder, path.name)
                tar = TarMembers(real, start)
                try:
                    if tar.go_on(files[: files.index(member) + 1]) is not None:
                        return AtlasFile(f"{path}/{member}", real, *tar.last)
                finally:
                    tar.close()
        raise AtlasError(f"atlas {member!r} is not where the index of run {str(self._folder)!r} has it, in {shard!r}.")

    def _head(self, image: int, layer: Any) -> AtlasHead | None:
        with contextlib.suppress(AtlasError):
            if isinstance(layer, str) and (file := self._atlas_of(layer, image)) is not None:
                return _head_of(file)
        return None

    def _photo_path(self, lines: list[Line]) -> Path | None:
        if self._photos is None or not lines:
            return None
        path = self._photos.find(lines[0]["key"])
        is_array = path is not None and path.suffix in ARRAY_EXTENSIONS
        return None if is_array and (self._arrays is None or self._leaves_planes_out) else path

    def _planes(self, lines: list[Line]) -> dict[int, tuple[int, int]]:
        """Return which plane of a volume or step of a clip the layers of an image are, by their numbers."""
        if self._arrays is None or self._leaves_planes_out:
            return {}
        found = planes_of(name for line in lines if isinstance(name := line.get("layer"), str))
        return {self._numbers[name]: place for name, place in found.items() if name in self._numbers}

    def _kinds_of(self, layer: str) -> frozenset[str]:
        """Return what there is of a layer beside atlases, as far as the files of the run say."""
        ranked, with_classes = self._of_top
        kinds = {"similarity"}
        if layer in self._measured or layer in with_classes:
            kinds.add("statistics")
        if layer in ranked and self._photos is not None:
            kinds.add("patches")
        return frozenset(kinds)

    @cached_property
    def _statistics(self) -> Mapping[str, Any]:
        return self._read_whole(STATISTICS_NAME, read_columns)

    @cached_property
    def _classes(self) -> Mapping[str, ClassResponses]:
        return self._read_whole(TOP_NAME, read_classes) if self._of_top[1] else {}

    def _read_whole(self, name: str, read: Callable[[Path], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return what a file holds by layer: nothing where there is none, or where it is damaged, which is noted."""
        try:
            return read(inside(self._folder, name)) if (self._folder / name).is_file() else {}
        except CnnvizError as error:
            self._notes.append(str(error))
            return {}

    def _file_of(self, layer: int, image: int) -> AtlasFile | None:
        """Return an atlas, None where there is none or where it is not to be found."""
        with contextlib.suppress(AtlasError):
            return self.atlas(layer, image)
        return None


def _atlas_in(line: Line) -> str | None:
    """Return the name of the atlas among the files of a line, which may be damaged."""
    files = line.get("files")
    names = files if isinstance(files, list) else []
    return next((name for name in names if isinstance(name, str) and name.endswith(SUFFIX)), None)


def _scores_in(lines: list[Line]) -> list[tuple[str, int, str]]:
    """Return layer, channel and name of each heat map that lines, which may be damaged, tell of."""
    found = []
    for line in lines:
        layer, record = line.get("layer"), line.get("attribution")
        targets = record.get("targets") if isinstance(record, dict) else None
        if isinstance(layer, str) and isinstance(targets, list) and _atlas_in(line) is not None:
            names = [each.get("target") if isinstance(each, dict) else None for each in targets]
            found += [(layer, n, f"{layer.partition('/')[0]}: {name}") for n, name in enumerate(names)]
    return found


def _head_of(file: AtlasFile) -> AtlasHead | None:
    with contextlib.suppress(AtlasError):
        return file.head()
    return None
