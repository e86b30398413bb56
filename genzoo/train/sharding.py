"""Where arrays live: a mesh of `data` and `fsdp` axes, and one rule for each kind of array.

The batch is split over both axes. Params and what follows their shape (optimizer moments,
averages) are split over `fsdp` along their largest divisible dimension, when they are large enough
to be worth it; `mesh.rules` says otherwise for those whose path matches.

JAX derives all communication from these placements but for one: left to itself it splits some
convolutions over their channels, where params are split so, and sends activations about. What is
split is therefore gathered before a network uses it, and its gradient scattered again: fully
sharded data parallelism (Rajbhandari et al. 2020, stage 3).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from genzoo.core.bounds import AtLeast
from genzoo.core.errors import UserError
from genzoo.core.types import Batch, Tree

LARGEST, REPLICATED = "largest", "replicated"
Rules = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class MeshSettings:
    """Devices along the two axes, and how arrays are split over them.

    rules: the pattern is a regular expression, looked for in the path of an array, such as
    `params/down_0_0/conv1/kernel`. how: `replicated`, `largest` or the number of the axis to split.
    """

    data: Annotated[int, "Devices that share a batch; -1 takes all that fsdp leaves."] = -1
    fsdp: Annotated[int, AtLeast(1), "Devices that share params."] = 1
    rules: Annotated[
        tuple[tuple[str, str], ...],
        "(pattern, how) for arrays by path, the first match wins: replicated, largest or an axis.",
    ] = ()
    floor: Annotated[
        int, AtLeast(1), "Numbers in an array below which splitting costs more than it saves."
    ] = 2**16


@dataclass(frozen=True, eq=False)
class Placement:
    """A mesh, and the shardings that follow from it."""

    mesh: Mesh
    rules: Rules = ()
    floor: int = MeshSettings.floor

    @property
    def devices(self) -> int:
        """How many devices share a batch."""
        return self.mesh.size

    @property
    def platform(self) -> str:
        """Of the devices: "cpu", "gpu" or "tpu"."""
        return self.mesh.devices.flat[0].platform

    @property
    def sharded(self) -> bool:
        """Whether params are split."""
        return self.mesh.shape["fsdp"] > 1

    @property
    def replicated(self) -> NamedSharding:
        """A whole copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def batch(self, leading: int = 0) -> NamedSharding:
        """Rows split over all devices, after `leading` axes that are not."""
        return NamedSharding(self.mesh, PartitionSpec(*[None] * leading, ("data", "fsdp")))

    def rows(self, batch_size: int) -> np.ndarray:
        """The rows of a global batch that this process holds, rising: int64 [n]. They need not lie
        together: a mesh follows the wires between devices and not their numbers."""
        me = jax.process_index()
        held = self.batch().devices_indices_map((batch_size,))
        mine = [where[0] for device, where in held.items() if device.process_index == me]
        parts = [np.arange(batch_size)[where] for where in mine]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)

    def state(self, tree: Tree) -> Tree:
        """The sharding of every leaf of a state (arrays or their shapes)."""
        return jax.tree_util.tree_map_with_path(self._leaf, tree)

    def unsplit(self, tree: Tree) -> dict[str, int]:
        """Path -> bytes of the arrays that every device holds whole although params are split."""
        if not self.sharded:
            return {}
        return {
            _name(path): leaf.size * leaf.dtype.itemsize
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if self._axis(path, leaf) is None
        }

    def gathered(self, tree: Tree, path: str = "") -> Tree:
        """Inside a compiled program: the arrays of a part of the state, whole on every device. The
        gradient goes back to where they were. path: of the part in the state."""
        if not self.sharded:
            return tree
        key = (jax.tree_util.GetAttrKey(path),)
        where = jax.tree_util.tree_map_with_path(lambda p, x: self._leaf((*key, *p), x), tree)
        everywhere = jax.tree.map(lambda _: self.replicated, tree)

        @jax.custom_vjp
        def gather(tree):
            return jax.lax.with_sharding_constraint(tree, everywhere)

        def scatter(_, gradient):
            return (jax.lax.with_sharding_constraint(gradient, where),)

        gather.defvjp(lambda tree: (gather(tree), None), scatter)
        return gather(tree)

    def _leaf(self, path: tuple, leaf) -> NamedSharding:
        axis = self._axis(path, leaf)
        if axis is None:
            return self.replicated
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, "fsdp"))

    def _axis(self, path: tuple, leaf) -> int | None:
        """The axis that is split, None for none."""
        parts = self.mesh.shape["fsdp"]
        if parts == 1 or not leaf.shape:
            return None
        how = next((how for rule, how in self.rules if re.search(rule, _name(path))), None)
        if how == REPLICATED or (how is None and leaf.size < self.floor):
            return None
        if how not in (None, LARGEST):
            axis = int(how)
            if axis >= len(leaf.shape) or leaf.shape[axis] % parts:
                raise UserError(
                    f"mesh.rules: axis {axis} of {_name(path)} {tuple(leaf.shape)} cannot be split "
                    f"over mesh.fsdp = {parts} devices. Name another axis, or '{LARGEST}'."
                )
            return axis
        fitting = [axis for axis, size in enumerate(leaf.shape) if size % parts == 0]
        return max(fitting, key=lambda axis: leaf.shape[axis]) if fitting else None

    def put_batch(self, batch: Batch, leading: int = 0) -> Batch:
        """This process's `rows` as part of the global batch on the devices."""
        sharding = self.batch(leading)
        return {k: self._put(sharding, np.asarray(v), leading) for k, v in batch.items()}

    def _put(self, sharding: NamedSharding, value: np.ndarray, axis: int) -> jax.Array:
        shape = list(value.shape)
        devices = sum(d.process_index == jax.process_index() for d in self.mesh.devices.flat)
        shape[axis] = value.shape[axis] // devices * self.devices
        return jax.make_array_from_process_local_data(sharding, value, tuple(shape))

    def put_everywhere(self, tree: Tree) -> Tree:
        """A whole copy on every device; every process gives the same."""
        return self.put(tree, jax.tree.map(lambda _: self.replicated, tree))

    def put(self, tree: Tree, where: Tree) -> Tree:
        """Arrays that every process holds whole, on the devices by the shardings `where`."""

        def one(value, sharding):
            value = np.asarray(value)
            return jax.make_array_from_callback(value.shape, sharding, lambda part: value[part])

        return jax.tree.map(one, tree, where)


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def problems(settings: MeshSettings, batch_sizes: dict[str, int], devices: int) -> list[str]:
    """What is wrong with a mesh of these sizes on so many devices, as sentences."""
    data, fsdp, found = settings.data, settings.fsdp, []
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
    return found + _rule_problems(settings.rules)


