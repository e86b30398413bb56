"""Guidance on Gaussians, whose products, powers and posteriors are Gaussian again."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import StraightLine, continuous_schedules, few
from scipy.stats import norm

from genzoo.core.conditions import Given
from genzoo.math import schedules
from genzoo.samplers import guidance
from genzoo.samplers.guidance import GuidanceStep
from genzoo.samplers.predictor import Prediction, clipped

# A table, and every process of continuous time: variance preserving, exploding, alpha(1) = 0.
EVERY = [schedules.cosine(100), *continuous_schedules()]
SCHEDULES = pytest.mark.parametrize(
    "schedule", few(EVERY, (0, 3, 5)), ids=lambda s: type(s).__name__
)
TIMES = (0.03, 0.5, 0.97)
X = np.random.default_rng(0).normal(size=(3, 4))
LABEL, NONE = (0.8, 0.3), (-0.2, 0.9)  # mean and deviation of p(x | y), and of p(x)


def spread(values, like):
    """[] or [B] -> an array that broadcasts against [B, ...]."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim) * (values.ndim > 0))


def scales(schedule, t):
    """(alpha, sigma) as numbers."""
    return tuple(float(f(jnp.asarray(t))) for f in (schedule.alpha, schedule.sigma))


def gaussian(schedule, mean, deviation, extra=None):
    """The exact predictor of N(mean, deviation^2), every number independent; t is [] or [B]."""

    def predict(x, t):
        alpha, sigma = (spread(f(t), x) for f in (schedule.alpha, schedule.sigma))
        variance = alpha**2 * deviation**2 + sigma**2
        x_0 = mean + alpha * deviation**2 / variance * (x - alpha * mean)
        return Prediction(x_0, sigma * (x - alpha * mean) / variance, extra)

    return predict


def guided(schedule, scale, **options):
    on, off = gaussian(schedule, *LABEL), gaussian(schedule, *NONE)
    return guidance.classifier_free(on, off, scale, schedule, **options)


def assert_explains(schedule, seen, x, t):
    """The predicted pair makes up x_t."""
    alpha, sigma = scales(schedule, t)
    np.testing.assert_allclose(alpha * seen.x_0 + sigma * seen.eps, x, rtol=1e-9, atol=1e-11)


def assert_close(seen, expected, rtol=1e-9):
    for part in ("x_0", "eps"):
        size = np.abs(getattr(expected, part)).max()
        np.testing.assert_allclose(
            getattr(seen, part), getattr(expected, part), rtol=rtol, atol=rtol * size
        )


# --- classifier-free ---------------------------------------------------------------------------


@SCHEDULES
def test_the_guided_score_is_that_of_the_product_of_powers(compiled, float64, schedule):
    run = compiled(lambda x, t, w: guided(schedule, w)(x, t))
    for t in TIMES:
        alpha, sigma = scales(schedule, t)
        on, off = (alpha**2 * d**2 + sigma**2 for _, d in (LABEL, NONE))
        for w in (-0.05, 0.0, 0.5, 1.0, 2.0, 7.5):
            # N(x; a, A)^w N(x; b, B)^(1 - w), normalised.
            precision = w / on + (1 - w) / off
            assert precision > 0
            mean = alpha * (w * LABEL[0] / on + (1 - w) * NONE[0] / off) / precision
            x = mean + X * precision**-0.5
            seen = run(x, jnp.asarray(t), w)
            score = -precision * (x - mean)
            np.testing.assert_allclose(-seen.eps / sigma, score, rtol=1e-7, atol=1e-9 / sigma)
            assert_explains(schedule, seen, x, t)


def test_one_is_the_conditional_zero_the_unconditional(compiled):
    schedule = StraightLine()
    x, t = jnp.asarray(X, jnp.float32), jnp.float32(0.6)
    for scale, (mean, deviation) in ((1.0, LABEL), (0.0, NONE)):
        seen = compiled(guided(schedule, scale))(x, t)
        assert_close(seen, gaussian(schedule, mean, deviation)(x, t), rtol=1e-6)


