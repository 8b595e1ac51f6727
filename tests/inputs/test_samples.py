"""Samples in memory: which axis is the batch, and what of a sample is the image."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.assertions import assert_equal_tensors
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.errors import ImageError, InputError, ShapeError
from cnnviz_fast.inputs.samples import image_in, is_stream, preprocessed_input, samples_in, takes_positions
from cnnviz_fast.models.expected import GUESS, IMAGE, ExpectedInput

GREY, BANDS, SIGNAL, VOLUME = ExpectedInput(1), ExpectedInput(13), ExpectedInput(2, 1), ExpectedInput(1, 3)


@pytest.mark.parametrize(("expected", "given", "made"), [
    (IMAGE, (3, 4, 5), (1, 3, 4, 5)), (IMAGE, (2, 3, 4, 5), (2, 3, 4, 5)), (IMAGE, (2, 3, 6, 4, 5), (2, 3, 6, 4, 5)),
    (GREY, (4, 5), (1, 1, 4, 5)), (GREY, (1, 4, 5), (1, 1, 4, 5)), (GREY, (7, 1, 4, 5), (7, 1, 4, 5)),
    (GREY, (7, 4, 5), (7, 1, 4, 5)),
    (BANDS, (13, 4, 5), (1, 13, 4, 5)), (BANDS, (2, 13, 4, 5), (2, 13, 4, 5)),
    (SIGNAL, (2, 9), (1, 2, 9)), (SIGNAL, (5, 2, 9), (5, 2, 9)), (ExpectedInput(1, 1), (9,), (1, 1, 9)),
    (VOLUME, (6, 4, 5), (1, 1, 6, 4, 5)), (VOLUME, (1, 6, 4, 5), (1, 1, 6, 4, 5)),
    (VOLUME, (3, 1, 6, 4, 5), (3, 1, 6, 4, 5)),
    (GUESS, (3, 4, 5), (1, 3, 4, 5)), (GUESS, (8, 16), (8, 16)), (GUESS, (2, 7, 4, 5), (2, 7, 4, 5)),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_preprocessed_input_tells_samples_from_batches(
    expected: ExpectedInput, given: tuple[int, ...], made: tuple[int, ...], dtype: torch.dtype
) -> None:
    values = torch.arange(float(np.prod(given))).reshape(given).to(dtype)
    found = preprocessed_input(values, expected)
    assert found.dtype == torch.float32
    assert_equal_tensors(found, values.float().reshape(made))


@pytest.mark.parametrize(("expected", "shape"), [
    (IMAGE, (4, 5)), (IMAGE, (4, 5, 3)), (IMAGE, (0, 3, 4, 5)), (BANDS, (3, 4, 5)), (SIGNAL, (9,)),
    (SIGNAL, (3, 9)), (VOLUME, (4, 5)), (GREY, (4, 5, 1)), (GREY, (9, 8, 3)), (VOLUME, (6, 5, 3)),
    (VOLUME, (6, 5, 7, 1)), (ExpectedInput(1, 1), (9, 1)),
])  # fmt: skip
def test_preprocessed_input_of_another_shape_is_refused(expected: ExpectedInput, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ShapeError, match=r"a preprocessed tensor must have shape \(.*\) or \(N, .*\) for this model, got"
    ):
        preprocessed_input(torch.zeros(shape), expected)


def test_preprocessed_input_array_may_have_its_channels_last() -> None:
    batch = np.random.default_rng(0).standard_normal((2, 13, 4, 5)).astype(np.float32)
    for given in (batch, np.moveaxis(batch, 1, -1)):
        assert_equal_tensors(preprocessed_input(given, BANDS), torch.from_numpy(batch))
        assert_equal_tensors(preprocessed_input(given[0], BANDS), torch.from_numpy(batch[:1]))


PHOTO = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)


class DataSet:
    """An object with a length whose samples are mappings."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, position: int) -> dict[str, Any]:
        return {"label": position, "image": PHOTO}