def _rule_problems(rules: Rules) -> list[str]:
    found = []
    for rule in rules:
        if len(rule) != 2:
            found.append(f"mesh.rules: {tuple(rule)!r} must be a pair (pattern, how).")
            continue
        pattern, how = rule
        try:
            re.compile(pattern)
        except re.error as error:
            found.append(f"mesh.rules: {pattern!r} is no regular expression ({error}).")
        if how not in (LARGEST, REPLICATED) and not how.isdecimal():
            found.append(
                f"mesh.rules: {how!r} is unknown for {pattern!r}: write '{LARGEST}', "
                f"'{REPLICATED}' or the number of an axis."
            )
    return found


def placement(
    settings: MeshSettings | None = None, devices: Sequence[jax.Device] | None = None
) -> Placement:
    """The mesh over all devices of all processes, or over those given; raises UserError where the
    sizes do not fit. Where the devices are of several slices, `data` goes over the slices: what is
    split over `fsdp` stays on the fast network within one."""
    settings = settings or MeshSettings()
    devices = list(jax.devices() if devices is None else devices)
    if found := problems(settings, {}, len(devices)):
        raise UserError(*found)
    kinds = (AxisType.Auto, AxisType.Auto)
    shape = (len(devices) // settings.fsdp, settings.fsdp)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices > 1 and shape[0] % slices == 0:
        grid = mesh_utils.create_hybrid_device_mesh(
            (shape[0] // slices, shape[1]), (slices, 1), devices
        )
        mesh = Mesh(grid, ("data", "fsdp"), axis_types=kinds)
    else:
        mesh = jax.make_mesh(shape, ("data", "fsdp"), axis_types=kinds, devices=devices)
    return Placement(mesh, settings.rules, settings.floor)
