"""Files of reference statistics: the mean and covariance of features, and what they are of.

An .npz file with `mean` [D], `scatter` [D, D], `count`, and `about`, the JSON of the network's
protocol ("network") and of the data ("data"). It holds no pickles.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genzoo.core import named_arrays, strict_json
from genzoo.core.errors import UserError
from genzoo.core.files import aside
from genzoo.math.pca import Moments


class Reference(NamedTuple):
    """moments: of the features. about: what they are of. hash: SHA-256 of the moments."""

    moments: Moments
    about: Mapping[str, dict]
    hash: str


def save(path: Path, moments: Moments, network: Mapping, data: Mapping) -> None:
    """Writes the file, whole or not at all."""
    about = strict_json.dumps({"network": dict(network), "data": dict(data)})
    arrays = _arrays(moments) | {"about": np.frombuffer(about.encode(), np.uint8)}
    with aside(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def load(path: Path, network: Mapping) -> Reference:
    """The statistics in a file. Raises UserError if it holds none, or those of another network.
    network: the protocol of ours."""
    remedy = "make it again with --mode=stats."
    if not path.is_file():
        raise UserError(f"eval.reference = {str(path)!r}: there is no such file; {remedy}")
    found = named_arrays.read(path)
    if missing := {"mean", "scatter", "count", "about"} - found.keys():
        raise UserError(f"eval.reference = {str(path)!r} has no {min(missing)}: {remedy}")
    try:
        about = strict_json.loads(found["about"].tobytes())
        theirs = about["network"]
        count = int(found["count"])
        mean, scatter = (found[name].astype(np.float64) for name in ("mean", "scatter"))
        if mean.ndim != 1 or scatter.shape != 2 * mean.shape or count < 2:
            raise ValueError("its arrays do not fit together")
        moments = Moments(count, mean, scatter)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"eval.reference = {str(path)!r} is damaged ({error}): {remedy}") from error
    for key, value in network.items():
        if theirs.get(key) != value:
            raise UserError(
                f"eval.reference = {str(path)!r} was made with {key} = {theirs.get(key)!r}, not "
                f"{value!r}: {remedy}"
            )
    return Reference(moments, about, named_arrays.digest(_arrays(moments)))


def _arrays(moments: Moments) -> dict[str, np.ndarray]:
    return {
        "mean": moments.mean, "scatter": moments.scatter, "count": np.array(moments.count),
    }  # fmt: skip