@pytest.mark.parametrize(("images", "count"), [
    (torch.zeros(4, 3, 5, 5), 4), (torch.zeros(3, 5, 5), 1), (np.zeros((4, 5, 6, 3), np.uint8), 4),
    (np.zeros((4, 5, 6, 3)), 4), (np.zeros((4, 3, 5, 6)), 4), (torch.zeros(4, 3, 5, 5, dtype=torch.uint8), 4),
    ([torch.zeros(2, 3, 5, 5), torch.zeros(3, 5, 5)], 3), ({"image": torch.zeros(2, 3, 5, 5)}, 2),
    ([{"image": PHOTO}, {"pixel_values": PHOTO}, {"img": PHOTO}], 3), ([(PHOTO, 1), (PHOTO, 2)], 2),
    ([(Image.fromarray(PHOTO), "cat"), (Image.fromarray(PHOTO), torch.tensor(3))], 2), (DataSet(), 2),
    (({"image": PHOTO} for _ in range(3)), 3), (iter([PHOTO, PHOTO]), 2),
])  # fmt: skip
def test_samples_in_lists_every_sample(images: Any, count: int) -> None:
    def flat(found: Any) -> list[Any]:
        return [each for part in found for each in flat(part)] if isinstance(found, list) else [found]

    found = flat(samples_in(images, IMAGE))
    assert len(found) == count
    assert all(isinstance(each, (np.ndarray, torch.Tensor, Image.Image)) for each in found)
    assert all(each.shape in ((4, 5, 3), (5, 6, 3), (3, 5, 5), (1, 3, 5, 5), (1, 3, 5, 6)) for each in found
               if not isinstance(each, Image.Image))  # fmt: skip


MASK = np.zeros((4, 5), np.int64)
FILE = b"\x89PNG not decoded here"


@pytest.mark.parametrize(("images", "count"), [
    ([(PHOTO, MASK), (PHOTO, MASK)], 2), ([(Image.fromarray(PHOTO), Image.fromarray(PHOTO))], 1),
    ([("a.png", 1), ("b.png", 2)], 2), ([("a.png", "b.png")], 2),
    (iter([(torch.zeros(4, 3, 9, 9), torch.arange(4))]), 4),
    ({"__key__": "x", "jpg": PHOTO}, 1), ({"label": torch.tensor(3), "x": PHOTO}, 1), ({"image": {"bytes": FILE}}, 1),
    ([{"image": {"bytes": None, "path": "a.png"}}], 1), ({"image": FILE}, 1), ([FILE], 1),
])  # fmt: skip
def test_samples_in_takes_the_image_of_each_sample_alone(images: Any, count: int) -> None:
    def flat(found: Any) -> list[Any]:
        return [each for part in found for each in flat(part)] if isinstance(found, list) else [found]

    found = flat(samples_in(images, IMAGE))
    assert len(found) == count
    assert not any(each is MASK or isinstance(each, (int, dict)) for each in found)


def test_samples_in_grey_takes_batches_without_an_axis_of_channels() -> None:
    digits = np.arange(5 * 28 * 28, dtype=np.uint8).reshape(5, 28, 28)
    for given in (digits, torch.from_numpy(digits), torch.from_numpy(digits).float()):
        found = samples_in(given, GREY)
        assert len(found) == 5
        assert np.array_equal(np.asarray(found[3]).reshape(28, 28), digits[3])


