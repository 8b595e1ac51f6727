"""JPEGs of sheets on a CUDA device: by a stand-in for torchcodec, by torchcodec itself on the CPU, and on a GPU."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.assertions import assert_similar_image
from support.fake_device import DEVICE_ERROR

from cnnviz_fast import formats as package
from cnnviz_fast.diagnostics import installation as doctor
from cnnviz_fast.errors import EncodeError, OptionError, WriteError
from cnnviz_fast.formats import device_jpeg
from cnnviz_fast.formats import picture as formats
from cnnviz_fast.palette import Palette, make_palette
from cnnviz_fast.runtime import files

NOT_INSTALLED = 'torchcodec is not installed, install it with: pip install "cnnviz_fast[cuda-jpeg]"'
LOGGED = "Pillow encodes JPEGs, since torchcodec (0.16 or newer is needed) does not work here: "


class StandIn:
    """JpegEncoder as torchcodec 0.17 has it, for tensors on the CPU. Keeps what it was given; fails where told to.

    Source:
        https://github.com/meta-pytorch/torchcodec, src/torchcodec/encoders/_image_encoders.py. That this is what it
        is like, `test_write_device_jpeg_by_torchcodec_itself` shows.
    """

    def __init__(self) -> None:
        self.images: list[tuple[torch.Tensor, int]] = []
        self.error: Exception | None = None

    def __call__(self, img: torch.Tensor) -> StandIn:
        self.image = img
        return self

    def to_tensor(self, *, quality: int = 75) -> torch.Tensor:
        if self.error:
            raise self.error
        assert self.image.dtype == torch.uint8
        assert self.image.shape[0] == 3
        self.images.append((self.image, quality))
        file = io.BytesIO()
        image = Image.fromarray(self.image.permute(1, 2, 0).contiguous().numpy())
        image.save(file, "JPEG", quality=quality, subsampling=0)
        return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def forget() -> None:
    device_jpeg._fails_on.cache_clear()
    device_jpeg._log_once.cache_clear()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pretend a CUDA device whose memory is the host's."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device_jpeg, "_TRIAL_DEVICE", "cpu")
    forget()
    yield
    forget()


@pytest.fixture
def torchcodec(cuda: None, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Put a stand-in where torchcodec would be."""
    package, encoders, encoder = ModuleType("torchcodec"), ModuleType("torchcodec.encoders"), StandIn()
    package.__spec__ = ModuleSpec("torchcodec", None)
    vars(encoders)["JpegEncoder"] = encoder
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.encoders", encoders)
    return encoder


