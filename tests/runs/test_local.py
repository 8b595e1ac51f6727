"""One scale for a data set: the run before the run that measures it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.runs import (
    COUNT,
    QUICK,
    digests,
    small_model,
)

import cnnviz_fast as cf
from cnnviz_fast.channels.dataset_files import read_statistics
from cnnviz_fast.errors import OptionError


def test_normalize_dataset_draws_every_sheet_on_the_range_of_all(images: Path, alone: Path, tmp_path: Path) -> None:
    model = small_model()
    cf.run(model, images, ["0"], tmp_path, normalize="dataset", **QUICK)
    statistics = read_statistics(alone / "statistics.safetensors")["0"]
    for path in sorted(images.iterdir())[:3]:
        maps = cf.capture(model, cf.load_images(path, model), ["0"])["0"][0]
        expected = cf.save_sheet(
            maps, tmp_path / "expected.png", tile=12, plain=True, threads=1, normalize="dataset", statistics=statistics
        )
        assert (tmp_path / "0" / path.name).read_bytes() == expected.read_bytes()


def test_a_second_run_reuses_the_statistics_of_the_first(images: Path, alone: Path, tmp_path: Path) -> None:
    cf.run(small_model(), images, ["0"], tmp_path / "a", normalize="dataset", statistics=str(alone), **QUICK)
    cf.run(small_model(), images, ["0"], tmp_path / "b", normalize="dataset", **QUICK)
    assert not (tmp_path / "a" / ".dataset").exists()
    first, second = digests(tmp_path / "a"), digests(tmp_path / "b")
    assert first == {name: digest for name, digest in second.items() if not name.startswith(".dataset/")}


def test_a_run_keeps_the_scale_that_it_began_with(images: Path, tmp_path: Path) -> None:
    some = sorted(images.iterdir())[:9]
    cf.run(small_model(), some, ["0"], tmp_path, normalize="dataset", **QUICK)
    scale = (tmp_path / ".dataset" / "statistics.safetensors").read_bytes()
    assert cf.run(small_model(), images, ["0"], tmp_path, normalize="dataset", **QUICK).finished == COUNT - 9
    assert (tmp_path / ".dataset" / "statistics.safetensors").read_bytes() == scale


def test_one_scale_in_the_folder_of_another_run_is_refused_before_anything_is_measured(
    images: Path, tmp_path: Path
) -> None:
    cf.run(small_model(), images, ["0"], tmp_path, **QUICK)
    with pytest.raises(OptionError, match="holds a run with other settings: normalize: dataset here, channel there"):
        cf.run(small_model(), images, ["0"], tmp_path, normalize="dataset", **QUICK)
    assert not (tmp_path / ".dataset").exists()


def test_one_scale_is_not_measured_where_nothing_is_drawn(images: Path, tmp_path: Path) -> None:
    cf.run(small_model(), images, ["0"], tmp_path, normalize="dataset", save="atlases", **QUICK)
    assert not (tmp_path / ".dataset").exists()
    assert len(digests(tmp_path)) == COUNT


def test_a_file_that_is_not_statistics_is_refused(images: Path, tmp_path: Path) -> None:
    for content in (None, b"nothing"):
        file = tmp_path / "statistics.safetensors"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(cf.CnnvizError, match="statistics"):
            cf.run(small_model(), images, ["0"], tmp_path / "out", normalize="dataset", statistics=str(file), **QUICK)
        assert not (tmp_path / "out").exists()


def test_statistics_without_normalize_dataset_are_refused(images: Path, alone: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^statistics go with normalize 'dataset', got normalize 'channel'\.$"):
        cf.run(small_model(), images, ["0"], tmp_path, statistics=str(alone / "statistics.safetensors"), **QUICK)


def test_statistics_of_other_layers_are_refused(images: Path, alone: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"normalize": "dataset", **QUICK}
    file = str(alone / "statistics.safetensors")
    with pytest.raises(OptionError, match=r"^statistics have no layer '1'\."):
        cf.run(small_model(), images, ["1"], tmp_path / "b", statistics=file, **given)
