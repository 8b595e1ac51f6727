"""Finding images and making batches of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from support.assertions import FLOAT32_NORMALISED, assert_close
from torch import nn

from cnnviz_fast.errors import DTypeError, ImageError, InputError, OptionError, ShapeError
from cnnviz_fast.inputs.find import find_images, natural_key
from cnnviz_fast.inputs.images import MAX_PIXELS, decode_image, load_images
from cnnviz_fast.models.loaded import LoadedModel

PHOTOS = Path(skimage.data.__file__).parent
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


def identity_model() -> LoadedModel:
    """Return a model whose preprocessing keeps size and values, so that batches can be read off."""
    from torchvision.transforms.functional import pil_to_tensor

    return LoadedModel(nn.Identity(), lambda image: pil_to_tensor(image).float(), "identity", "none")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images 1, 2 and 10, an image in capitals, and things that are no images."""
    for position, name in enumerate(["img10.png", "img2.png", "IMG1.PNG", "zebra.jpg"]):
        Image.new("RGB", (4, 4), (position, 0, 0)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._img2.png").write_bytes(b"what macOS leaves")
    (tmp_path / "sub.png").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "sub.png" / "deep.png")
    return tmp_path


def names(sources: list[object]) -> list[str]:
    return [Path(str(source)).name for source in sources]


@pytest.mark.filterwarnings("ignore:.*passed over")
def test_find_images_folder_gives_its_images_in_natural_order(folder: Path) -> None:
    assert names(find_images(folder)) == ["IMG1.PNG", "img2.png", "img10.png", "zebra.jpg"]
    assert all(isinstance(source, Path) for source in find_images(str(folder)))


def test_find_images_folder_says_what_it_passed_over(folder: Path) -> None:
    for name in ("a.heic", "b.HEIC", "c.dcm", "d", "e.csv", "f.json", "g.xml"):
        (folder / name).write_bytes(b"")
    said = (
        r"folder '.*': 8 files are no images and were passed over: 2 \.heic, 1 \.\w+, .*, 1 \.\w+, 2 of other kinds\.$"
    )
    with pytest.warns(UserWarning, match=said):
        find_images(folder)
    find_images(str(folder / "*"))  # a glob is asked for what it names


def test_find_images_glob_gives_matching_images_in_natural_order(folder: Path) -> None:
    assert names(find_images(str(folder / "img*"))) == ["img2.png", "img10.png"]
    assert names(find_images(str(folder / "*"))) == ["IMG1.PNG", "img2.png", "img10.png", "zebra.jpg"]
    assert names(find_images(str(folder / "**" / "*.png"))) == ["img2.png", "img10.png", "deep.png"]
    assert names(find_images(str(folder / "img[0-9].???"))) == ["img2.png"]


def test_find_images_glob_with_its_own_extension_gives_all_matches(folder: Path) -> None:
    assert names(find_images(str(folder / "*.txt"))) == ["notes.txt"]


def test_find_images_file_is_taken_whatever_its_extension(folder: Path) -> None:
    assert find_images(folder / "notes.txt") == [folder / "notes.txt"]


def test_find_images_name_with_brackets_is_a_file_before_it_is_a_glob(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "cat[1].png")
    Image.new("RGB", (4, 4)).save(tmp_path / "cat1.png")
    assert names(find_images(str(tmp_path / "cat[1].png"))) == ["cat[1].png"]


def test_find_images_list_keeps_order_and_in_memory_images(folder: Path) -> None:
    image, array, tensor = Image.new("RGB", (4, 4)), np.zeros((4, 4), np.uint8), torch.zeros(3, 4, 4)
    found = find_images([folder / "zebra.jpg", image, [array, str(folder / "img2.png")], tensor])
    assert found[0] == folder / "zebra.jpg"
    assert found[1] is image
    assert found[2] is array
    assert found[3] == folder / "img2.png"
    assert found[4] is tensor
    assert find_images(source for source in (image,)) == [image]


