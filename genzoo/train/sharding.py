"""Where arrays live: a mesh of `data` and `fsdp` axes, and one rule for each kind of array.

The batch is split over both axes. Params and what follows their shape (optimizer moments,
averages) are split over `fsdp` along their largest divisible dimension, when they are large enough
to be worth it. JAX derives all communication from these placements.
"""

from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from genzoo.core.errors import UserError
from genzoo.core.types import Batch, Tree

_LEAST_SHARDED = 2**16  # numbers in a leaf below which splitting it costs more than it saves


@dataclass(frozen=True)
class Placement:
    """A mesh, and the shardings that follow from it."""

    mesh: Mesh

    @property
    def devices(self) -> int:
        """How many devices share a batch."""
        return self.mesh.size

    @property
    def replicated(self) -> NamedSharding:
        """A whole copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def batch(self, leading: int = 0) -> NamedSharding:
        """Rows split over all devices, after `leading` axes that are not."""
        return NamedSharding(self.mesh, PartitionSpec(*[None] * leading, ("data", "fsdp")))

    def state(self, tree: Tree) -> Tree:
        """The sharding of every leaf of a state (arrays or their shapes)."""
        return jax.tree.map(self._leaf, tree)

    def _leaf(self, leaf) -> NamedSharding:
        parts = self.mesh.shape["fsdp"]
        fitting = [axis for axis, size in enumerate(leaf.shape) if size % parts == 0]
        if parts == 1 or leaf.size < _LEAST_SHARDED or not fitting:
            return self.replicated
        largest = max(fitting, key=lambda axis: leaf.shape[axis])
        spec = ["fsdp" if axis == largest else None for axis in range(leaf.ndim)]
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def put_batch(self, batch: Batch, leading: int = 0) -> Batch:
        """This process's rows as part of the global batch on the devices."""
        sharding = self.batch(leading)
        return {
            k: jax.make_array_from_process_local_data(sharding, np.asarray(v))
            for k, v in batch.items()
        }

    def put_everywhere(self, tree: Tree) -> Tree:
        """A whole copy on every device."""
        return jax.device_put(tree, self.replicated)


def problems(data: int, fsdp: int, batch_sizes: dict[str, int], devices: int) -> list[str]:
    """What is wrong with a mesh of these sizes on so many devices, as sentences."""
    found = []
    if fsdp < 1 or devices % fsdp:
        return [f"mesh.fsdp = {fsdp} does not divide the {devices} devices."]
    if data not in (-1, devices // fsdp):
        found.append(
            f"mesh.data = {data} times mesh.fsdp = {fsdp} is not the number of devices, {devices}; "
            "mesh.data = -1 takes what there is."
        )
    for key, size in batch_sizes.items():
        if size % devices:
            found.append(f"{key} = {size} is not divisible by the {devices} devices of the mesh.")
    return found


def placement(data: int = -1, fsdp: int = 1) -> Placement:
    """The mesh over all devices of all processes; raises UserError where the sizes do not fit."""
    devices = jax.device_count()
    if found := problems(data, fsdp, {}, devices):
        raise UserError(*found)
    shape = (devices // fsdp, fsdp)
    kinds = (AxisType.Auto, AxisType.Auto)
    return Placement(jax.make_mesh(shape, ("data", "fsdp"), axis_types=kinds))
