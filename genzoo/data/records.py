"""Records, mappings from the names of fields to arrays: selecting, flattening, preparing."""

from collections.abc import Mapping

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
    seen = {k: fields[k].prepare(v) if k in fields else v for k, v in batch.items()}
    spatial = [k for k in seen if k in fields and fields[k].spatial]
    if not mirrored or not spatial:
        return seen
    which = transforms.coin(key, len(seen[spatial[0]]))
    return seen | {k: transforms.mirrored(seen[k], which) for k in spatial}
