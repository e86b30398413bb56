"""Noise schedules side by side, against the formulas of their papers."""

import numpy as np

from genzoo.evaluate import schedules as drawn
from genzoo.math import schedules
from genzoo.math.continuous import Straight


def test_the_curves_of_a_table_are_those_of_its_betas():
    curves = drawn.curves(schedules.linear(1000))
    beta = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - beta)
    np.testing.assert_allclose(curves.beta, beta, rtol=1e-12)
    np.testing.assert_allclose(curves.alpha_bar, alpha_bar, rtol=1e-10)
    np.testing.assert_allclose(curves.logsnr, np.log(alpha_bar / (1 - alpha_bar)), rtol=1e-8)


def test_any_other_process_is_drawn_as_the_variance_preserving_one_with_its_log_snr():
    curves = drawn.curves(Straight())  # x_t = (1 - t) x_0 + t eps
    t = np.arange(1, 1001) / 1000
    alpha_bar = (1 - t) ** 2 / ((1 - t) ** 2 + t**2)
    np.testing.assert_allclose(curves.alpha_bar, alpha_bar, rtol=1e-4, atol=1e-12)
    before = np.append(1.0, alpha_bar[:-1])
    np.testing.assert_allclose(curves.beta, 1 - alpha_bar / before, rtol=2e-2, atol=1e-7)


def test_noisy_data_have_the_moments_of_the_process():
    x_0 = np.full((20_000, 2), 3.0)
    named = {"straight": Straight(), "linear": schedules.linear(1000)}
    states = drawn.noisy(named, x_0)
    t = np.array(drawn.MOMENTS)
    alpha, sigma = 1 - t, t
    np.testing.assert_allclose(
        states["straight"].mean((1, 2)), 3 * alpha / np.hypot(alpha, sigma), atol=0.03
    )
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    at = alpha_bar[np.round(1000 * t[1:]).astype(int) - 1]
    spread = states["linear"].std((1, 2))
    np.testing.assert_allclose(spread, np.sqrt(np.append(0, 1 - at)), atol=0.02)
    np.testing.assert_allclose(states["linear"][0], x_0)


def test_what_is_written_is_plain_and_starts_and_ends_with_the_table():
    named = {"own": drawn.curves(schedules.cosine(50)), "b": drawn.curves(schedules.linear(1000))}
    content = drawn.plain(named)
    assert content["t"][0] == 1 / 50 and content["t"][-1] == 1
    assert list(content["schedules"]) == ["own", "b"]
    own = content["schedules"]["own"]
    np.testing.assert_allclose(own["beta"], named["own"].beta)
    assert all(len(v) == len(content["t"]) for v in content["schedules"]["b"].values())
    zero = schedules.rescaled_to_zero_terminal(schedules.linear(100))
    assert drawn.plain({"own": drawn.curves(zero)})["schedules"]["own"]["logsnr"][-1] is None
