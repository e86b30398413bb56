"""The one bridge out of Flax: a Linen module becomes plain functions of plain trees.

Nothing above this package sees a module, a collection or a scope. Params are a nested dict of
float32 arrays. The outputs of inner modules are available on request, for probes, perceptual losses
and alignment.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import jax
from flax import linen as nn

from genzoo.core.types import Array, Key, Tree

Wanted = Iterable[str] | Callable[[str], bool]


@dataclass(frozen=True)
class Network:
    """A network as three pure functions; `inputs` are the module's arguments except `train`.

    init(key, *inputs) -> params.
    apply(params, *inputs, train=False, key=None) -> output; `train=True` needs `key` for dropout
        (ValueError).
    features(params, *inputs, names) -> (output, {path: array}): the outputs of inner modules, by
        path ("down_0_block_1", "middle_attention/query_key_value"). `names` is a collection of
        paths or a predicate on paths. Raises ValueError if no module has one of the paths.

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

    def apply(params: Tree, *inputs, train: bool = False, key: Key | None = None) -> Array:
        if train and key is None:
            raise ValueError("apply(train=True) needs a key for dropout")
        rngs = None if key is None else {"dropout": key}
        return module.apply({"params": params}, *inputs, train=train, rngs=rngs)

    def features(params: Tree, *inputs, names: Wanted) -> tuple[Array, dict[str, Array]]:
        paths = None if callable(names) else frozenset(names)
        wanted = names if paths is None else paths.__contains__

        def keep(inner: nn.Module, method: str) -> bool:
            return method == "__call__" and bool(inner.path) and wanted("/".join(inner.path))

        output, sown = module.apply(
            {"params": params},
            *inputs,
            train=False,
            capture_intermediates=keep,
            mutable=["intermediates"],
        )
        captured = _by_path(sown.get("intermediates", {}))
        missing = sorted((paths or frozenset()) - captured.keys())
        if missing:
            raise ValueError(f"no inner module has the path {', '.join(missing)}")
        return output, captured

    return Network(init=init, apply=apply, features=features)


def _by_path(sown: Tree) -> dict[str, Array]:
    """{module path: output} from Flax's tree, which holds one-tuples under '__call__'. The outputs
    of a module with several are numbered: {module path/0: first output, ...}."""
    captured = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(sown):
        names = [getattr(step, "key", getattr(step, "idx", None)) for step in path]
        at = names.index("__call__")
        captured["/".join(map(str, (*names[:at], *names[at + 2 :])))] = leaf
    return captured