@pytest.mark.parametrize(("name", "said"), [
    ("absent.png", "no file or folder '.*absent.png'"),
    ("", "holds no images"),
    ("*.png", r"glob '.*\*\.png' matches no images"),
])  # fmt: skip
def test_find_images_nothing_there_is_one_line(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ImageError, match=said) as caught:
        find_images(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("item", [3, None, b"bytes.png", {"a": 1}, [3]])
def test_find_images_what_is_no_image_is_refused(item: object) -> None:
    with pytest.raises(ImageError, match=r"images must be paths, folders, globs, .* got (int|NoneType|bytes|dict)\."):
        find_images(item)


def test_decode_image_arrays_and_tensors_keep_their_values() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    grey = rgb[:, :, 0]
    assert np.array_equal(np.asarray(decode_image(rgb)), rgb)
    assert np.array_equal(np.asarray(decode_image(rgb[::-1, ::2])), rgb[::-1, ::2])
    assert np.array_equal(np.asarray(decode_image(torch.from_numpy(rgb).permute(2, 0, 1))), rgb)
    for image in (grey, grey[:, :, None], torch.from_numpy(grey.copy())[None]):
        assert np.array_equal(np.asarray(decode_image(image)), np.repeat(grey[:, :, None], 3, axis=2))


def test_decode_image_array_with_alpha_lies_over_white() -> None:
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0]]], np.uint8)
    expected = [[[200, 100, 0], [255, 255, 255]]]
    assert np.array_equal(np.asarray(decode_image(rgba)), expected)
    assert np.array_equal(np.asarray(decode_image(torch.from_numpy(rgba).permute(2, 0, 1))), expected)


@pytest.mark.parametrize(("source", "said"), [
    (np.full((4, 4, 3), 2.0), "got float64. Scale it to 0..255"),
    (np.zeros((4, 4), np.uint16), "got uint16. Divide it by 257"),
    (np.zeros((4, 4), bool), "got bool. Convert it to uint8 and multiply it by 255"),
    (np.zeros((4, 4), np.int64), "got int64. Convert it to uint8 if"),
    (torch.zeros(3, 4, 4, dtype=torch.int32), "got int32"),
    (torch.zeros(3, 4, 4), "got float32. A float tensor counts as preprocessed"),
])  # fmt: skip
def test_decode_image_wrong_dtype_says_what_to_do(source: object, said: str) -> None:
    with pytest.raises(DTypeError, match=f"image must be uint8, {said}"):
        decode_image(source)


