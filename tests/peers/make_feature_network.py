"""Exports the network of a classifier's run as a feature network that comes with genzoo.

    python tests/peers/make_feature_network.py fashion runs/classifier 1

The arguments are the name, the workdir and the version. Writes the params that eval.weights names
to genzoo/evaluate/networks/NAME.safetensors.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

import genzoo

ROOT = Path(__file__).parents[2]


def main(name: str, workdir: str, version: str) -> None:
    """Writes the file."""
    weights = genzoo.open(workdir).config.eval.weights
    run = genzoo.open(workdir, {"sample.weights": weights})
    leaves, _ = jax.tree_util.tree_flatten_with_path(run.params)
    flat = {"/".join(step.key for step in path): np.asarray(leaf) for path, leaf in leaves}
    network = run.config.network.to_dict()
    del network["name"]
    spec = run._experiment.spec
    about = {
        "version": version,
        "shape": json.dumps(spec.shape),
        "classes": json.dumps(spec.classes),
        "network": json.dumps(network),
    }
    file = ROOT / "genzoo" / "evaluate" / "networks" / f"{name}.safetensors"
    file.parent.mkdir(exist_ok=True)
    save_file(flat, file, metadata=about)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
