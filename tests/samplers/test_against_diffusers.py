"""Our solvers are diffusers' schedulers, wherever the definition is the same: the same noise and
the same exact denoiser give the same states, one by one.

The fixture holds what diffusers 0.42.1 computed (tests/peers/make_solver_fixture.py), in float64;
its names are method/grid/steps. So both sides differ by rounding alone: by 1e-14 mostly, 8e-14 at
most (UniPC-3 in the form NOISE). In float32, as diffusers is delivered, it would be up to 4e-5.

Different on purpose, and not compared. In parentheses: how far apart the states are, at most, in
units of the largest value of the pixel, on 10 steps of the grid trailing unless noted.

* deis (0.35): diffusers has the polynomial in logsnr, here `in_logsnr`, and lowers the order of the
  last two of fewer than 15 steps, here `lower_order_final` = None; so it is compared.
* dpmpp_3m, dpm_3m (0.004; 0.04 and 0.2 on 20 steps): diffusers has half the second difference,
  here `published`, which is compared.
* dpmpp_3m_sde (0.28): the same, and a wrong sign in the factor of it. With both mended in the code
  of diffusers the two agree to 6e-15.
* dpmpp_2s, dpm_2, dpmpp_3s, dpm_3: diffusers has the inner points of a move where its grid has
  steps (2S on 11 steps of linspace: 0.02); compared on grids even in logsnr. In order 3 it has
  phi_1 / 2 or phi_2 in both stages ("midpoint", "heun"; 0.05 and 0.09 on 3 moves), the paper phi_2
  in the first and the other weights of "midpoint" in the second: the fixture switches in between.
* dpmpp_sde: diffusers' single steps draw the noise at the end of a move afresh, whatever was drawn
  inside it.
* ancestral with FIXED_LARGE (0.5, in the last state): diffusers adds noise to the data unless it
  comes from the first step of the table, as on the grid leading, which is compared.
* ddim and pndm on linspace (0.2, 0.3): diffusers steps by T // S whatever the grid is.
* pndm to the first step of the table instead of to the data (0.04): what diffusers does by default.
* euler with churn: diffusers raises the noise after its pipeline has asked the model, k-diffusion
  (and EDM) before; the fixture asks on the raised noise.
* unipc of the form NOISE, or with bh1: diffusers gives nan at sigma = 0; compared to the first step
  of the table. So is DPM-Solver, where diffusers forbids sigma = 0.
"""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Mixture, few

from genzoo.builders.sampling import METHODS, DiffusionSampling
from genzoo.core import streams
from genzoo.math import continuous, gaussian, schedules
from genzoo.math.exponential import DATA, NOISE
from genzoo.samplers import grids
from genzoo.samplers.dpm_multistep import Multistep
from genzoo.samplers.dpm_sde import NoiseMultistepSDE
from genzoo.samplers.linear_multistep import DEIS, in_logsnr
from genzoo.samplers.loop import Memoryless, Sampler
from genzoo.samplers.predictor import Prediction
from genzoo.samplers.unipc import UniPC

SAVED = dict(np.load(Path(__file__).parent / "fixtures" / "diffusers_solvers.npz"))
DRAWS = SAVED.pop("draws")
LONGEST = max(map(len, SAVED.values())) - 1

