"""Writes the params of a classifier's run as a feature network that comes with genzoo.

    python tests/peers/make_feature_network.py fashion runs/classifier

The arguments are the name and the workdir. The params are those that eval.weights names.
"""

import sys
from pathlib import Path

import jax

import genzoo
from genzoo.core import named_arrays, tree

WEIGHTS = Path(__file__).parents[2] / "genzoo" / "evaluate" / "features" / "weights"


def main(name: str, workdir: str) -> None:
    """Writes genzoo/evaluate/features/weights/NAME.safetensors."""
    weights = genzoo.open(workdir).config.eval.weights
    params = genzoo.open(workdir, {"sample.weights": weights}).params
    flat = jax.device_get(tree.by_path(params))
    file = WEIGHTS / f"{name}.safetensors"
    named_arrays.write_safetensors(file, flat)
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB, digest {named_arrays.digest(flat)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
