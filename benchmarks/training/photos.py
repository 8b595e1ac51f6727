"""The photos of scikit-image that the networks learn from: what is where in them, and which part they never see."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cnnviz_fast.models.small_networks import CATEGORIES

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels of the file."""

LONGEST_PX = 640
"""Photos are reduced to this, so that structures of all of them are of like size."""

HELD_OUT = 0.22
"""Share of the width or the height of each photo that training never sees."""


@dataclass(frozen=True)
class Photo:
    """A photo that is CC0 or in the public domain; models/trained/README.md says of each where it comes from.

    Attributes:
        file: its name in the folder `data` of scikit-image.
        held_out: the side where a strip is kept from training.
        regions: category -> box of its place, painted one over the other. What is in none counts for no category.
        ovals: the categories of which only the ellipse in the box is meant.
    """

    file: str
    held_out: str
    regions: tuple[tuple[str, Box], ...]
    ovals: tuple[str, ...] = ("face", "helmet", "cup", "retina")


_WHOLE = (0, 0, 9999, 9999)

PHOTOS = (
    Photo("astronaut.png", "bottom", (
        ("flag", (0, 0, 105, 380)), ("shuttle", (365, 0, 480, 300)), ("spacesuit", (40, 230, 365, 512)),
        ("spacesuit", (120, 150, 310, 240)), ("face", (155, 10, 305, 215)), ("helmet", (275, 340, 512, 560)),
    )),
    Photo("brick.png", "right", (("brick", _WHOLE),)),
    Photo("camera.png", "right", (
        ("sky", (0, 0, 512, 180)), ("grass", (160, 265, 512, 512)), ("buildings", (330, 130, 512, 250)),
        ("coat", (0, 130, 150, 512)), ("coat", (120, 150, 250, 320)), ("tripod", (260, 310, 400, 512)),
        ("face", (165, 60, 270, 190)),
    )),
    Photo("chelsea.png", "left", (("cat", (0, 0, 370, 300)),)),
    Photo("coffee.png", "right", (("wood", _WHOLE), ("cup", (75, 10, 480, 395)))),
    Photo("grass.png", "right", (("grass", _WHOLE),)),
    Photo("gravel.png", "right", (("gravel", _WHOLE),)),
    Photo("hubble_deep_field.jpg", "right", (("galaxies", _WHOLE),)),
    Photo("retina.jpg", "right", (("retina", (0, 0, 1411, 1411)),)),
    Photo("rocket.jpg", "right", (
        ("sky", _WHOLE), ("tower", (0, 0, 95, 380)), ("tower", (555, 0, 640, 380)), ("tower", (160, 140, 210, 380)),
        ("tower", (435, 140, 475, 380)), ("rocket", (295, 130, 350, 427)), ("lights", (60, 385, 295, 427)),
        ("lights", (350, 385, 580, 427)),
    )),
    Photo("text.png", "right", (("handwriting", _WHOLE),)),
)  # fmt: skip
EXAMPLES = {"cat.jpg": "chelsea.png", "coffee.jpg": "coffee.png"}
"""Photo of the demo -> the file of scikit-image that it is made of."""

UNNAMED = len(CATEGORIES)
"""The label of a pixel in no region."""


def read(photo: Photo) -> tuple[Image.Image, Image.Image]:
    """Read a photo.

    Args:
        photo: which one.

    Returns:
        The photo as RGB, and an image of mode L of the same size with the label of every pixel.
    """
    import skimage

    whole = Image.open(Path(skimage.__file__).parent / "data" / photo.file).convert("RGB")
    labels = Image.new("L", whole.size, UNNAMED)
    draw = ImageDraw.Draw(labels)
    for name, box in photo.regions:
        paint = draw.ellipse if name in photo.ovals else draw.rectangle
        paint(box, fill=CATEGORIES.index(name))
    scale = min(1.0, LONGEST_PX / max(whole.size))
    size = (round(whole.width * scale), round(whole.height * scale))
    return whole.resize(size, Image.Resampling.LANCZOS), labels.resize(size, Image.Resampling.NEAREST)


def write_examples(folder: Path) -> None:
    """Write the two photos that the package shows its networks with, as JPEG."""
    for name, file in EXAMPLES.items():
        photo = next(photo for photo in PHOTOS if photo.file == file)
        read(photo)[0].save(folder / name, quality=90, optimize=True)


def parts(photo: Photo, size: tuple[int, int]) -> tuple[Box, Box]:
    """Return the box of a photo, of (width, height), that training sees, and that of the strip held out."""
    width, height = size
    x, y = round(width * HELD_OUT), round(height * HELD_OUT)
    return {
        "left": ((x, 0, width, height), (0, 0, x, height)),
        "right": ((0, 0, width - x, height), (width - x, 0, width, height)),
        "bottom": ((0, 0, width, height - y), (0, height - y, width, height)),
    }[photo.held_out]


def windows(
    count: int, sides_px: tuple[int, int], size_px: int, *, held_out: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut square windows of random place and size from the photos, equally many from each.

    Args:
        count: how many in all.
        sides_px: smallest and largest side in a photo; the logarithm of the side is uniform.
        size_px: side to which they are resampled.
        held_out: whether they are cut from the strips held out, or from the rest; none has pixels of both.
        seed: of the random places.

    Returns:
        (count, size_px, size_px, 3) uint8 windows, and their labels, (count, size_px, size_px) uint8.
    """
    random = np.random.default_rng(seed)
    images = np.empty((count, size_px, size_px, 3), np.uint8)
    labels = np.empty((count, size_px, size_px), np.uint8)
    seen = []
    for photo in PHOTOS:
        image, label = read(photo)
        part = parts(photo, image.size)[held_out]
        seen.append((image.crop(part), label.crop(part)))  # a resampling looks beyond its box
    for index in range(count):
        image, label = seen[index % len(seen)]
        largest = min(sides_px[1], *image.size)
        side = math.exp(random.uniform(math.log(min(sides_px[0], largest)), math.log(largest)))
        x, y = random.uniform(0, image.width - side), random.uniform(0, image.height - side)
        box, size = (x, y, x + side, y + side), (size_px, size_px)
        images[index] = image.resize(size, Image.Resampling.BICUBIC, box)
        labels[index] = label.resize(size, Image.Resampling.NEAREST, box)
    return images, labels
