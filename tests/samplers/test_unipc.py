"""UniPC against exact flows, the paper's linear systems, DPM-Solver and quadrature."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import few
from test_dpm_single import (
    FORMS,
    FROM_NOTHING,
    LINEAR_NOISE,
    POINTS,
    SOME,
    VP,
    at_noise,
    derivatives_pass,
    exact_move,
    float32_follows_float64,
    keys_of,
    observed_order,
    of_lambda,
    predictor,
    pure_noise_follows_the_line,
    same_on_every_schedule,
    scales,
    stays_on_the_path,
    walk,
)

from genzoo.math import continuous
from genzoo.samplers.dpm_multistep import Multistep
from genzoo.samplers.loop import Sampler
from genzoo.samplers.unipc import UniPC

SCHEDULES = pytest.mark.parametrize("schedule", few(SOME, (0, 2)), ids=lambda s: type(s).__name__)
BOTH_FORMS = pytest.mark.parametrize("form", FORMS)


def unipc(schedule, form="data", order=2, **options):
    return UniPC(schedule=schedule, form=FORMS[form], order=order, **options)


@pytest.mark.parametrize(
    ("form", "order", "options"),
    few(
        [
            ("data", 1, {"bh2": True}),
            ("noise", 1, {"bh2": False}),
            ("data", 2, {"bh2": True}),
            ("noise", 2, {"bh2": False}),
            ("data", 3, {"bh2": True}),
            ("noise", 3, {"bh2": True}),
        ],
        (0, 3, 4),
    ),
)
def test_observed_order_is_one_above_that_of_the_predictor(float64, form, order, options):
    """Measured from 320 to 640 moves, as listed: 2.00, 1.98, 3.01, 3.00, 4.03, 4.05."""
    schedule = LINEAR_NOISE if form == "data" else VP
    step = unipc(schedule, form, order, lower_order_final=False, **options)
    assert abs(observed_order(step) - (order + 1)) < 0.1


@pytest.mark.parametrize(("form", "gentle"), few(itertools.product(FORMS, (True, False)), (0, 3)))
def test_the_predictor_alone_is_dpm_solver(float64, form, gentle):
    # UniP-2 with B = exp(z) - 1 is 2M; UniP-3 solves for 3M with the whole second difference, but
    # begins and ends with UniP-2.
    times = np.append(at_noise(VP, [5.0, 3.1, 1.2, 0.8, 0.3, 0.1]), 0.0)
    for order in (1, 2, 3):
        alone = unipc(VP, form, order, corrector=False, lower_order_final=gentle)
        dpm = Multistep(
            schedule=VP, form=FORMS[form], order=order, midpoint=True, lower_order_final=gentle
        )
        states, _ = walk(alone, predictor(VP), POINTS, times)
        expected, _ = walk(dpm, predictor(VP), POINTS, times)
        np.testing.assert_allclose(states, expected, rtol=1e-9)


def as_published(schedule, form, p, bh2, predict, x, times):
    """Zhao et al. 2023, algorithms 1 and 2 with their R, b and B(h), in NumPy: x before each
    prediction, and the data at the end."""
    outputs, lambdas, states, previous = [], [], [], None
    count = len(times) - 1

    def update(x, start, end, value, nodes, differences, simple):
        # x at `end` from x and f = value at `start`; nodes r_m and D_m = f(r_m) - f(0).
        (alpha_t, sigma_t), (alpha_s, sigma_s) = scales(schedule, start), scales(schedule, end)
        h = np.log(alpha_s / sigma_s) - np.log(alpha_t / sigma_t)
        z = -h if form == "data" else h
        data = sigma_s / sigma_t, alpha_s
        linear, scale = data if form == "data" else (alpha_s / alpha_t, sigma_s)
        bh = np.expm1(z) if bh2 else z
        b, phi = [], np.expm1(z) / z
        for i in range(1, len(nodes) + 1):
            phi = (phi - 1 / math.factorial(i)) / z  # phi_{i+1}
            b.append(math.factorial(i) * z * phi / bh)
        rho = np.linalg.solve(np.vander(nodes, increasing=True).T, b) if nodes else []
        rho = [0.5] if simple else rho
        total = sum(r * d / node for r, d, node in zip(rho, differences, nodes, strict=True))
        return linear * x - scale * np.expm1(z) * value - scale * bh * total

    for index in range(count):
        t, s = times[index], times[index + 1]
        seen = predict(jnp.asarray(x), jnp.float64(t))
        value = np.asarray(seen.x_0 if form == "data" else seen.eps)
        alpha, sigma = scales(schedule, t)
        lambdas.append(np.log(alpha / sigma))
        if previous is not None:
            start, corrected, order = previous
            at_start, h = outputs[-1], lambdas[-1] - lambdas[-2]
            older = range(2, order + 1)
            nodes = [(lambdas[-1 - i] - lambdas[-2]) / h for i in older] + [1.0]
            differences = [outputs[-i] - at_start for i in older] + [value - at_start]
            x = update(corrected, start, t, at_start, nodes, differences, order == 1)
        outputs.append(value)
        if s == 0:
            states.append(value if form == "data" else (x - sigma * value) / alpha)
            break
        order = min(p, index + 1, count - index)
        alpha_s, sigma_s = scales(schedule, s)
        h = np.log(alpha_s / sigma_s) - lambdas[-1]
        older = range(2, order + 1)
        nodes = [(lambdas[-i] - lambdas[-1]) / h for i in older]
        differences = [outputs[-i] - value for i in older]
        previous = t, x, order
        x = update(x, t, s, value, nodes, differences, order == 2)
        states.append(x)
    return states


@pytest.mark.parametrize(
    ("order", "form", "bh2"),
    few(itertools.product((1, 2, 3), FORMS, (True, False)), (1, 5, 6, 8, 11)),
)
def test_the_algorithms_as_published(float64, form, order, bh2):
    times = np.append(at_noise(VP, [5.0, 3.1, 1.9, 1.2, 0.8, 0.3, 0.1]), 0.0)
    x = POINTS * np.hypot(*scales(VP, times[0]))
    states, _ = walk(unipc(VP, form, order, bh2=bh2), predictor(VP), x, times)
    expected = as_published(VP, form, order, bh2, predictor(VP), x, times)
    np.testing.assert_allclose(states, expected, rtol=1e-8)


@pytest.mark.parametrize(("order", "form"), few(itertools.product((1, 2, 3), FORMS), (0, 3, 4, 5)))
def test_which_polynomials_of_lambda_the_corrector_integrates(float64, form, order):
    # x at the end of the third move, corrected, is where the last move to the data begins: it can
    # be read from what finish makes of it. UniC-1 has a fixed weight, the others solve.
    times = at_noise(VP, [3.0, 2.2, 1.0, 0.4])
    step = unipc(VP, form, order, lower_order_final=False)
    for degree in range(5):
        polynomial = np.polynomial.Polynomial([0.7, -1.3, 0.8, 0.5, -0.4][: degree + 1])
        predict, x, corrected = of_lambda(VP, form, polynomial), jnp.asarray(POINTS), []
        memory = step.init(x, jnp.asarray(9))
        for t, s in zip(jnp.asarray(times), [*jnp.asarray(times[1:]), None], strict=True):
            seen = predict(x, t)
            pair = step.corrected(seen, t, memory)
            alpha, sigma = scales(VP, t)
            corrected.append(np.asarray(alpha * pair.x_0 + sigma * pair.eps))
            if s is not None:
                x, memory = step(predict, seen, x, t, s, keys_of(4), memory)
        expected = exact_move(VP, form, corrected[2], *times[2:], polynomial)
        is_exact = np.abs(corrected[3] - expected).max() < 1e-9
        assert is_exact == (degree <= (0 if order == 1 else order))


@SCHEDULES
def test_a_perfect_denoiser_stays_on_the_path(float64, schedule):
    for form in FORMS:
        stays_on_the_path(unipc(schedule, form, 3), schedule)


@pytest.mark.parametrize(("form", "order"), few(itertools.product(FORMS, (2, 3)), (1,)))
def test_the_path_is_the_same_on_every_schedule(float64, form, order):
    same_on_every_schedule(lambda schedule: unipc(schedule, form, order))


@BOTH_FORMS
@pytest.mark.parametrize("schedule", few(FROM_NOTHING), ids=lambda s: type(s).__name__)
def test_from_pure_noise_the_first_move_is_ddim_and_is_not_corrected(float64, schedule, form):
    pure_noise_follows_the_line(unipc(schedule, form, 3), schedule)
    # The rest is a run of its own from the second time on.
    times = [1.0, 0.8, 0.5, 0.2, 0.0]
    for order in (1, 3):
        states, _ = walk(unipc(schedule, form, order), predictor(schedule), POINTS, times)
        rest, _ = walk(unipc(schedule, form, order), predictor(schedule), states[0], times[1:])
        np.testing.assert_allclose(states[1:], rest, rtol=1e-9)


@pytest.mark.slow
@SCHEDULES
def test_float32_follows_float64(schedule):
    float32_follows_float64(lambda schedule: unipc(schedule, order=3), schedule)


@pytest.mark.parametrize("schedule", few([continuous.Straight(), VP]))
def test_float32_follows_float64_in_noise(schedule):
    float32_follows_float64(lambda schedule: unipc(schedule, "noise", 3), schedule)


def test_one_program_for_every_number_of_steps_with_one_evaluation_each(float64):
    step = unipc(VP, order=3)

    @jax.jit
    def solve(times, steps):
        return Sampler(step=step, times=times, steps=steps)(
            predictor(VP), jnp.asarray(POINTS), keys_of(4)
        )

    for count in (1, 5):
        times = np.linspace(0.9, 0, count + 1)
        solution = solve(jnp.asarray(np.pad(times, (0, 20 - count))), count)
        states, asked = walk(step, predictor(VP), POINTS, times)
        np.testing.assert_allclose(solution.x, states[-1], rtol=1e-10)
        assert solution.evaluations.tolist() == [len(asked)] * 4 == [count] * 4
        assert min(asked) > 0


def test_a_row_does_not_depend_on_the_others():
    step, times = unipc(VP, order=3), np.linspace(0.9, 0, 6)
    together, _ = walk(step, predictor(VP), POINTS, times)
    alone, _ = walk(step, predictor(VP), POINTS[1:2], times)
    np.testing.assert_allclose(together[-1][1:2], alone[-1], rtol=1e-5)


def test_derivatives_pass_through(float64):
    # From pure noise, where unused branches meet infinities, most of all with eps.
    derivatives_pass(unipc(continuous.Straight(), "noise", 3))