TABLE, EXPLODING, STRAIGHT = schedules.linear(1000), continuous.LinearNoise(), continuous.Straight()
PROCESSES = {  # of what is not on the table
    "exploding": EXPLODING,
    "straight": STRAIGHT,
    "straight_shifted": STRAIGHT,
    "straight_inside": STRAIGHT,
}
VARIANTS = {  # of what METHODS does not have by this name
    "ddim_eta": lambda schedule: named("ddim", schedule, DiffusionSampling(eta=0.7)),
    "ancestral_large": lambda schedule: named("ancestral", schedule, variance=gaussian.FIXED_LARGE),
    "deis_logsnr": partial(DEIS, variable=in_logsnr, lower_order_final=None),
    "dpm_2m_sde_heun": partial(NoiseMultistepSDE, order=2, midpoint=False),
    "dpm_3m_published": partial(Multistep, form=NOISE, order=3, published=True),
    "euler_churn": lambda schedule: named("euler", schedule, DiffusionSampling(**CHURN)),
    "dpmpp_2m_heun": partial(Multistep, form=DATA, midpoint=False),
    "unipc_2": partial(UniPC, order=2),
    "unipc_3": partial(UniPC, order=3),
    "unipc_3_bh1": partial(UniPC, order=3, bh2=False),
    "unipc_3_noise": partial(UniPC, order=3, form=NOISE),
}
IN_HASTE = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
CHURN = {"churn": 4.0, "churn_low": 0.05, "churn_high": 50.0, "churn_noise": 1.01}
MOVES_FIRST = ("euler_churn",)
"""What asks elsewhere than it stands, and so not together with the others."""
SLOW = {
    "ddim_eta", "dpm_2", "dpm_2m", "dpm_2m_sde_heun", "dpm_3", "dpm_3m_published", "dpmpp_2m_heun",
    "euler_churn", "f_pndm", "unipc_2", "unipc_3_bh1",
}  # fmt: skip
"""Variants of the others, in a program of their own."""


def named(method, schedule, sample=None, variance=gaussian.FIXED_SMALL):
    """A step by its name in a config."""
    return METHODS[method](schedule, sample or DiffusionSampling(), variance)


def schedule_of(case):
    return PROCESSES.get(case.split("/")[1], TABLE)


def part_of(case):
    """What is computed by one program: (schedule, whether it is slow, whether it moves first)."""
    method = case.split("/")[0]
    return schedule_of(case), method in SLOW, method in MOVES_FIRST


def times_of(case):
    """The times at which the states of the fixture stand."""
    schedule, noise = schedule_of(case), SAVED[case][:, 0]
    if schedule is not TABLE:
        return noise / (EXPLODING.sigma_max if schedule is EXPLODING else 1)
    minus_log_alpha = np.log1p(noise**2) / 2
    return np.interp(minus_log_alpha, -TABLE.log_alpha, np.linspace(0, 1, TABLE.steps + 1))


@dataclass(frozen=True, kw_only=True)
class SideBySide(Memoryless):
    """Steps each of which has its own part of the batch: one program for many methods."""

    steps: tuple

    def _parts(self, x, seen):
        parts = (jnp.split(v, len(self.steps)) for v in (x, seen.x_0, seen.eps))
        return [
            (step, x, Prediction(*pair)) for step, x, *pair in zip(self.steps, *parts, strict=True)
        ]

    def before(self, x, t, s, keys, memory):
        if len(self.steps) > 1:
            return x, t
        return self.steps[0].before(x, t, s, keys, memory[0])

    def init(self, x, steps):
        parts = jnp.split(x, len(self.steps))
        return [step.init(part, steps) for step, part in zip(self.steps, parts, strict=True)]

    def __call__(self, predict, seen, x, t, s, keys, memory):
        moved = [
            step(predict, seen, x, t, s, keys[: len(x)], own)
            for (step, x, seen), own in zip(self._parts(x, seen), memory, strict=True)
        ]
        return jnp.concatenate([x for x, _ in moved]), [own for _, own in moved]

    def finish(self, seen, x, t, memory):
        parts = zip(self._parts(x, seen), memory, strict=True)
        return jnp.concatenate([step.finish(seen, x, t, own) for (step, x, seen), own in parts])