def test_guidance_holds_where_no_signal_is_left(compiled, float64):
    seen = compiled(guided(StraightLine(), 3.0))(X, jnp.float64(1))
    np.testing.assert_allclose(seen.x_0, np.full_like(X, 3 * LABEL[0] - 2 * NONE[0]), rtol=1e-12)
    np.testing.assert_allclose(seen.eps, X, rtol=1e-12)


@pytest.mark.parametrize("times", [0.4, np.array([0.2, 0.4, 0.9])], ids=["one", "each"])
def test_a_scale_is_a_number_or_one_per_example_or_a_function_of_time(compiled, float64, times):
    schedule, times = StraightLine(), jnp.asarray(times)
    rows = np.broadcast_to(times, 3)

    def one_at_a_time(numbers):
        each = [
            guided(schedule, float(w))(X[i : i + 1], jnp.asarray(t))
            for i, (w, t) in enumerate(zip(numbers, rows, strict=True))
        ]
        return Prediction(*(np.concatenate(part) for part in list(zip(*each, strict=True))[:2]))

    numbers = jnp.array([0.0, 1.5, 4.0])
    seen = compiled(lambda w: guided(schedule, w)(X, times))(numbers)
    assert_close(seen, one_at_a_time(numbers), 1e-12)
    seen = compiled(guided(schedule, lambda t: 5 * t**2))(X, times)
    assert_close(seen, one_at_a_time(5 * rows**2), 1e-12)


def test_extra_is_the_conditionals(compiled):
    schedule = StraightLine()
    x = jnp.asarray(X, jnp.float32)
    on, off = gaussian(schedule, *LABEL, extra=2 * x), gaussian(schedule, *NONE, extra=3 * x)
    for scale in (2.0, lambda t: 1 + t, lambda t: jnp.ones_like(t)):
        predict = guidance.classifier_free(on, off, scale, schedule)
        seen = compiled(predict)(x, jnp.float32(0.5))
        np.testing.assert_array_equal(seen.extra, 2 * x)


# --- the interval ------------------------------------------------------------------------------


def test_within_is_the_scale_inside_and_one_outside(compiled, float64):
    times = jnp.array([0.0, 0.29, 0.3, 0.5, 0.7, 0.71, 1.0])
    run = compiled(guidance.within(3.0, 0.3, 0.7))
    np.testing.assert_array_equal(run(times), [1, 1, 3, 3, 3, 1, 1])
    assert float(run(jnp.asarray(0.5))) == 3
    run = compiled(guidance.within(lambda t: 10 * t, 0.3, 0.7))
    np.testing.assert_allclose(run(times), [1, 1, 3, 5, 7, 1, 1])


@SCHEDULES
def test_an_interval_of_logsnr_is_one_of_time(float64, schedule):
    low, high = (schedule.time_of_logsnr(schedule.logsnr(jnp.asarray(t))) for t in (0.2, 0.6))
    times = jnp.array([0.19, 0.21, 0.59, 0.61])
    np.testing.assert_array_equal(guidance.within(2.0, low, high)(times), [1, 2, 2, 1])