@pytest.fixture
def absent(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide torchcodec, as if it were not installed."""
    monkeypatch.setitem(sys.modules, "torchcodec", None)


@pytest.fixture
def palette() -> Palette:
    return make_palette("viridis", shows_background=False, shows_bad=False)


def slope(height: int, width: int) -> torch.Tensor:
    """Return an index plane that rises to the right and, slower, downwards: (height, width) uint8."""
    down, right = torch.arange(height)[:, None] * 100 // height, torch.arange(width) * 155 // width
    return (down + right).to(torch.uint8)


def decoded(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.format == "JPEG"
        return np.asarray(image.convert("RGB"))


def by_pillow(folder: Path, index: torch.Tensor, palette: Palette) -> bytes:
    """Return the file that Pillow makes on the host."""
    formats.write_picture(folder / "pillow.jpg", index.numpy(), palette)
    return (folder / "pillow.jpg").read_bytes()


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (61, 47)])
def test_write_device_jpeg_hands_torchcodec_rgb_planes(
    torchcodec: StandIn, palette: Palette, size: tuple[int, int], tmp_path: Path
) -> None:
    index = slope(*size)
    formats.write_device_jpeg(tmp_path / "sheet.jpg", index, palette, quality=37)
    planes, quality = torchcodec.images[-1]
    assert quality == 37
    assert planes.is_contiguous()
    np.testing.assert_array_equal(planes.numpy(), palette.colors[index.numpy()].transpose(2, 0, 1))
    assert decoded(tmp_path / "sheet.jpg").shape == (*size, 3)


def test_write_device_jpeg_writes_the_bytes_of_torchcodec(
    torchcodec: StandIn, palette: Palette, tmp_path: Path
) -> None:
    index = slope(61, 47)
    formats.write_device_jpeg(tmp_path / "sheet.jpeg", index, palette)
    planes, quality = torchcodec.images[-1]
    assert quality == 90  # as on the host
    assert (tmp_path / "sheet.jpeg").read_bytes() == torchcodec(planes).to_tensor(quality=90).numpy().tobytes()
    assert os.listdir(tmp_path) == ["sheet.jpeg"]


def test_missing_tries_the_library_once(torchcodec: StandIn, palette: Palette) -> None:
    assert not device_jpeg.missing()
    assert device_jpeg.takes(1, 1, "cpu")
    assert len(torchcodec.images) == 1
    assert device_jpeg.encode(slope(8, 8), palette, 90) is not None
    assert len(torchcodec.images) == 2


@pytest.mark.usefixtures("absent")
def test_write_device_jpeg_without_torchcodec_is_left_to_pillow(
    palette: Palette, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert device_jpeg.missing() == NOT_INSTALLED
    assert not device_jpeg.takes(1, 1, "cpu")
    index = slope(61, 47)
    formats.write_device_jpeg(tmp_path / "sheet.jpg", index, palette)
    assert (tmp_path / "sheet.jpg").read_bytes() == by_pillow(tmp_path, index, palette)
    assert not caplog.records  # it is an option: who has not installed it is not told at every run


def test_write_device_jpeg_with_a_torchcodec_of_before_its_encoder(
    torchcodec: StandIn, palette: Palette, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    del sys.modules["torchcodec.encoders"].JpegEncoder
    index = slope(61, 47)
    for name in ("one.jpg", "two.jpg"):
        formats.write_device_jpeg(tmp_path / name, index, palette)
        assert (tmp_path / name).read_bytes() == by_pillow(tmp_path, index, palette)
    reason = device_jpeg.missing()
    assert reason.startswith("ImportError: cannot import name 'JpegEncoder' from 'torchcodec.encoders'")
    assert [record.getMessage() for record in caplog.records] == [LOGGED + reason]


def test_write_device_jpeg_where_torchcodec_fails_is_left_to_pillow_and_logged_once(
    torchcodec: StandIn, palette: Palette, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not device_jpeg.missing()
    index = slope(61, 47)
    torchcodec.error = RuntimeError("Failed to encode image: 5\nException raised from encode_to_tensor")
    for name in ("one.jpg", "two.jpg"):
        formats.write_device_jpeg(tmp_path / name, index, palette)
        assert (tmp_path / name).read_bytes() == by_pillow(tmp_path, index, palette)
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("cnnviz_fast.formats", "WARNING", LOGGED + "RuntimeError: Failed to encode image: 5")
    ]
    torchcodec.error = None  # such as no memory, for one sheet: the next one goes through it again
    formats.write_device_jpeg(tmp_path / "three.jpg", index, palette)
    assert (tmp_path / "three.jpg").read_bytes() != by_pillow(tmp_path, index, palette)


LOST = DEVICE_ERROR("CUDA error: an illegal memory access was encountered")


def test_write_device_jpeg_on_a_lost_device_is_not_left_to_pillow(
    torchcodec: StandIn, palette: Palette, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torchcodec.error = LOST
    for _ in range(2):
        with pytest.raises(DEVICE_ERROR, match="illegal memory access"):
            device_jpeg.missing()
    torchcodec.error = None
    assert not device_jpeg.missing()
    torchcodec.error = LOST
    with pytest.raises(DEVICE_ERROR, match="illegal memory access"):
        formats.write_device_jpeg(tmp_path / "sheet.jpg", slope(8, 8), palette)
    assert not os.listdir(tmp_path)
    assert not caplog.records


def test_missing_tries_again_where_memory_was_short(torchcodec: StandIn) -> None:
    torchcodec.error = torch.OutOfMemoryError("CUDA out of memory.")
    assert device_jpeg.missing() == "OutOfMemoryError: CUDA out of memory"
    torchcodec.error = None
    assert device_jpeg.missing() == ""


def test_missing_tries_each_device_on_its_own(torchcodec: StandIn) -> None:
    assert device_jpeg.missing("cpu") == ""
    assert device_jpeg.missing("meta").startswith("TypeError: can't convert meta device type tensor")


def test_encode_sheet_beyond_the_limit_never_reaches_torchcodec(torchcodec: StandIn, palette: Palette) -> None:
    assert device_jpeg.takes(1 << 14, 1 << 14, "cpu")
    assert not device_jpeg.takes(1 << 14, (1 << 14) + 1, "cpu")
    tried = len(torchcodec.images)
    assert device_jpeg.encode(torch.zeros(1, 1, dtype=torch.uint8).expand(16385, 16384), palette, 90) is None
    assert len(torchcodec.images) == tried


def nvjpeg_buffer_bytes(height: int, width: int) -> int:
    """Return what nvJPEG's buffer for an image of three full components takes: 128 bytes for each block of each."""
    return 2048 + 3 * 128 * -(-height // 8) * -(-width // 8)


def test_most_px_keeps_the_buffer_of_nvjpeg_within_32_bits() -> None:
    # As reported for 27,200 x 13,272 px, with the sign of its 32 bits carried to 64; 26,400 px were fine.
    assert nvjpeg_buffer_bytes(27_200, 13_272) - 2**32 == 18446744071580576768 - 2**64
    assert nvjpeg_buffer_bytes(26_400, 13_272) < 2**31
    heights = range(1, formats.FORMATS[".jpg"].limit_px + 1)
    worst = max(nvjpeg_buffer_bytes(h, min(device_jpeg.MOST_PX // h, heights[-1])) for h in heights)
    assert worst < 0.76 * 2**31


@pytest.mark.parametrize("quality", [0, 101, 90.0, "high"])
def test_write_device_jpeg_checks_quality(torchcodec: StandIn, palette: Palette, quality: int, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        formats.write_device_jpeg(tmp_path / "sheet.jpg", slope(8, 8), palette, quality=quality)
    assert str(caught.value) == f"quality must be a whole number from 1 to 100, got {quality!r}."
    assert not torchcodec.images


def test_write_device_jpeg_checks_the_sides(torchcodec: StandIn, palette: Palette, tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match=r"^a JPEG holds at most 65,500 px a side, got a sheet of 1 x 65,501 px\."):
        formats.write_device_jpeg(tmp_path / "sheet.jpg", slope(1, 65_501), palette)
    assert not torchcodec.images


def test_write_device_jpeg_failing_leaves_the_older_file(
    torchcodec: StandIn, palette: Palette, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sheet.jpg").write_bytes(b"older")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "move_file", full)
    with pytest.raises(WriteError, match=r"sheet\.jpg: No space left on device\.$"):
        formats.write_device_jpeg(tmp_path / "sheet.jpg", slope(8, 8), palette)
    assert os.listdir(tmp_path) == ["sheet.jpg"]
    assert (tmp_path / "sheet.jpg").read_bytes() == b"older"


def test_missing_without_cuda_loads_no_torchcodec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "torchcodec", None)  # to load it fails
    monkeypatch.setattr(package, "device_jpeg", device_jpeg)  # the one that comes back
    monkeypatch.delitem(sys.modules, device_jpeg.__name__)
    assert importlib.import_module(device_jpeg.__name__).missing() == "torch sees no CUDA device"


@pytest.mark.usefixtures("torchcodec")
def test_doctor_names_the_device_encoder() -> None:
    assert doctor._jpeg_encoder() == {
        "subject": "encoder jpeg cuda",
        "state": "ok",
        "detail": "torchcodec encodes JPEGs on CUDA",
    }


@pytest.mark.usefixtures("absent")
def test_doctor_says_why_the_device_encoder_is_missing() -> None:
    finding = doctor._jpeg_encoder()
    assert finding["state"] == "missing"
    assert finding["detail"] == f"{NOT_INSTALLED}; Pillow encodes JPEGs"


def test_doctor_examines_the_device_encoder() -> None:
    assert "encoder jpeg cuda" in {finding["subject"] for finding in doctor.examine()}


SIZES = [(1, 1), (1, 300), (7, 13), (480, 641)]


OLDER_TORCH = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11)  # which torchcodec needs


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.usefixtures("cuda")
def test_write_device_jpeg_by_torchcodec_itself(size: tuple[int, int], palette: Palette, tmp_path: Path) -> None:
    pytest.importorskip("torchcodec", exc_type=OSError if OLDER_TORCH else ImportError)
    check_real_library(slope(*size), palette, tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("colormap", ["viridis", "gray"])
@pytest.mark.parametrize("size", [*SIZES, (4096, 4097)])
def test_write_device_jpeg_on_a_gpu(size: tuple[int, int], colormap: str, tmp_path: Path) -> None:
    pytest.importorskip("torchcodec")
    forget()
    palette = make_palette(colormap, shows_background=False, shows_bad=False)
    check_real_library(slope(*size).cuda(), palette, tmp_path)
    with Image.open(tmp_path / "sheet.jpg") as image:  # (component, horizontal, vertical sampling, table)
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3


def check_real_library(index: torch.Tensor, palette: Palette, folder: Path) -> None:
    """Write by the real torchcodec, which must not fail, and compare the decoded image with the colours meant."""
    assert device_jpeg.missing() == ""
    encoded = device_jpeg.encode(index, palette, 95)
    assert encoded is not None
    formats.write_device_jpeg(folder / "sheet.jpg", index, palette, quality=95)
    assert (folder / "sheet.jpg").read_bytes() == encoded
    assert_similar_image(decoded(folder / "sheet.jpg"), palette.colors[index.cpu().numpy()])
    coarse = device_jpeg.encode(index, palette, 5)
    assert coarse is not None
    assert len(coarse) < len(encoded) or index.numel() < 64
