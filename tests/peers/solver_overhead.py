"""Measures the cost of a solver's own arithmetic relative to that of the network.

    python tests/peers/solver_overhead.py [--steps 50]

Sixteen images of 32 x 32 x 3, with the 35.7M network of configs/ddpm_cifar.py (the time of one
evaluation times their number) and with a predictor that costs almost nothing (all steps timed).
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from genzoo import check, config
from genzoo.builders.sampling import METHODS, ContinuousSampling, grid
from genzoo.core import streams
from genzoo.experiment import Experiment
from genzoo.math import gaussian
from genzoo.runtime.compilation import compile_program, run_once
from genzoo.samplers.loop import Sampler
from genzoo.samplers.predictor import Prediction

SHAPE = (16, 32, 32, 3)
NAMES = ("ddim", "heun", "lms", "pndm", "deis", "dpmpp_2m", "dpmpp_3m", "unipc", "dpmpp_2m_sde")


def timed(call, rounds: int = 5) -> float:
    """The median of the seconds of a call."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    """Prints the shares."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=50)
    steps = parser.parse_args().steps
    raw = config.override(config.load("configs/ddpm_cifar.py"), {"network.dtype": "float32"})
    experiment = Experiment(check.check(raw))
    family = experiment.family
    params = run_once(experiment.initial_state).params
    x, keys = jnp.ones(SHAPE), streams.per_example(streams.root(0), jnp.arange(SHAPE[0]))

    def network(params, x):
        return family.predict(params, family.schedule, x, jnp.float32(0.5), None).eps

    program = compile_program(jax.jit(network).lower(params, x))
    evaluation = timed(lambda: program(params, x))
    print(f"one evaluation of the network: {1000 * evaluation:.0f} ms")
    times = grid(ContinuousSampling(grid="trailing"), table=True)(family.schedule, steps)
    for name in NAMES:
        step = METHODS[name](family.schedule, ContinuousSampling(), gaussian.FIXED_SMALL)
        sampler = Sampler(step=step, times=times)

        def solve(x, keys, sampler=sampler):
            return sampler(lambda x, t: Prediction(0.1 * x, 0.9 * x), x, keys)

        solved = jax.jit(solve)
        evaluations = int(solved(x, keys).evaluations[0])
        own = timed(lambda solved=solved: solved(x, keys).x)
        share = own / (own + evaluations * evaluation)
        print(f"{name:14s} {evaluations:4d} NFE, own arithmetic {1000 * own:7.1f} ms: {share:.2%}")


if __name__ == "__main__":
    main()
