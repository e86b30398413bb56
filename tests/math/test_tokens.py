"""Next-token cross-entropy and truncated distributions against their definitions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.math.tokens import Truncation, next_token_nats


def softmax(logits):
    weights = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return weights / weights.sum()


def by_definition(logits, temperature, top_k, top_p):
    """The truncated logits of one row, token by token."""
    size = len(logits)
    # Most likely first, the lower token first where equal.
    ranked = sorted(range(size), key=lambda token: (-logits[token], token))
    scaled = np.asarray(logits, np.float64) / (temperature or 1.0)
    if temperature == 0:
        kept = ranked[:1]
    else:
        candidates = ranked[: top_k or size]
        shares = softmax(scaled[candidates])
        kept, mass = [], 0.0
        for token, share in zip(candidates, shares, strict=True):
            kept.append(token)
            mass += share
            if mass >= top_p:
                break
    out = np.full(size, -np.inf)
    out[kept] = scaled[kept]
    return out


def test_next_token_nats_is_minus_the_log_probability(compiled, float64):
    rng = np.random.default_rng(0)
    logits, tokens = 5 * rng.normal(size=(3, 4, 7)), rng.integers(0, 7, (3, 4))
    expected = [
        [-np.log(softmax(logits[b, i])[tokens[b, i]]) for i in range(4)] for b in range(3)
    ]
    np.testing.assert_allclose(compiled(next_token_nats)(logits, tokens), expected, rtol=1e-11)


def test_next_token_nats_works_in_float32(compiled):
    # 4,096 equal tokens of which bfloat16 cannot even count the sum: log 4096.
    logits, tokens = jnp.full((1, 2, 4096), 100, jnp.bfloat16), jnp.array([[0, 4095]])
    out = compiled(next_token_nats)(logits, tokens)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, np.log(4096), rtol=2e-6)
    far = jnp.array([[[0.0, 1e4, -1e4]]])
    np.testing.assert_allclose(compiled(next_token_nats)(far, jnp.array([[2]])), [[2e4]])


SETTINGS = [
    (1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 3, 1.0), (1.0, 100, 1.0), (1.0, 0, 0.6), (0.7, 0, 0.95),
    (1.3, 5, 0.8), (1.0, 1, 0.9), (1.0, 0, 1e-6), (0.0, 0, 1.0), (0.0, 4, 0.5),
]  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS)
def test_truncation_is_its_definition(compiled, float64, setting):
    temperature, top_k, top_p = setting
    logits = np.random.default_rng(1).normal(size=(4, 5, 11))
    logits[0, 0, [2, 7]] = logits[0, 0].max()  # ties, also at the top
    logits[1] = np.round(logits[1])
    logits[2, 0] = 0.0
    rows = logits.reshape(-1, 11)
    expected = np.reshape([by_definition(row, *setting) for row in rows], logits.shape)
    out = compiled(Truncation(temperature=temperature, top_k=top_k, top_p=top_p))(logits)
    np.testing.assert_allclose(out, expected, rtol=1e-14)


@pytest.mark.parametrize("top_k", [1, 2, 3, 5])
def test_top_k_keeps_exactly_k_of_equals(compiled, top_k):
    # -0 and 0 are equal, and which of them comes first says nothing.
    rows = jnp.array([[0.0, -0.0, 0.0, -0.0, 0.0], [-0.0, 0.0, -0.0, 0.0, 1.0], [2.0] * 5])
    kept = jnp.isfinite(compiled(Truncation(top_k=top_k))(rows))
    np.testing.assert_array_equal(kept.sum(-1), top_k)
    np.testing.assert_array_equal(kept[0], np.arange(5) < top_k)
    np.testing.assert_array_equal(kept[1, :4], np.arange(4) < top_k - 1)


@pytest.mark.parametrize(
    "top_p, kept", [(0.5, [0]), (0.5001, [0, 1]), (0.75, [0, 1]), (0.76, [0, 1, 2]), (1e-9, [0])]
)
def test_top_p_stops_where_the_mass_reaches_p(compiled, top_p, kept):
    # Shares of exactly 1/2, 1/4, 1/8, 1/8.
    logits = jnp.log(jnp.array([0.5, 0.25, 0.125, 0.125]))
    out = compiled(Truncation(top_p=top_p))(logits)
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(out)), kept)


def test_tokens_ruled_out_before_stay_out(compiled):
    logits = jnp.array([-jnp.inf, 1.0, -jnp.inf, 0.0])
    for truncation in (Truncation(), Truncation(top_k=3), Truncation(top_p=0.999)):
        np.testing.assert_array_equal(compiled(truncation)(logits), logits)


def test_values_out_of_range_are_refused():
    for wrong in ({"temperature": -0.1}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Truncation(**wrong)


def test_draws_from_truncated_logits_have_the_renormalised_shares():
    logits = jnp.array([0.2, 1.0, -0.5, 0.9, -2.0])
    drawn = jax.random.categorical(jax.random.key(0), Truncation(top_k=3)(logits), shape=(30_000,))
    shares = np.bincount(drawn, minlength=5) / len(drawn)
    exact = np.zeros(5)
    exact[[0, 1, 3]] = softmax([0.2, 1.0, 0.9])
    assert np.all(np.abs(shares - exact) <= 4 * np.sqrt(exact * (1 - exact) / len(drawn)))
