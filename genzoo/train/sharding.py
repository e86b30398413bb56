"""The placement of arrays on a mesh with axes `data` and `fsdp`, by a rule for each kind of array.

The batch is split over both axes. Params and arrays of their shape (optimizer moments, averages)
are split over `fsdp` along their largest divisible dimension if they are large enough for this to
pay off. `mesh.rules` overrides this for arrays with matching paths.

JAX derives all communication from these placements, with one exception. With split params it would
split some convolutions over their channels and communicate activations. Split arrays are therefore
gathered before a network uses them, and their gradients are scattered: fully sharded data
parallelism (Rajbhandari et al. 2020, ZeRO, stage 3).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from genzoo.core.bounds import AtLeast, Between, Entries, Limit
from genzoo.core.errors import UserError
from genzoo.core.types import Batch, Tree

LARGEST, REPLICATED = "largest", "replicated"
Rules = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class MeshSettings:
    """The number of devices along the two axes, and how arrays are split over them.

    rules: pairs (pattern, how). The pattern is a regular expression, searched for in the path of an
    array, such as `params/down_0_0/conv1/kernel`. how: `replicated`, `largest` or the number of the
    axis to split.
    """

    data: Annotated[
        int, Between(-1, 2**20), "Devices along the axis data; -1 for all that fsdp leaves."
    ] = -1
    fsdp: Annotated[int, AtLeast(1), Limit(2**20), "Devices over which params are split."] = 1
    rules: Annotated[
        tuple[tuple[str, str], ...],
        Entries(0, 1_000),
        "(pattern, how) by path; the first match applies. how: replicated, largest or an axis.",
    ] = ()
    floor: Annotated[
        int, AtLeast(1), Limit(2**40), "Size (number of entries) below which arrays are not split."
    ] = 2**16


@dataclass(frozen=True, eq=False)
class Placement:
    """A mesh and the shardings derived from it. rules, floor: see MeshSettings."""

    mesh: Mesh
    rules: Rules = ()
    floor: int = MeshSettings.floor

    @property
    def devices(self) -> int:
        """The number of devices, over which a batch is split."""
        return self.mesh.size

    @property
    def platform(self) -> str:
        """The platform of the devices: "cpu", "gpu" or "tpu"."""
        return self.mesh.devices.flat[0].platform

    @property
    def sharded(self) -> bool:
        """Whether params are split over devices."""
        return self.mesh.shape["fsdp"] > 1

    @property
    def replicated(self) -> NamedSharding:
        """The sharding with a full copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def batch(self, leading: int = 0) -> NamedSharding:
        """The sharding of a batch: rows split over all devices, after `leading` unsplit axes."""
        return NamedSharding(self.mesh, PartitionSpec(*[None] * leading, ("data", "fsdp")))

    def rows(self, batch_size: int) -> np.ndarray:
        """The rows of a global batch that this process holds, ascending: int64 [n].

        They need not be contiguous, because a mesh follows the network topology of the devices, not
        their numbering.
        """
        me = jax.process_index()
        held = self.batch().devices_indices_map((batch_size,))
        mine = [index[0] for device, index in held.items() if device.process_index == me]
        parts = [np.arange(batch_size)[rows] for rows in mine]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)

    def state(self, tree: Tree) -> Tree:
        """The sharding of every leaf of a state, given as arrays or shapes."""
        return jax.tree_util.tree_map_with_path(self._leaf, tree)

    def unsplit(self, tree: Tree) -> dict[str, int]:
        """The arrays that are not split although params are: path -> bytes."""
        if not self.sharded:
            return {}
        return {
            _name(path): leaf.size * leaf.dtype.itemsize
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if self._axis(path, leaf) is None
        }

    def gathered(self, tree: Tree, path: str = "") -> Tree:
        """Gathers the arrays of a part of the state on every device, inside a compiled program.

        The gradient is scattered like the arrays. path: the name of the part in the state.
        """
        if not self.sharded:
            return tree
        key = (jax.tree_util.GetAttrKey(path),)
        split = jax.tree_util.tree_map_with_path(lambda p, x: self._leaf((*key, *p), x), tree)
        everywhere = jax.tree.map(lambda _: self.replicated, tree)

        @jax.custom_vjp
        def gather(tree):
            return jax.lax.with_sharding_constraint(tree, everywhere)

        def scatter(_, gradient):
            return (jax.lax.with_sharding_constraint(gradient, split),)

        gather.defvjp(lambda tree: (gather(tree), None), scatter)
        return gather(tree)

    def _leaf(self, path: tuple, leaf) -> NamedSharding:
        axis = self._axis(path, leaf)
        if axis is None:
            return self.replicated
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, "fsdp"))

    def _axis(self, path: tuple, leaf) -> int | None:
        """The axis along which a leaf is split, or None. Raises UserError for an unfit rule."""
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
                    f"over mesh.fsdp = {parts} devices. Give another axis, or '{LARGEST}'."
                )
            return axis
        fitting = [axis for axis, size in enumerate(leaf.shape) if size % parts == 0]
        return max(fitting, key=lambda axis: leaf.shape[axis]) if fitting else None

    def put_batch(self, batch: Batch, leading: int = 0) -> Batch:
        """Puts the `rows` of this process on the devices, as its part of the global batch."""
        sharding = self.batch(leading)
        return {k: self._put(sharding, np.asarray(v), leading) for k, v in batch.items()}

    def _put(self, sharding: NamedSharding, value: np.ndarray, axis: int) -> jax.Array:
        shape = list(value.shape)
        devices = sum(d.process_index == jax.process_index() for d in self.mesh.devices.flat)
        shape[axis] = value.shape[axis] // devices * self.devices
        return jax.make_array_from_process_local_data(sharding, value, tuple(shape))

    def put_everywhere(self, tree: Tree) -> Tree:
        """Puts a full copy on every device. All processes must pass the same arrays."""
        return self.put(tree, jax.tree.map(lambda _: self.replicated, tree))

    def put(self, tree: Tree, where: Tree) -> Tree:
        """Puts arrays on devices by the shardings `where`. All processes must pass the same."""

        def one(value, sharding):
            value = np.asarray(value)
            return jax.make_array_from_callback(value.shape, sharding, lambda part: value[part])

        return jax.tree.map(one, tree, where)


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def problems(settings: MeshSettings, batch_sizes: dict[str, int], devices: int) -> list[str]:
    """Errors in the settings of a mesh, as sentences.

    batch_sizes: config key -> batch size, which the number of devices must divide. devices: their
    number.
    """
    data, fsdp, sentences = settings.data, settings.fsdp, []
    if fsdp < 1 or devices % fsdp:
        return [f"mesh.fsdp = {fsdp} does not divide the {devices} devices."]
    if data not in (-1, devices // fsdp):
        sentences.append(
            f"mesh.data = {data} times mesh.fsdp = {fsdp} is not the number of devices, {devices}; "
            "mesh.data = -1 uses all of them."
        )
    for key, size in batch_sizes.items():
        if size % devices:
            sentences.append(
                f"{key} = {size} is not divisible by the {devices} devices of the mesh."
            )
    return sentences + _rule_problems(settings.rules)


def _rule_problems(rules: Rules) -> list[str]:
    sentences = []
    for rule in rules:
        if len(rule) != 2:
            sentences.append(f"mesh.rules: {tuple(rule)!r} must be a pair (pattern, how).")
            continue
        pattern, how = rule
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            sentences.append(f"mesh.rules: {pattern!r} is not a regular expression ({error}).")
        axis = how.isascii() and how.isdecimal() and len(how) < 3
        if how not in (LARGEST, REPLICATED) and not axis:
            sentences.append(
                f"mesh.rules: {how!r} is unknown for {pattern!r}: give '{LARGEST}', "
                f"'{REPLICATED}' or the number of an axis."
            )
    return sentences


def placement(
    settings: MeshSettings | None = None, devices: Sequence[jax.Device] | None = None
) -> Placement:
    """A mesh over the given devices, or over all devices of all processes.

    If the devices belong to several slices, the axis `data` extends over the slices, so that `fsdp`
    stays on the fast network inside a slice. Raises UserError if the sizes do not fit.
    """
    settings = settings or MeshSettings()
    devices = list(jax.devices() if devices is None else devices)
    if sentences := problems(settings, {}, len(devices)):
        raise UserError(*sentences)
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
