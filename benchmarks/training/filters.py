"""Filters for a first convolution: the centres of whitened patches of photos, by spherical k-means."""

from __future__ import annotations

import numpy as np

from .photos import PHOTOS, parts, read


def patches(per_photo: int, side_px: int, seed: int) -> np.ndarray:
    """Cut patches from the part of the photos that training sees, in five sizes.

    Args:
        per_photo: how many from each.
        side_px: of a patch.
        seed: of their places.

    Returns:
        (N, side_px * side_px * 3) float32 in [0, 1].
    """
    random = np.random.default_rng(seed)
    found = []
    for photo in PHOTOS:
        whole = read(photo)[0]
        seen = whole.crop(parts(photo, whole.size)[0])
        for scale in (1, 0.8, 0.6, 0.45, 0.35):
            image = np.asarray(seen.resize((round(seen.width * scale), round(seen.height * scale))), np.float32) / 255
            for _ in range(per_photo // 5):
                y, x = (random.integers(0, n - side_px + 1) for n in image.shape[:2])
                found.append(image[y : y + side_px, x : x + side_px].ravel())
    return np.array(found)


def learn(found: np.ndarray, count: int, seed: int, rounds: int = 40) -> np.ndarray:
    """Learn filters from patches.

    Formula:
        x = (patch - its mean colour) / sqrt(variance + c); z = W x with ZCA's W; every z goes to the centre d of the
        largest |d . z|, and a centre becomes the normalised sum of sign(d . z) z.

    Args:
        found: (N, side * side * 3) float32. Patches.
        count: of filters.
        seed: of the first centres.
        rounds: of k-means.

    Returns:
        (count, 3, side, side) float32, each of mean 0 in every colour and of norm 1; sorted: grey ones first, then by
        frequency and direction.

    Source:
        Coates and Ng, Learning Feature Representations with K-means, 2012.
    """
    random = np.random.default_rng(seed)
    side = round((found.shape[1] / 3) ** 0.5)
    x = found.reshape(-1, side * side, 3)
    x = (x - x.mean(1, keepdims=True)).reshape(len(x), -1)
    x = x[x.std(1) > 0.02]  # of even ones only noise would be left
    x /= np.sqrt(x.var(1, keepdims=True) + 0.003)
    x *= _taper(side)[:, None].repeat(3, 1).ravel()
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    z = x @ (vectors / np.sqrt(values + 0.05)) @ vectors.T
    centres = random.standard_normal((count, z.shape[1])).astype(np.float32)
    for _ in range(rounds):
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        response = z @ centres.T
        nearest = np.abs(response).argmax(1)
        chosen = np.zeros_like(response)
        rows = np.arange(len(z))
        chosen[rows, nearest] = np.sign(response[rows, nearest])
        sums = chosen.T @ z
        few = np.abs(chosen).sum(0) < 20
        sums[few] = z[random.integers(0, len(z), few.sum())]
        centres = sums
    kernels = centres.reshape(count, side, side, 3)
    kernels -= kernels.mean((1, 2), keepdims=True)
    kernels /= np.sqrt((kernels**2).sum((1, 2, 3), keepdims=True))
    return _sorted(np.ascontiguousarray(kernels.transpose(0, 3, 1, 2), np.float32))


def _taper(side: int) -> np.ndarray:
    """Return a bell over a patch, (side * side,): without it many filters would look at an edge of the patch."""
    at = np.linspace(-1, 1, side, dtype=np.float32)
    return np.exp(-(at[:, None] ** 2 + at**2) / 0.7).ravel()


def _sorted(kernels: np.ndarray) -> np.ndarray:
    """Sort kernels, (N, 3, H, W): grey before coloured, then by three bands of frequency, then by direction."""
    side = kernels.shape[-1]
    grey = kernels.mean(1)
    coloured = ((kernels - grey[:, None]) ** 2).sum((1, 2, 3)) > 0.4
    power = (np.abs(np.fft.fft2(kernels, (32, 32))) ** 2).sum(1)
    fy, fx = np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32), indexing="ij")
    total = power.sum((1, 2))
    frequency = (power * np.hypot(fy, fx)).sum((1, 2)) / total
    # Directions a and a + 180 degrees are one: the mean is taken of the doubled angle.
    doubled = (power * np.exp(2j * np.arctan2(fy, fx))).sum((1, 2))
    band = np.digitize(frequency * side, np.quantile(frequency * side, (1 / 3, 2 / 3)))
    return kernels[np.lexsort((np.angle(doubled), band, coloured))]


def concentration(kernels: np.ndarray) -> float:
    """Return the share of the energy of kernels, (N, C, H, W), that lies in the strongest tenth of the frequencies.

    It is high for edges and waves, and near that of noise for kernels that nobody trained.
    """
    power = np.sort((np.abs(np.fft.fft2(kernels)) ** 2).sum(1).reshape(len(kernels), -1), axis=1)[:, ::-1]
    return float((power[:, : power.shape[1] // 10].sum(1) / power.sum(1)).mean())