@pytest.mark.parametrize("form", ["two calls", "one call"])
def test_outside_the_interval_the_conditional_alone_is_run(form):
    schedule, rows = StraightLine(), []
    scale = guidance.within(3.0, 0.3, 0.7)

    def noting(x, t, label):
        jax.debug.callback(lambda label: rows.append(np.asarray(label).tolist()), label)
        return gaussian(schedule, spread(label, x) * 0.7, 0.5)(x, t)

    labels, null = jnp.array([1.0, 2.0, 3.0]), jnp.zeros(3)
    if form == "one call":
        conditions = given(label=labels)

        def labelled(x, t, conditions):
            label, present = conditions["label"]
            return noting(x, t, jnp.where(present, label, 0))

        steps = [GuidanceStep(frozenset({"label"}), scale)]
        predict = guidance.composed(labelled, conditions, steps, schedule)
    else:
        on, off = (lambda x, t, label=label: noting(x, t, label) for label in (labels, null))
        predict = guidance.classifier_free(on, off, scale, schedule)
    predict, x = jax.jit(predict), jnp.asarray(X, jnp.float32)
    outside, inside = predict(x, jnp.float32(0.8)), predict(x, jnp.float32(0.5))
    jax.effects_barrier()
    both = [[1, 0, 2, 0, 3, 0]] if form == "one call" else [[0, 0, 0], [1, 2, 3]]
    assert rows[0] == [1, 2, 3] and sorted(rows[1:]) == both
    plain = gaussian(schedule, labels[:, None] * 0.7, 0.5)
    expected = jax.jit(plain)(x, jnp.float32(0.8))
    np.testing.assert_allclose(outside.x_0, expected.x_0, rtol=1e-6)
    assert np.abs(inside.x_0 - plain(x, jnp.float32(0.5)).x_0).min() > 0.1


# --- several conditions in one call ------------------------------------------------------------


def given(**values):
    """Conditions that are present for every example."""
    return {k: Given(v, jnp.ones(v.shape[:1], bool)) for k, v in values.items()}


def network(x, t, conditions):
    """A function that mixes x, t and two conditions, with other values for absent ones."""
    text, label = conditions["text"], conditions["label"]
    text_sum = jnp.where(text.present, text.value.sum(-1), 0.4)
    of = jnp.where(label.present, label.value, 3)
    output = jnp.tanh(x * (1 + spread(of, x)) + spread(t, x)) + spread(text_sum, x) * jnp.sin(3 * x)
    return Prediction(output, x - output, 2 * output)


def both_given():
    return given(label=jnp.array([0, 2, 1]), text=jnp.asarray(X, jnp.float32))


def lacking(conditions, *names):
    hide = {k: conditions[k]._replace(present=jnp.zeros(3, bool)) for k in names}
    return {**conditions, **hide}


@pytest.mark.parametrize(
    ("times", "scale", "rescale"),
    [(0.4, 2.5, 0.0), (np.array([0.2, 0.4, 0.9]), np.array([0.0, 1.0, 3.0]), 0.7)],
    ids=["one number", "one for each row"],
)
def test_one_step_is_classifier_free_guidance_in_one_call(compiled, times, scale, rescale):
    schedule, x, times = StraightLine(), jnp.asarray(X, jnp.float32), jnp.float32(times)
    conditions, calls = both_given(), []

    def noting(x, t, conditions):
        calls.append((x.shape, t.shape, conditions["label"].value.shape))
        return network(x, t, conditions)

    steps = [GuidanceStep(frozenset({"label", "text"}), scale)]
    once = guidance.composed(noting, conditions, steps, schedule, rescale=rescale)
    twice = guidance.classifier_free(
        lambda x, t: network(x, t, conditions),
        lambda x, t: network(x, t, lacking(conditions, "label", "text")),
        scale, schedule, rescale=rescale,
    )  # fmt: skip
    seen = compiled(once)(x, times)
    assert calls == [((6, 4), (6,) if times.ndim else (), (6,))]
    for part, expected in zip(seen, compiled(twice)(x, times), strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-5)


