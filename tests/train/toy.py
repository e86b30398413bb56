"""A family small enough to follow by hand: a line fitted to points, in closed form if one likes."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from genzoo.core.contract import Aux, Player, Variables, Weighted


@dataclass(frozen=True)
class Line:
    """params w, b; loss (w x + b - y)^2 with y = 3 x - 1, noise from the context's key."""

    noise: float = 0.0

    def init(self, key, example):
        del key, example
        return Variables(
            params={"w": jnp.zeros(()), "b": jnp.zeros(())}, stats={"seen": jnp.int32(0)}
        )

    @property
    def losses(self):
        return {"model": Player(loss=self.loss)}

    def loss(self, params, context):
        x = context.batch["x"][:, 0, 0, 0]
        y = 3 * x - 1 + self.noise * jax.random.normal(context.key, x.shape)
        values = (params["w"] * x + params["b"] - y) ** 2
        positive = Weighted(values=values, weights=1.0 * (x > 0))
        stats = {"seen": context.stats["seen"] + len(x)}
        return values, Aux(metrics={"loss": values, "positive": positive}, stats=stats)


@dataclass(frozen=True)
class Duel:
    """Two players on two subtrees: each is drawn to the other's number plus one."""

    def init(self, key, example):
        del key, example
        return Variables(params={"one": {"a": jnp.float32(0)}, "two": {"a": jnp.float32(5)}})

    @property
    def losses(self):
        def pull(mine, other):
            def loss(params, context):
                gap = params[mine]["a"] - params[other]["a"] - 1
                values = jnp.full(context.batch["x"].shape[0], gap**2)
                return values, Aux()

            return loss

        return {
            "first": Player(loss=pull("one", "two"), trains=("one/",)),
            "second": Player(loss=pull("two", "one"), trains=("two/",)),
        }