def states_of(schedule, cases):
    """case -> our states [steps, pixels], of cases of one schedule."""
    methods = sorted({case.split("/")[0] for case in cases})
    steps = tuple(VARIANTS.get(m, partial(named, m))(schedule=schedule) for m in methods)

    def run(x, times, count):
        sampler = Sampler(step=SideBySide(steps=steps), times=times, steps=count)
        keys = jax.random.split(jax.random.key(0), len(x))
        return sampler(Mixture().predictor(schedule), x, keys, trajectory=True).states

    run = jax.jit(run, compiler_options=IN_HASTE)
    paths, states_by_case = {}, {}
    for case in cases:
        times, start = times_of(case), np.tile(SAVED[case][0, 1:, None], (len(methods), 1))
        count, path = len(times) - 1, np.round(times, 12).tobytes()
        if path not in paths:  # which every method takes, though not all have a case there
            states = run(start, np.pad(times, (0, LONGEST - count)), count)[:count, :, 0]
            paths[path] = np.split(np.asarray(states), len(methods), axis=1)
        states_by_case[case] = paths[path][methods.index(case.split("/")[0])]
    return states_by_case


def keys_of_step(keys, step):
    """In the place of `streams.fold`: keys that hold the number of the step."""
    data = jnp.stack([jnp.zeros((), jnp.uint32), jnp.asarray(step, jnp.uint32)])
    return jax.random.wrap_key_data(jnp.broadcast_to(data, (len(keys), 2)))


def draw_of_step(keys, shape, dtype):
    """In the place of `streams.normal`: the draw of the fixture, the same for every method."""
    return jnp.asarray(DRAWS, dtype)[jax.random.key_data(keys)[0, 1]]


@cache
def states_of_part(schedule, slow, first):
    """case -> our states of that part, with the noise of the fixture."""
    with pytest.MonkeyPatch.context() as patched, jax.enable_x64(True):
        patched.setattr(streams, "fold", keys_of_step)
        patched.setattr(streams, "normal", draw_of_step)
        part = schedule, slow, first
        return states_of(schedule, [case for case in SAVED if part_of(case) == part])


@pytest.fixture
def ours(case):
    """Our states of the case."""
    return states_of_part(*part_of(case))[case]


FAST = [place for place, case in enumerate(SAVED) if case.split("/")[0] not in SLOW]


@pytest.mark.parametrize("case", few(SAVED, FAST))
def test_the_states_are_those_of_diffusers(ours, case):
    np.testing.assert_allclose(ours, SAVED[case][1:, 1:], rtol=1e-12, atol=1e-12)


TO_FIRST = partial(grids.on_table(grids.offset(grids.leading, 1)), end=grids.stop(TABLE, 1e-9))


@pytest.mark.parametrize(
    ("case", "grid", "every"),
    [
        ("ddim/trailing/10", grids.on_table(grids.trailing), 1),
        ("euler/trailing/20", grids.on_table(grids.trailing), 1),
        ("ddim/leading/10", grids.on_table(grids.leading), 1),
        ("ddim/leading_offset/10", TO_FIRST, 1),
        ("dpmpp_2m/leading/10", grids.on_table(grids.offset(grids.leading_open, 1)), 1),
        ("dpmpp_2m/linspace/10", grids.on_table(grids.linspace_open), 1),
        ("ancestral/linspace/20", grids.on_table(grids.linspace), 1),
        ("dpmpp_2m/karras/10", grids.karras(), 1),
        ("dpmpp_2s/exponential/10", grids.logsnr, 2),
        ("dpmpp_3s/exponential/7", grids.logsnr, 3),
        ("euler/exploding/20", grids.karras(), 1),
        ("euler/straight/20", grids.even_to_nearest, 1),
        ("euler/straight_shifted/20", grids.shifted(grids.even, 3.0), 1),
    ],
)
def test_the_grids_are_those_of_diffusers(float64, case, grid, every):
    # every: how many steps of a single-step scheduler are one of ours.
    expected = times_of(case)
    count = every * (len(expected) - 2) + 1
    times = jax.jit(partial(grid, schedule_of(case), count), compiler_options=IN_HASTE)()
    times = np.append(times[:-1:every], times[-1])
    np.testing.assert_allclose(times, expected, rtol=1e-10)