def test_two_steps_are_a_telescope_in_their_order(compiled):
    schedule, x, t = StraightLine(), jnp.asarray(X, jnp.float32), jnp.float32(0.4)
    conditions = both_given()
    none = network(x, t, lacking(conditions, "label", "text"))
    every = network(x, t, conditions)
    for first, other in (("label", "text"), ("text", "label")):
        steps = [GuidanceStep(frozenset({first}), 2.0), GuidanceStep(frozenset({other}), 5.0)]
        seen = compiled(guidance.composed(network, conditions, steps, schedule))(x, t)
        middle = network(x, t, lacking(conditions, other))
        for part in ("x_0", "eps"):
            a, b, c = (getattr(p, part) for p in (none, middle, every))
            expected = a + 2 * (b - a) + 5 * (c - b)
            np.testing.assert_allclose(getattr(seen, part), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(seen.extra, every.extra, rtol=1e-6)


def test_equal_scales_are_guidance_on_all_at_once(compiled):
    schedule, x, t = StraightLine(), jnp.asarray(X, jnp.float32), jnp.float32(0.4)
    conditions = both_given()
    apart = [GuidanceStep(frozenset({name}), 3.0) for name in ("label", "text")]
    at_once = [GuidanceStep(frozenset({"label", "text"}), 3.0)]
    one, other = (
        compiled(guidance.composed(network, conditions, steps, schedule))(x, t)
        for steps in (apart, at_once)
    )
    np.testing.assert_allclose(one.x_0, other.x_0, rtol=1e-4, atol=1e-5)


def test_a_condition_in_no_step_is_in_every_branch(compiled):
    schedule, x, t = StraightLine(), jnp.asarray(X, jnp.float32), jnp.float32(0.4)
    conditions = both_given()
    steps = [GuidanceStep(frozenset({"label"}), 0.0)]
    seen = compiled(guidance.composed(network, conditions, steps, schedule))(x, t)
    expected = network(x, t, lacking(conditions, "label"))
    np.testing.assert_allclose(seen.x_0, expected.x_0, rtol=1e-5)


def test_a_negative_value_stands_where_a_condition_is_absent(compiled):
    schedule, x, t = StraightLine(), jnp.asarray(X, jnp.float32), jnp.float32(0.4)
    conditions, negative = both_given(), given(label=jnp.array([1, 1, 0]))
    steps = [GuidanceStep(frozenset({"label"}), 2.5)]
    predict = guidance.composed(network, conditions, steps, schedule, negative=negative)
    seen = compiled(predict)(x, t)
    on = network(x, t, conditions)
    off = network(x, t, {**conditions, **negative})
    np.testing.assert_allclose(seen.x_0, off.x_0 + 2.5 * (on.x_0 - off.x_0), rtol=1e-4, atol=1e-5)


def test_two_conditions_on_gaussians_have_the_score_of_a_product_of_powers(compiled, float64):
    # x_0 = a + b + noise with a, b and noise independent Gaussians: p(x), p(x | a) and p(x | a, b)
    # are Gaussians, and guidance has the score of p(x)^(1 - v) p(x | a)^(v - w) p(x | a, b)^w.
    schedule, t = StraightLine(), jnp.float64(0.5)
    spreads = {"a": 0.6, "b": 0.8, "noise": 0.3}
    values = {"a": np.array([0.5, -1.0, 0.2]), "b": np.array([-0.4, 0.3, 1.1])}

    def exact(x, t, conditions):
        mean, variance = 0.0, spreads["noise"] ** 2
        for name in ("a", "b"):
            value, present = conditions[name]
            mean = mean + jnp.where(present, value, 0)
            variance = variance + jnp.where(present, 0, spreads[name] ** 2)
        return gaussian(schedule, spread(mean, x), spread(jnp.sqrt(variance), x))(x, t)

    conditions = given(**{k: jnp.asarray(v) for k, v in values.items()})
    v, w = 1.5, 3.0
    steps = [GuidanceStep(frozenset({"a"}), v), GuidanceStep(frozenset({"b"}), w)]
    seen = compiled(guidance.composed(exact, conditions, steps, schedule))(jnp.asarray(X), t)
    alpha, sigma = scales(schedule, t)
    total = np.zeros_like(X)
    for weight, known in ((1 - v, ()), (v - w, ("a",)), (w, ("a", "b"))):
        mean = alpha * sum((values[k] for k in known), np.zeros(3))[:, None]
        square = sum(s**2 for k, s in spreads.items() if k not in known)
        total += weight * -(X - mean) / (alpha**2 * square + sigma**2)
    np.testing.assert_allclose(-seen.eps / sigma, total, rtol=1e-9)
    assert_explains(schedule, seen, X, float(t))


# --- rescale -----------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", few(EVERY[:4]), ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("amount", [0.3, 1.0])
def test_rescale_is_lins(compiled, float64, schedule, amount):
    # Section 3.4, one example at a time.
    x, t, w = X * [[1.0], [0.1], [5.0]], 0.5, 4.0
    off, on = (np.asarray(guided(schedule, v)(x, jnp.asarray(t)).x_0) for v in (0.0, 1.0))
    seen = compiled(guided(schedule, w, rescale=amount))(x, jnp.asarray(t))
    for row, a, b in zip(np.asarray(seen.x_0), on, off, strict=True):
        mixed = b + w * (a - b)
        matched = mixed * a.std() / mixed.std()
        np.testing.assert_allclose(row, amount * matched + (1 - amount) * mixed, rtol=1e-9)
    assert_explains(schedule, seen, x, t)
    if amount == 1:
        np.testing.assert_allclose(np.std(seen.x_0, 1), on.std(1), rtol=1e-9)


def test_rescale_leaves_alone_what_is_not_guided_or_is_constant(compiled, float64):
    schedule, t = StraightLine(), jnp.float64(0.5)
    seen = compiled(guided(schedule, 1.0, rescale=0.7))(X, t)
    assert_close(seen, gaussian(schedule, *LABEL)(X, t), 1e-12)
    constant = compiled(guided(schedule, 3.0, rescale=0.7))(np.zeros((2, 5)), t)
    assert_close(constant, guided(schedule, 3.0)(np.zeros((2, 5)), t), 1e-12)
    last = compiled(guided(schedule, 3.0, rescale=0.7))(X, jnp.float64(1))
    assert np.isfinite(last.x_0).all() and np.isfinite(last.eps).all()


# --- autoguidance ------------------------------------------------------------------------------


def test_autoguided_is_the_main_one_and_on_from_there(compiled, float64):
    schedule = StraightLine()
    main, guide = gaussian(schedule, *LABEL), gaussian(schedule, *NONE)
    t = jnp.float64(0.5)
    run = compiled(lambda w: guidance.autoguided(main, guide, w, schedule)(X, t))
    assert_close(run(1.0), main(X, t), 1e-10)
    seen, away = run(2.0), main(X, t)
    # Twice the distance from the guide to the main predictor, which is the midpoint.
    middle = Prediction(*((a + b) / 2 for a, b in zip(seen[:2], guide(X, t)[:2], strict=True)))
    assert_close(middle, away, 1e-10)


# --- classifier guidance -----------------------------------------------------------------------

WEIGHTS, PARTS = (0.3, 0.7), ((-1.0, 0.4), (0.6, 0.7))


def joint(schedule, x, t):
    """[B, 2]: log of weight times density of a vector x_t [B, D] for both components."""
    alpha, sigma = (spread(f(t), x) for f in (schedule.alpha, schedule.sigma))
    rows = []
    for weight, (mean, deviation) in zip(WEIGHTS, PARTS, strict=True):
        variance = alpha**2 * deviation**2 + sigma**2
        each = -0.5 * (x - alpha * mean) ** 2 / variance - 0.5 * jnp.log(variance)
        rows.append(math.log(weight) + each.sum(-1))
    return jnp.stack(rows, -1)


def mixture(schedule):
    """The exact predictor of the mixture: both components', by their responsibilities."""

    def predict(x, t):
        share = jax.nn.softmax(joint(schedule, x, t), axis=-1)
        seen = [gaussian(schedule, *part)(x, t) for part in PARTS]
        x_0, eps = (
            share[:, :1] * a + share[:, 1:] * b for a, b in list(zip(*seen, strict=True))[:2]
        )
        return Prediction(x_0, eps, extra=2 * x)

    return predict


def classifier(schedule, label=0):
    """(x_t, t) -> log p(y = label | x_t), exact."""
    return lambda x, t: jax.nn.log_softmax(joint(schedule, x, t), axis=-1)[:, label]


@SCHEDULES
def test_the_exact_classifier_is_classifier_free_guidance(float64, schedule):
    conditional, unconditional = gaussian(schedule, *PARTS[0]), mixture(schedule)
    log_prob = classifier(schedule)
    run = jax.jit(
        lambda x, t, w: guidance.classifier_guided(unconditional, log_prob, w, schedule)(x, t)
    )
    alone = jax.jit(unconditional)
    for t in jnp.asarray(TIMES):
        alpha, sigma = scales(schedule, t)
        x = alpha * np.random.default_rng(1).choice([-1, 0.6], size=(3, 1)) + sigma * X[:, :2]
        assert_close(run(x, t, 1.0), conditional(x, t), 1e-7)
        for w in (0.0, 3.0):
            line = guidance.classifier_free(conditional, alone, w, schedule)(x, t)
            seen = run(x, t, w)
            assert_close(seen, line, 1e-7)
            assert_explains(schedule, seen, x, t)
            np.testing.assert_array_equal(seen.extra, 2 * x)


def test_the_mixtures_score_is_the_slope_of_its_density(float64):
    # The premise of the test above, by finite differences of the log density in SciPy.
    schedule, t, step = StraightLine(), 0.4, 1e-5
    x = np.array([[-0.9], [0.1], [0.8]])

    def log_density(x):
        parts = zip(WEIGHTS, PARTS, strict=True)
        return np.log(
            sum(w * norm.pdf(x, 0.6 * m, np.hypot(0.6 * d, 0.4)) for w, (m, d) in parts)
        )

    slope = (log_density(x + step) - log_density(x - step)) / (2 * step)
    np.testing.assert_allclose(-mixture(schedule)(x, jnp.asarray(t)).eps / t, slope, rtol=1e-7)


def test_a_row_of_classifier_guidance_is_its_own(float64):
    schedule, times = StraightLine(), jnp.array([0.2, 0.5, 0.9])
    run = jax.jit(
        lambda x, t, w: guidance.classifier_guided(
            mixture(schedule), classifier(schedule), w, schedule
        )(x, t)
    )
    weights = jnp.array([0.5, 1.0, 4.0])
    together = run(X, times, weights)
    for i in range(3):
        alone = run(X[i : i + 1], times[i], weights[i])
        np.testing.assert_allclose(together.eps[i], alone.eps[0], rtol=1e-12)
        np.testing.assert_allclose(together.x_0[i], alone.x_0[0], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_classifier_guidance_changes_nothing_where_no_signal_is_left(compiled, float64, dtype):
    schedule = StraightLine()
    x, t = jnp.asarray(X, dtype), jnp.asarray(1, dtype)
    run = guidance.classifier_guided(mixture(schedule), classifier(schedule), 3.0, schedule)
    seen, before = compiled(run)(x, t), compiled(mixture(schedule))(x, t)
    assert seen.x_0.dtype == seen.eps.dtype == dtype
    np.testing.assert_allclose(seen.x_0, before.x_0, rtol=1e-6)
    np.testing.assert_allclose(seen.eps, before.eps, rtol=1e-6)


# --- order -------------------------------------------------------------------------------------


def test_clipping_is_around_guidance(compiled):
    schedule, t = StraightLine(), jnp.float32(0.5)
    on, off = gaussian(schedule, 0.9, 0.2), gaussian(schedule, -0.9, 0.2)
    right = clipped(guidance.classifier_free(on, off, 3.0, schedule), schedule)
    wrong = guidance.classifier_free(clipped(on, schedule), clipped(off, schedule), 3.0, schedule)
    x = jnp.asarray(X, jnp.float32)
    assert np.abs(compiled(right)(x, t).x_0).max() <= 1
    assert np.abs(compiled(wrong)(x, t).x_0).max() > 2