@pytest.mark.parametrize(("source", "said"), [
    (np.zeros((3, 8, 9), np.uint8), r"got \(3, 8, 9\)\. Put the channels last: image\.transpose\(1, 2, 0\)"),
    (np.zeros((2, 8, 9, 3), np.uint8), r"Pass its samples one by one: list\(images\)"),
    (np.zeros((8, 9, 2), np.uint8), r"must have shape \(H, W\) or \(H, W, 1\|3\|4\), got \(8, 9, 2\)\."),
    (np.zeros(8, np.uint8), r"got \(8,\)"),
    (np.zeros((0, 9, 3), np.uint8), r"got \(0, 9, 3\)"),
    (torch.zeros(8, 9, 3, dtype=torch.uint8), r"Put the channels first: image\.permute\(2, 0, 1\)"),
    (torch.zeros(8, 9, dtype=torch.uint8), r"must have shape \(1\|3\|4, H, W\), got \(8, 9\)"),
    (torch.zeros(2, 3, 8, 9, dtype=torch.uint8), r"Pass its samples one by one: list\(images\)"),
])  # fmt: skip
def test_decode_image_wrong_shape_says_what_to_do(source: object, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        decode_image(source)


def test_decode_image_path_and_pil_image_give_the_same(tmp_path: Path) -> None:
    path = PHOTOS / "astronaut.png"
    with Image.open(path) as opened:
        from_pil_image = np.asarray(decode_image(opened))
    assert np.array_equal(np.asarray(decode_image(path)), from_pil_image)
    assert np.array_equal(np.asarray(decode_image(str(path))), skimage.data.astronaut())


def test_decode_image_max_pixels_holds_for_every_source(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "small.png")
    array = np.zeros((10, 20, 3), np.uint8)
    for source in (tmp_path / "small.png", array, Image.new("RGB", (20, 10)), torch.from_numpy(array).permute(2, 0, 1)):
        assert decode_image(source, max_pixels=200).size == (20, 10)
        with pytest.raises(ImageError, match="at most 199 pixels"):
            decode_image(source, max_pixels=199)


@pytest.mark.parametrize("limit", [0, -5, 2.5, "many"])
def test_decode_image_max_pixels_must_be_a_positive_number(limit: object) -> None:
    with pytest.raises(OptionError, match="max_pixels must be a whole number of at least 1"):
        decode_image(Image.new("RGB", (4, 4)), max_pixels=limit)


def test_decode_image_unknown_source_is_refused() -> None:
    with pytest.raises(ImageError, match="image must be a path, PIL image, uint8 array or uint8 tensor, got int"):
        decode_image(3)


def test_load_images_without_a_model_is_imagenets_preprocessing() -> None:
    astronaut = skimage.data.astronaut()  # 512 x 512
    batch = load_images(PHOTOS / "astronaut.png")
    assert batch.shape == (1, 3, 224, 224)
    assert batch.dtype == torch.float32
    # By hand: shorter side to 256, the middle 224 (16 off each side), then mean and deviation.
    resized = np.asarray(Image.fromarray(astronaut).resize((256, 256), Image.Resampling.BILINEAR))
    expected = (resized[16:240, 16:240] / 255 - MEAN) / STD
    assert_close(batch[0].permute(1, 2, 0), expected, FLOAT32_NORMALISED)
    assert torch.equal(load_images(PHOTOS / "astronaut.png", nn.Identity()), batch)


@pytest.mark.filterwarnings("ignore:.*passed over")
def test_load_images_uses_the_models_own_preprocessing(folder: Path) -> None:
    batch = load_images(folder, identity_model())
    assert batch.shape == (4, 3, 4, 4)
    assert batch[:3, 0, 0, 0].tolist() == [2.0, 1.0, 0.0]  # IMG1, img2, img10 were written as 2, 1 and 0


def test_load_images_mixes_files_arrays_images_and_tensors(folder: Path) -> None:
    array = np.full((4, 4, 3), 50, np.uint8)
    preprocessed = torch.stack([torch.full((3, 4, 4), 60.0), torch.full((3, 4, 4), 70.0)])
    sources = [folder / "img2.png", array, Image.fromarray(array), torch.full((1, 4, 4), 9, dtype=torch.uint8)]
    batch = load_images([*sources, preprocessed, preprocessed[0]], identity_model())
    assert batch[:, 0, 0, 0].tolist() == [1.0, 50.0, 50.0, 9.0, 60.0, 70.0, 60.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_load_images_float_tensors_pass_through_as_float32(dtype: torch.dtype) -> None:
    values = torch.linspace(-3, 3, 2 * 3 * 4 * 5, dtype=torch.float64).reshape(2, 3, 4, 5).to(dtype)
    batch = load_images(values)
    assert batch.dtype == torch.float32
    assert torch.equal(batch, values.float())
    assert torch.equal(load_images(values[0]), values[:1].float())


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (1, 4, 5), (0, 3, 4, 5)])
def test_load_images_float_tensor_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ShapeError, match=r"a preprocessed tensor must have shape \(3, H, W\) or \(N, 3, H, W\) for this model, got"
    ):
        load_images(torch.zeros(shape))


def test_load_images_of_different_sizes_names_them(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "wide.png")
    Image.new("RGB", (4, 6)).save(tmp_path / "tall.png")
    with pytest.raises(ShapeError) as caught:
        load_images([tmp_path / "wide.png", tmp_path / "tall.png", np.zeros((4, 6), np.uint8)], identity_model())
    message = str(caught.value)
    assert f"4x6 (image {str(tmp_path / 'wide.png')!r})" in message
    assert f"6x4 (image {str(tmp_path / 'tall.png')!r})" in message
    assert "Set the size option" in message
    many = [np.zeros((height, 4), np.uint8) for height in range(1, 8)]
    with pytest.raises(ShapeError, match=r"1x4 \(image 0\), 2x4 \(image 1\), .*4x4 \(image 3\) and 3 more\."):
        load_images(many, identity_model())


