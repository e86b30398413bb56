"""Records, mappings from the names of fields to arrays: selecting, flattening, preparing."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from genzoo.core.types import Array, Batch, Key
from genzoo.data import transforms
from genzoo.data.fields import Field


def only(records: Mapping[str, np.ndarray], fields: Mapping[str, Field]) -> dict[str, np.ndarray]:
    """The entries of the records that are fields."""
    return {name: values for name, values in records.items() if name in fields}


def flat(records: Mapping[str, Array], fields: Mapping[str, Field]) -> dict[str, Array]:
    """Stored records in the layout used on the devices: every field as rows [N, D], or [N].

    With image shapes, a TPU would change the layout of the whole set in every step.
    """
    return {k: fields[k].flat(v) if k in fields else v for k, v in records.items()}


def prepare(
    batch: Batch,
    key: Key | None = None,
    *,
    fields: Mapping[str, Field],
    mirrored: bool = False,
) -> Batch:
    """Prepares a stored batch for models; entries that are not fields (masks, indices) are kept.

    mirrored: whether to mirror each record left to right with probability one half, using the key;
    all spatial fields of a record are mirrored together.
    """
    spatial = [k for k in batch if k in fields and fields[k].spatial]
    if not mirrored or not spatial:
        return {k: fields[k].prepare(v) if k in fields else v for k, v in batch.items()}
    return _prepared(batch, fields, transforms.coin(key, len(batch[spatial[0]])))


def all_mirrored(batch: Batch, fields: Mapping[str, Field]) -> Batch:
    """A stored batch prepared for models, with the mirror image of every record."""
    return _prepared(batch, fields, jnp.ones(len(batch["x"]), bool))


def _prepared(batch: Batch, fields: Mapping[str, Field], which: Array) -> Batch:
    """A prepared batch, mirrored where `which` bool [N] is true."""

    def one(name: str, values: Array) -> Array:
        if name not in fields:
            return values
        field = fields[name]
        return field.mirrored(values, which) if field.spatial else field.prepare(values)

    return {name: one(name, values) for name, values in batch.items()}
