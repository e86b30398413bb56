"""Writes small files of torch and safetensors, and their arrays, for tests/core.

Not part of the suite; needs torch and safetensors (written with 2.13.0 and 0.8.0):

    python tests/peers/make_torch_files.py tests/core/fixtures
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file


def main(folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    whole = torch.randn(5, 4)
    tensors = {
        "float": torch.randn(2, 3),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "transposed": torch.randn(3, 2, dtype=torch.float64).T,
        "rows": whole[1:4:2],  # windows of one storage
        "column": whole[:, 2],
        "half": torch.randn(4).half(),
        "bfloat16": torch.randn(4).bfloat16(),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "bytes": torch.arange(3, dtype=torch.uint8),
    }
    state = {"epoch": 3, "state_dict": torch.nn.Module().state_dict()}
    state["state_dict"].update(tensors)
    torch.save(state, folder / "tensors.pt")
    torch.save(state, folder / "tensors_old.pth", _use_new_zipfile_serialization=False)
    save_file({k: v.detach().contiguous() for k, v in tensors.items()},
              folder / "tensors.safetensors", {"format": "pt"})  # fmt: skip
    arrays = {k: v.detach().float() if k == "bfloat16" else v.detach() for k, v in tensors.items()}
    np.savez(folder / "tensors.npz", **{k: v.numpy() for k, v in arrays.items()})


if __name__ == "__main__":
    main(sys.argv[1])