@pytest.mark.parametrize("shape", [(20, 24, 1), (20, 24, 3), (20, 24, 4)])
def test_load_images_tensor_with_its_channels_last_is_refused_by_a_grey_model(shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    for given in (torch.zeros(shape), torch.zeros(shape, dtype=torch.uint8)):
        with pytest.raises(ShapeError, match=r"in front|channels first"):
            cf.load_images(given, model)
    assert cf.load_images(torch.zeros(shape[::-1])[:1], model).shape == (1, 1, 24, 20)
    assert cf.load_images(torch.zeros(3, 4, 4), model).shape == (3, 1, 4, 4)


def test_samples_in_arrays_of_paths_and_images_are_lists() -> None:
    images = np.empty(2, object)
    images[:] = [Image.fromarray(PHOTO)] * 2
    assert samples_in(images, IMAGE) == list(images)
    assert samples_in(np.array(["a.png", "b.png"]), IMAGE) == ["a.png", "b.png"]


def test_samples_in_mapping_of_names_to_images_is_refused_and_of_one_sample_taken() -> None:
    for image in (PHOTO, Image.fromarray(PHOTO), torch.zeros(3, 4, 5)):
        with pytest.raises(ImageError, match=r"a mapping of 2 images\. Pass the one, or all: list"):
            samples_in({"cat": image, "dog": image}, IMAGE)
        assert len(samples_in([{"input": image, "target": image}], IMAGE)) == 1
        assert samples_in({"image": PHOTO, "mask": image}, IMAGE) is PHOTO
    assert samples_in({"path": "a.png", "label": "cat"}, IMAGE) == "a.png"


def test_load_images_photo_is_no_volume(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv3d(1, 2, 3))
    photo, path = np.zeros((20, 24, 3), np.uint8), tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    for given in (path, Image.fromarray(photo), photo, photo.astype(np.float32), torch.zeros(20, 24, 3)):
        with pytest.raises(InputError, match=r"must have shape \(1, D, H, W\)"):
            cf.load_images(given, model)
    assert cf.load_images(photo[None], model).shape == (1, 1, 20, 24, 3)
    assert cf.load_images(photo.swapaxes(0, 2), model).shape == (1, 1, 3, 24, 20)


def test_load_images_arrays_of_depth_count_as_preprocessed_as_tensors_do() -> None:
    class Depth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.ndim == 3
            found: torch.Tensor = self.conv(x.unsqueeze(1))
            return found

    metres = np.linspace(0, 80, 3 * 6 * 7, dtype=np.float32).reshape(3, 6, 7)
    for given in (metres, list(metres), torch.from_numpy(metres)):
        assert_equal_tensors(cf.load_images(given, Depth()), torch.from_numpy(metres))
    assert_equal_tensors(cf.load_images(metres[0], Depth()), torch.from_numpy(metres[:1]))


def test_is_stream_takes_what_has_positions_and_no_length() -> None:
    class Positions:
        def __getitem__(self, position: int) -> Any:
            if position > 2:
                raise IndexError
            return PHOTO

    assert is_stream(Positions())
    assert len(samples_in(Positions(), IMAGE)) == 3


def test_samples_in_leaves_paths_and_pairs_of_images_alone() -> None:
    assert samples_in("a.png", IMAGE) == "a.png"
    assert samples_in([Path("a.png"), "b.png"], IMAGE) == [Path("a.png"), "b.png"]
    assert len(samples_in([PHOTO, PHOTO], IMAGE)) == 2


def test_takes_positions_and_is_stream_tell_data_sets_apart() -> None:
    from torch.utils.data import IterableDataset

    class Stream(IterableDataset[int]):
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Any:
            return iter(range(3))

    generator = (n for n in range(2))
    kinds = {
        "position": [DataSet()],
        "stream": [generator, iter([1]), {1, 2}, Stream(), map(str, [1])],
        "neither": ["a", b"a", {"a": 1}, [1], (1,), PHOTO, torch.zeros(2), Image.fromarray(PHOTO), Path("a"), 5, None],
    }
    for kind, values in kinds.items():
        for value in values:
            assert takes_positions(value) == (kind == "position"), value
            assert is_stream(value) == (kind == "stream"), value


@pytest.mark.parametrize("sample", [(), [], {}])
def test_image_in_an_empty_sample_is_refused(sample: Any) -> None:
    with pytest.raises(ImageError, match="a sample must hold an image, got an empty"):
        image_in(sample)


def test_samples_in_reads_open_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FILE)
    assert samples_in(io.BytesIO(FILE), IMAGE).content == FILE
    with (tmp_path / "a.png").open("rb") as file:
        (listed,) = samples_in([file], IMAGE)
    assert (listed.name, listed.content) == (str(tmp_path / "a.png"), FILE)
    with io.StringIO("text") as text, pytest.raises(ImageError, match=r"^an open file must give bytes, got text\."):
        samples_in(text, IMAGE)
