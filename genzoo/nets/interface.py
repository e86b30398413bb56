"""The one bridge out of Flax: a Linen module becomes plain functions of plain trees.

Nothing above this package sees a module, a collection or a scope. Params are a nested dict of
float32 arrays. The outputs of inner modules are available on request, for probes, perceptual losses
and alignment.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import jax
from flax import linen as nn

from genzoo.core.conditions import Entries
from genzoo.core.size import Size
from genzoo.core.types import Array, Key, Tree

Wanted = Iterable[str] | Callable[[str], bool]


@dataclass(frozen=True)
class Network:
    """A network as three pure functions; `inputs` are the module's arguments except `train`.

    init(key, *inputs) -> params.
    apply(params, *inputs, train=False, key=None) -> output; `train=True` needs `key` for dropout
        (ValueError).
    features(params, *inputs, names, train=False, key=None) -> (output, {path: array}): the output
        of `apply` and, from the same pass, those of inner modules, by path ("down_0_block_1",
        "middle_attention/query_key_value"). `names` is a collection of paths or a predicate on
        paths. Raises ValueError if no module has one of the paths.

    Networks that depend on time or conditions take (x [B, ...], time [B], conditions): the time in
    the unit that the network expects, and a mapping from names to `Given`; conditions missing from
    the mapping count as absent. Denoising networks return [B, ..., out_channels] float32.
    """

    init: Callable[..., Tree]
    apply: Callable[..., Array]
    features: Callable[..., tuple[Array, dict[str, Array]]]


def network(module: nn.Module) -> Network:
    """Turns a module with `__call__(*inputs, train: bool)` into its three functions."""

    def init(key: Key, *inputs) -> Tree:
        return module.init(key, *inputs, train=False)["params"]

    def streams(train: bool, key: Key | None) -> dict[str, Key] | None:
        if train and key is None:
            raise ValueError("apply(train=True) needs a key for dropout")
        return None if key is None else {"dropout": key}

    def apply(params: Tree, *inputs, train: bool = False, key: Key | None = None) -> Array:
        return module.apply({"params": params}, *inputs, train=train, rngs=streams(train, key))

    def features(
        params: Tree, *inputs, names: Wanted, train: bool = False, key: Key | None = None
    ) -> tuple[Array, dict[str, Array]]:
        paths = None if callable(names) else frozenset(names)
        wanted = names if paths is None else paths.__contains__

        def keep(inner: nn.Module, method: str) -> bool:
            return method == "__call__" and bool(inner.path) and wanted("/".join(inner.path))

        output, sown = module.apply(
            {"params": params},
            *inputs,
            train=train,
            rngs=streams(train, key),
            capture_intermediates=keep,
            mutable=["intermediates"],
        )
        captured = _by_path(sown.get("intermediates", {}))
        found = {path for path in paths or () for name in captured if _is_of(name, path)}
        missing = sorted((paths or frozenset()) - found)
        if missing:
            raise ValueError(f"no inner module has the path {', '.join(missing)}")
        return output, captured

    return Network(init=init, apply=apply, features=features)


@dataclass(frozen=True, kw_only=True)
class InnerMap:
    """An output of an inner module as a map over the input: [B, *grid, width].

    path: of the module. output: which of its outputs, if it has several. layer: which layer, if the
    module is a scan. patch: the side of the patches whose tokens come last in the output; 0 if the
    output is a map already.
    """

    path: str
    width: int
    output: int | None = None
    layer: int | None = None
    patch: int = 0

    def of(self, features: Mapping[str, Array], size: Sequence[int]) -> Array:
        """The map, from the result of `Network.features` for an input [B, *size, C]."""
        h = features[self.path if self.output is None else f"{self.path}/{self.output}"]
        h = h if self.layer is None else h[self.layer]
        if not self.patch:
            return h
        grid = [side // self.patch for side in size]
        return h[:, -prod(grid) :].reshape(len(h), *grid, h.shape[-1])


@dataclass(frozen=True, kw_only=True)
class Steerable(Network):
    """A denoising network that a ControlNet can steer.

    apply(params, x, time, conditions, residuals): residuals, one for each skip connection in the
    order of the encoder and one for the output of the middle, are added there; () for none.
    entries: how its conditions enter, by name. branch: widths of the hint network -> the control
    branch (`nets/unet/control.py`), init(key, x, time, conditions, hint) -> params, apply(params,
    x, time, conditions, hint) -> residuals. Params of the branch with the path of one of the
    network's are those of its copy. branch_size: (shape of x, channels of the hint, widths) -> the
    size of the branch. decoder_params: shape of x -> the number of params that it does not copy.
    """

    entries: Entries
    branch: Callable[[tuple[int, ...]], Network]
    branch_size: Callable[[tuple[int, ...], int, tuple[int, ...]], Size]
    decoder_params: Callable[[tuple[int, ...]], int]


def steerable(
    module: nn.Module,
    entries: Entries,
    branch: Callable[[tuple[int, ...]], nn.Module],
    branch_size: Callable[[tuple[int, ...], int, tuple[int, ...]], Size],
    decoder_params: Callable[[tuple[int, ...]], int],
) -> Steerable:
    """Turns a U-Net and the maker of its control branch into their functions."""
    net = network(module)
    return Steerable(
        init=net.init,
        apply=net.apply,
        features=net.features,
        entries=entries,
        branch=lambda widths: network(branch(widths)),
        branch_size=branch_size,
        decoder_params=decoder_params,
    )


@dataclass(frozen=True)
class FeatureNetwork(Network):
    """A classifier (x, time, conditions) -> logits [B, classes], or with no classes its features
    [B, width], the output of its inner module "pool"."""

    width: int


def features_of(module: nn.Module, width: int) -> FeatureNetwork:
    """Turns a classifier, or the part of it before the logits, into its functions."""
    net = network(module)
    return FeatureNetwork(init=net.init, apply=net.apply, features=net.features, width=width)


def _is_of(name: str, path: str) -> bool:
    """Whether a captured output is that of the module, or one of its outputs."""
    return name == path or (name.startswith(f"{path}/") and name[len(path) + 1 :].isdigit())


def _by_path(sown: Tree) -> dict[str, Array]:
    """{module path: output} from Flax's tree, which holds one-tuples under '__call__'. The outputs
    of a module with several are numbered: {module path/0: first output, ...}."""
    captured = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(sown):
        names = [getattr(step, "key", getattr(step, "idx", None)) for step in path]
        at = names.index("__call__")
        captured["/".join(map(str, (*names[:at], *names[at + 2 :])))] = leaf
    return captured