@pytest.mark.filterwarnings("ignore:.*passed over")
def test_load_images_max_pixels_reaches_the_decoder(folder: Path) -> None:
    assert len(load_images(folder, max_pixels=16)) == 4
    with pytest.raises(ImageError, match="at most 15 pixels"):
        load_images(folder, max_pixels=15)
    assert MAX_PIXELS == 178_000_000


def test_load_images_nothing_is_an_error() -> None:
    with pytest.raises(ImageError, match="images must name at least one image, got none"):
        load_images([])


def test_load_images_model_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"model must be .* got str\. Load it first: load_model\('resnet50'\)"):
        load_images(folder, "resnet50")


def test_load_images_preprocessing_that_fails_is_one_line(folder: Path) -> None:
    def broken(image: Image.Image) -> torch.Tensor:
        raise TypeError("expected a video\nof several frames")

    model = LoadedModel(nn.Identity(), broken, "broken", "none")
    with pytest.raises(ImageError, match=r"img2\.png' cannot be preprocessed for this model: expected a video\.$"):
        load_images(folder / "img2.png", model)


@pytest.mark.gpu
def test_load_images_tensor_on_a_device_stays_there() -> None:
    batch = load_images([torch.zeros(3, 4, 4, device="cuda"), np.zeros((4, 4), np.uint8)], identity_model())
    assert batch.device.type == "cuda"
    assert batch.shape == (2, 3, 4, 4)
    assert decode_image(torch.full((3, 4, 4), 7, dtype=torch.uint8, device="cuda")).getpixel((0, 0)) == (7, 7, 7)


def test_images_import_and_find_load_neither_torch_nor_pillow(folder: Path) -> None:
    code = (
        "import sys; from cnnviz_fast.inputs.images import find_images; "
        f"assert len(find_images({str(folder)!r})) == 4; "
        "print([name for name in ('torch', 'torchvision', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("paths", "expected"), [
    (["b10", "b9", "b09", "b1", "a2b3", "a2b10", "a10b1"], ["a2b3", "a2b10", "a10b1", "b1", "b09", "b9", "b10"]),
    (["x", "x0", "x00", "x1", "X1", "x-"], ["x", "x0", "x00", "X1", "x1", "x-"]),
    (["9" * 30, "1" + "0" * 30], ["9" * 30, "1" + "0" * 30]),
])  # fmt: skip
def test_natural_key_counts_and_ignores_case(paths: list[str], expected: list[str]) -> None:
    assert sorted(paths, key=natural_key) == expected
    assert sorted({*paths}, key=natural_key) == expected


def test_load_images_scales_the_range_that_is_given(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 273, 4095]], np.uint16)).save(tmp_path / "a.png")
    found = load_images(tmp_path / "a.png", identity_model(), input_range="0:4095")
    assert found[0, 0, 0].tolist() == [0, 17, 255]
    with pytest.raises(OptionError, match="input_range must be two numbers LOW:HIGH with LOW < HIGH, got '5:4'"):
        load_images(tmp_path / "a.png", input_range="5:4")


def test_load_images_takes_damaged_ones_where_that_is_allowed(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for format in ("png", "jpg", "bmp", "ppm", "tif", "gif"):
        path = tmp_path / f"a.{format}"
        Image.fromarray(whole).save(path)
        path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])
        with pytest.raises(ImageError, match="cannot be read"):
            load_images(path, identity_model())
        if format == "tif":
            continue  # whose list of tags is at its end
        with pytest.warns(UserWarning, match=r"a\.\w+' is damaged, .*: what comes after the damage is missing\.$"):
            found = load_images(path, identity_model(), truncated="allow")[0]
        assert found.shape == (3, 64, 64)
        assert found.std() > 0
