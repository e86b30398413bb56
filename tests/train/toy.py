"""Families small enough to follow by hand: a line fitted to points, and a game of two players."""

from collections.abc import Callable
from dataclasses import dataclass, field

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
class Game:
    """Two players on two subtrees u and v [size]: the first minimises a u^2 / 2 + b u v, the second
    -b u v, summed over the entries.

    first, second: other fields of the two players. reader: called with the context of each loss.
    """

    a: float = 0.3
    b: float = 0.7
    size: int = 1
    first: dict = field(default_factory=dict)
    second: dict = field(default_factory=dict)
    reader: Callable = lambda context: None

    def init(self, key, example):
        del key, example
        start = jnp.linspace(1, 2, self.size)
        return Variables(
            params={"one": {"u": start}, "two": {"v": -0.5 * start}, "spare": jnp.ones(3)},
            stats={"calls": jnp.int32(0)},
        )

    @property
    def losses(self):
        return {
            "first": Player(
                loss=self._loss(lambda u, v: self.a * u**2 / 2 + self.b * u * v),
                **{"trains": ("one/",), **self.first},
            ),
            "second": Player(
                loss=self._loss(lambda u, v: -self.b * u * v),
                **{"trains": ("two/",), **self.second},
            ),
        }

    def _loss(self, value):
        def loss(params, context):
            self.reader(context)
            each = value(params["one"]["u"], params["two"]["v"])
            rows = 1 + 0 * context.batch["x"].reshape(len(context.batch["x"]), -1).sum(-1)
            stats = {"calls": context.stats["calls"] + 1}
            return rows * each.sum(), Aux(metrics={"u": rows * params["one"]["u"][0]}, stats=stats)

        return loss
