"""The network rows per sample, with and without guidance, counted at the networks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_score_models import (
    CLASSES,
    TOGETHER,
    ByLabel,
    flow,
    given,
    labelled,
    of_thousandths,
    one,
    vp,
)

from genzoo.core import streams
from genzoo.core.contract import Variables
from genzoo.families.denoising import Denoising, Guidance
from genzoo.math import continuous, prediction
from genzoo.samplers.adaptive import AdaptiveSampler

BATCH = 3
LIMITED = dict(scale=2.5, low=0.1, high=0.55)


class Counting:
    """Counts the rows of network calls as they run."""

    def __init__(self):
        self.rows = []

    def note(self, x):
        """Records the rows of one call and returns x."""
        count = x.shape[0]
        jax.debug.callback(lambda: self.rows.append(count))
        return x


class Counted(ByLabel):
    """A network that records the rows of its calls."""

    def __init__(self, counting, *parts):
        super().__init__(*parts)
        self.counting = counting

    def apply(self, params, x, level, conditions, **kwargs):
        return super().apply(params, self.counting.note(x), level, conditions, **kwargs)


class Knows:
    """A classifier of two classes."""

    schedule = continuous.VariancePreserving()

    def __init__(self, counting):
        self.counting = counting

    def log_prob(self, params, labels):
        def of(x, t):
            scales = self.schedule.alpha(t), self.schedule.sigma(t)
            x = self.counting.note(x)
            parts = jnp.stack([d.log_density(x, *scales) for d in CLASSES], 1)
            return jax.nn.log_softmax(parts)[jnp.arange(len(x)), labels]

        return of


def family_of(counting, steered=(), **guidance) -> Denoising:
    schedule = continuous.Straight()
    data = [*CLASSES, TOGETHER]
    network = Counted(counting, data, schedule, prediction.VELOCITY, of_thousandths)
    family = flow(
        network=network, conditions=labelled(dropout=0.1), guidance=Guidance(**guidance)
    )
    if "guide" in steered:
        preserving = continuous.VariancePreserving()
        parts = [one([0.0, 0.0])] * 3, preserving, prediction.EPS, of_thousandths
        family = dataclasses.replace(family, guide=vp(network=Counted(counting, *parts)))
    if "classifier" in steered:
        family = dataclasses.replace(family, classifier=Knows(counting))
    return family


CASES = {  # guidance, other models, the fewest and the most rows of an evaluation
    "plain": ({}, (), 1, 1),
    "guided": ({"scale": 2.5}, (), 2, 2),
    "at some times": (LIMITED, (), 1, 2),
    "guide": ({"scale": 2.5}, ("guide",), 2, 2),
    "guide at some times": (LIMITED, ("guide",), 1, 2),
    "classifier": ({}, ("classifier",), 2, 2),
    "all at some times": (LIMITED, ("guide", "classifier"), 2, 3),
}


QUICK = ("plain", "at some times", "all at some times")


@pytest.mark.parametrize(
    "case", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_rows_are_those_that_networks_were_given(case):
    guidance, steered, fewest, most = CASES[case]
    counting, labels = Counting(), jnp.arange(BATCH) % 2
    family = family_of(counting, steered, **guidance)
    variables = Variables(params={}, frozen={name: {"params": {}} for name in steered})
    keys = streams.per_example(streams.root(0), jnp.arange(BATCH))
    # Every example takes the same steps, so all calls are for whole batches.
    solution = jax.jit(lambda keys: family.solve(variables, keys, given(labels)))(keys)
    jax.block_until_ready(solution)
    jax.effects_barrier()
    assert solution.network_rows.tolist() == [sum(counting.rows) / BATCH] * BATCH
    each = solution.network_rows[0] / solution.evaluations[0]
    assert each == fewest if fewest == most else fewest < each < most
    # With the adaptive solver every example has its own steps and times, so guidance always runs.
    make = lambda schedule: AdaptiveSampler(schedule=schedule, rtol=0.1, atol=0.1)  # noqa: E731
    solve = jax.jit(lambda keys: family.solve(variables, keys, given(labels), sampler=make))
    solution = solve(keys)
    np.testing.assert_array_equal(solution.network_rows, most * solution.evaluations)
