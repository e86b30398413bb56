"""The observed orders of convergence of every deterministic method, on an exact predictor.

    python tests/samplers/order_table.py

The probability flow of a mixture of two Gaussians in one dimension, in float64, from sigma / alpha
= 40 to 0.02 in even steps of logsnr. A flow in one dimension is monotone, so that its exact end is
the quantile map. The error is the largest over nine quantiles.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq

sys.path.insert(0, str(Path(__file__).parent.parent))

from oracles import Mixture

from genzoo.builders.sampling import METHODS, DiffusionSampling
from genzoo.core import streams
from genzoo.math import continuous, gaussian
from genzoo.math.schedules import Schedule
from genzoo.samplers.loop import Sampler

DATA = Mixture()
NOISE = 40.0, 0.02  # sigma / alpha, from and to
COUNTS = (10, 20, 40, 80, 160, 320, 640)
SCHEDULES: Mapping[str, Schedule] = {
    "VP": continuous.VariancePreserving(),
    "VE": continuous.LinearNoise(),
}
ORDERS: Mapping[str, int] = {
    "ddim": 1, "euler": 1, "dpm_1": 1, "dpmpp_1": 1,
    "heun": 2, "edm": 2, "dpm2": 2, "dpm_2": 2, "dpm_2m": 2, "dpmpp_2s": 2, "dpmpp_2m": 2,
    "dpmpp_3m_published": 2,
    "dpm_3": 3, "dpm_3m": 3, "dpmpp_3s": 3, "dpmpp_3m": 3, "deis": 3,
    "rk4": 4, "lms": 4, "pndm": 4, "f_pndm": 4, "unipc": 4,
}  # fmt: skip
"""Of the methods that draw no noise: what theory says, also where the publication differs."""


def grid(schedule: Schedule, count: int) -> np.ndarray:
    """Times [count + 1], even in logsnr."""
    noise = np.exp(np.linspace(*np.log(NOISE), count + 1))
    return np.asarray(schedule.time_of_logsnr(jnp.asarray(-2 * np.log(noise))))


def ends(schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """(x at the first time, x at the last) of nine quantiles, exactly."""
    first, last = (
        tuple(float(f(jnp.float64(t))) for f in (schedule.alpha, schedule.sigma))
        for t in grid(schedule, 1)
    )
    share = np.linspace(0.05, 0.95, 9)

    def quantiles(alpha, sigma):
        wide = 10 * (alpha + sigma)

        def place(q):
            return brentq(lambda x: DATA.cdf(x, alpha, sigma) - q, -wide, wide, xtol=1e-15)

        return np.array([place(q) for q in share])

    return quantiles(*first), quantiles(*last)


def errors(name: str, schedule: Schedule, counts: tuple[int, ...] = COUNTS) -> np.ndarray:
    """The largest error at the end for each number of steps, in units of x / alpha; one program."""
    x, exact = ends(schedule)
    step = METHODS[name](schedule, DiffusionSampling(), gaussian.FIXED_SMALL)
    keys = streams.per_example(streams.root(0), jnp.arange(len(x)))

    @jax.jit
    def run(times, steps):
        sampler = Sampler(step=step, times=times, steps=steps)
        return sampler(DATA.predictor(schedule), jnp.asarray(x)[:, None], keys).x[:, 0]

    largest = []
    for count in counts:
        times = np.zeros(max(counts) + 1)
        times[: count + 1] = grid(schedule, count)
        alpha = float(schedule.alpha(jnp.float64(times[count])))
        largest.append(np.abs(np.asarray(run(jnp.asarray(times), count)) - exact).max() / alpha)
    return np.array(largest)


def slopes(errors_by_count: np.ndarray) -> np.ndarray:
    """Observed orders, for numbers of steps that double."""
    return np.log2(errors_by_count[:-1] / errors_by_count[1:])


def main() -> None:
    """Prints the table."""
    jax.config.update("jax_enable_x64", True)
    for label, schedule in SCHEDULES.items():
        print(f"\n{label:20s} order  observed  error at " + " ".join(f"{n:>9d}" for n in COUNTS))
        for name in ORDERS:
            errors_by_count = errors(name, schedule)
            print(
                f"{name:20s} {ORDERS[name]:>5d}  {slopes(errors_by_count)[-1]:8.2f}           "
                + " ".join(f"{e:9.1e}" for e in errors_by_count)
            )


if __name__ == "__main__":
    main()
