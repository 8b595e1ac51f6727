"""Make the trained networks of the package again: `python -m benchmarks.training`, some 15 minutes of one core."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch

import cnnviz_fast as cf
from cnnviz_fast.formats.safetensors import tensor_bytes
from cnnviz_fast.models.small_networks import CATEGORIES, FilterBank

from .. import ROOT
from . import filters, photos, probe, small

PROBED = 1600
"""Windows on which the printed accuracies are measured; half as many are held out."""


def main() -> None:
    """Learn the filters, train the network, write the files and the photos of the demo, and print what came of it."""
    package = ROOT / "cnnviz_fast"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--steps", type=int, default=520, help="of the small network's training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=package / "models" / "trained", help="folder (default: the package's)"
    )
    parser.add_argument(
        "--photos", type=Path, default=package / "diagnostics" / "photos", help="folder of the demo's photos"
    )
    arguments = parser.parse_args()
    # One order of torch's sums. NumPy's follow the threads of its BLAS: another number moves filters by a last digit.
    torch.set_num_threads(1)
    for folder in (arguments.out, arguments.photos):
        folder.mkdir(parents=True, exist_ok=True)

    photos.write_examples(arguments.photos)
    kernels = filters.learn(filters.patches(4000, 11, arguments.seed), 64, arguments.seed)
    bank = FilterBank()
    bank.conv.weight.data = torch.from_numpy(kernels)
    write(arguments.out / "filters.safetensors", bank.state_dict())
    torch.manual_seed(arguments.seed)
    random = FilterBank().conv.weight.detach().numpy()
    print(
        f"energy in a tenth of the frequencies: {filters.concentration(kernels):.0%}, of random filters "
        f"{filters.concentration(random):.0%}"
    )

    network = small.train(arguments.steps, 64, arguments.seed)
    path = arguments.out / "small.safetensors"
    write(path, network.state_dict())
    report(path, arguments.seed)


def write(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write weights as float16, and print the size and the digest of the file."""
    tensors = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    written = tensor_bytes(tensors, {"photos": [photo.file for photo in photos.PHOTOS], "categories": CATEGORIES})
    path.write_bytes(written)
    print(f"{path.name}: {len(written):,} bytes, SHA-256 {hashlib.sha256(written).hexdigest()}")


def report(path: Path, seed: int) -> None:
    """Print the accuracies of the stages of a file's network, beside those of the network before training."""
    trained, random = (
        probe.accuracies(cf.load_model("cnnviz:small", weights=weights, seed=seed, device="cpu").module, PROBED, seed)
        for weights in (path, "none")
    )
    print("share of held-out windows put into the right category, by a linear probe of")
    for stage in trained:
        print(f"{stage:>8}: {trained[stage]:.1%}, untrained {random[stage]:.1%}")


if __name__ == "__main__":
    main()
