"""Models of latents: equal to the inner family for a first stage that changes nothing, exact
statistics, and the moments of every family that can be a first stage."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo import build, check, config
from genzoo.core import streams
from genzoo.core.contract import Context, Likelihoods, Reconstructs, Samples, Solves, Variables
from genzoo.core.latents import Compresses, Measures
from genzoo.math import gaussian
from genzoo.samplers.predictor import Prediction
from genzoo.systems.latent import FIRST, Latent

KEY = jax.random.key(3)
GAIN, SHIFT = np.float32([3.0, -0.5]), np.float32([1.0, 20.0])
NOISE = np.float32([0.5, 2.0])


@dataclass(frozen=True)
class Affine:
    """Points or images of two channels as latents: mean gain x + shift, deviation noise |x|."""

    gain: np.ndarray
    shift: np.ndarray
    noise: np.ndarray
    latent_shape: tuple[int, ...] = (2,)

    def moments(self, variables, batch):
        gain = self.gain * variables.params["one"]
        return gain * batch["x"] + self.shift, self.noise * jnp.abs(batch["x"])

    def decode_latents(self, variables, latents):
        return (latents - self.shift) / (self.gain * variables.params["one"])


SAME = Affine(np.ones(2, np.float32), np.zeros(2, np.float32), np.zeros(2, np.float32))
FROZEN = {FIRST: {"params": {"one": jnp.float32(1)}}}


def inner(name: str):
    """A family on points in the plane."""
    raw = config.load("configs/toy_mixture.py:smoke")
    raw["family"] = dict(name=name)
    raw["conditions"] = dict(label=dict(dropout=0.1))
    raw["sample"] = dict(steps=3)
    raw["eval"] = dict(batch_size=4) | ({} if name == "vdm" else dict(tolerance=1e-2))
    return build.family(build.settled(check.check(raw)))


def variables_of(family, seed=0):
    """Variables away from their initial values."""
    batch = {"x": jnp.zeros((1, 2)), "label": jnp.zeros(1, jnp.int32)}
    fresh = family.init(KEY, batch)
    random = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: leaf + random.normal(0, 0.1, leaf.shape).astype(leaf.dtype), fresh.params
    )
    return replace(fresh, params=params, frozen=FROZEN)


def batch_of(count=5, seed=1):
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 2)).astype(np.float32)
    return {"x": jnp.asarray(x), "label": jnp.arange(count, dtype=jnp.int32) % 2}


def context(batch, variables, train=True):
    return Context(
        batch=batch, key=KEY, step=jnp.int32(1), stats=variables.stats, frozen=variables.frozen,
        train=train,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "sampled"),
    [("flow_matching", True), ("edm", False), ("score_sde", True), ("vdm", False)],
)
def test_with_a_first_stage_that_changes_nothing_it_is_the_inner_family(name, sampled):
    own = inner(name)
    family = Latent(first=SAME, inner=own, sampled=sampled)
    for protocol in (Samples, Solves, Reconstructs, Likelihoods, Measures):
        assert isinstance(family, protocol)
    variables, batch = variables_of(family), batch_of()
    alone = replace(variables, stats=variables.stats["inner"])
    keys = streams.per_example(KEY, jnp.arange(5))

    @jax.jit
    def both(variables, alone, batch, keys):
        results = []
        for model, held in ((family, variables), (own, alone)):
            given = model.losses["model"].loss(held.params, context(batch, held))
            conditions = own.gathered(context(batch, alone, train=False))
            results.append({
                "loss": given[0],
                "sample": model.sample(held, keys, conditions),
                "reconstruct": model.reconstruct(held, batch, keys),
                "likelihood": model.likelihood(held, batch, keys).total,
                "predict": model.predictor(held, conditions)(batch["x"], jnp.float32(0.4)).x_0,
            })  # fmt: skip
        return results

    ours, theirs = both(variables, alone, batch, keys)
    for key, expected in theirs.items():
        np.testing.assert_array_equal(ours[key], expected, err_msg=key)


def test_the_statistics_are_those_of_the_data_exactly():
    first = Affine(GAIN, SHIFT, NOISE, (3, 4, 2))
    random = np.random.default_rng(2)
    x = random.normal(size=(10, 3, 4, 2)).astype(np.float32)
    for sampled in (True, False):
        family = Latent(first=first, inner=inner("edm"), sampled=sampled)
        stats = {"inner": {}, "standard": {"shift": jnp.zeros(2), "scale": jnp.ones(2)}}
        held = Variables(params={}, stats=stats, frozen=FROZEN)
        parts = [family.measure(held, {"x": jnp.asarray(x[a:b])}) for a, b in ((0, 7), (7, 10))]
        whole = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
        standard = family.with_measured(stats, whole)["standard"]
        mean, deviation = GAIN * x.astype(np.float64) + SHIFT, NOISE * np.abs(x).astype(np.float64)
        variance = mean.var((0, 1, 2)) + (np.square(deviation).mean((0, 1, 2)) if sampled else 0)
        np.testing.assert_allclose(standard["shift"], mean.mean((0, 1, 2)), rtol=1e-6)
        np.testing.assert_allclose(standard["scale"], np.sqrt(variance), rtol=1e-6)
        assert standard["shift"].dtype == standard["scale"].dtype == np.float32


def test_latents_have_zero_mean_and_unit_variance_and_a_dead_channel_stays_finite():
    gain = np.float32([3.0, 0.0])
    family = Latent(first=Affine(gain, SHIFT, 0 * NOISE), inner=inner("edm"), sampled=False)
    batch, held = batch_of(400), variables_of(family)
    measured = {k: np.asarray(v) for k, v in family.measure(held, batch).items()}
    held = replace(held, stats=family.with_measured(held.stats, measured))
    z = np.asarray(family._latents(held, batch, None), np.float64)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(z.std(0), [1, 0], atol=1e-6)
    assert held.stats["standard"]["scale"][1] == 1


def test_samples_are_decoded_and_draws_have_the_moments_of_the_first_stage():
    own, first = inner("flow_matching"), Affine(GAIN, SHIFT, NOISE)
    family = Latent(first=first, inner=own, sampled=True)
    held = variables_of(family)
    standard = {"shift": jnp.float32([4.0, -2.0]), "scale": jnp.float32([2.0, 5.0])}
    held = replace(held, stats={"inner": {}, "standard": standard})
    keys, batch = streams.per_example(KEY, jnp.arange(5)), batch_of()
    conditions = own.gathered(context(batch, held, train=False))
    solved = family.solve(held, keys, conditions, trajectory=True)
    z = own.solve(replace(held, stats={}), keys, conditions, trajectory=True)
    decoded = (np.asarray(z.x) * [2, 5] + [4, -2] - SHIFT) / GAIN
    np.testing.assert_allclose(solved.x, decoded, rtol=1e-5)
    np.testing.assert_array_equal(solved.states, z.states)
    # Many draws of the latents of one example.
    many = {"x": jnp.tile(batch["x"][:1], (20_000, 1))}
    drawn = family._latents(held, many, lambda shape: jax.random.normal(KEY, shape))
    x = np.asarray(batch["x"][0], np.float64)
    mean, deviation = (GAIN * x + SHIFT - [4, -2]) / [2, 5], NOISE * np.abs(x) / [2, 5]
    np.testing.assert_allclose(drawn.mean(0), mean, atol=4 * deviation.max() / np.sqrt(20_000))
    np.testing.assert_allclose(drawn.std(0), deviation, rtol=0.03)


def test_encoded_data_are_the_moments_themselves():
    family = Latent(first=Affine(GAIN, SHIFT, NOISE), inner=inner("edm"), sampled=True)
    held, batch = variables_of(family), batch_of()
    moments = jnp.stack(family.first.moments(Variables(**FROZEN[FIRST]), batch), 1)
    encoded = replace(family, encoded=True)
    nowhere = replace(held, frozen={})
    one = family.losses["model"].loss(held.params, context(batch, held))[0]
    other = encoded.losses["model"].loss(
        held.params, context({**batch, "x": moments}, nowhere)
    )[0]
    np.testing.assert_array_equal(one, other)


def test_a_guide_works_in_the_same_space():
    own = inner("flow_matching")
    family = Latent(first=SAME, inner=own, sampled=True)
    held, weaker = variables_of(family), variables_of(family, seed=9)
    frozen = {**FROZEN, "guide": weaker.tree}
    held, batch = replace(held, frozen=frozen), batch_of()
    conditions = own.gathered(context(batch, held, train=False))
    guided = replace(family, guide=family).predictor(held, conditions, 3.0)
    inside = replace(held, stats={})
    expected = replace(own, guide=own).predictor(inside, conditions, 3.0)
    x, t = batch["x"], jnp.float32(0.5)
    np.testing.assert_array_equal(guided(x, t).x_0, expected(x, t).x_0)


def test_the_decoder_of_a_ddpm_on_real_numbers_is_a_gaussian():
    resolved = build.settled(check.check(config.load("configs/ddpm_fashion_cond.py:smoke")))
    family = replace(build.family(resolved), levels=False)
    random = np.random.default_rng(0)
    x_0, x_t, mean = random.normal(size=(3, 2, 28, 28, 1)).astype(np.float32) * 3
    t = jnp.full(2, 1 / family.schedule.steps)
    predicted = Prediction(jnp.asarray(mean), jnp.zeros_like(mean))
    nats = family.bound_term(jnp.asarray(x_0), jnp.asarray(x_t), t, predicted)
    log_variance = family.variance.log_variance(family.schedule, t, 0 * t, None)
    exact = -gaussian.log_density(x_0, mean, np.asarray(log_variance)[:, None, None, None])
    np.testing.assert_allclose(nats, exact.reshape(2, -1).sum(1), rtol=1e-5)


# --- first stages ---------------------------------------------------------------------------------

CONV = dict(name="conv", width=8, block_width=4, blocks=1, downsamples=2, activation="silu")
FIRST_STAGES = {
    "vae": ("vae_fashion", dict(network=CONV, family=dict(latents=(3,))), (7, 7, 3)),
    "flat_vae": ("vae_fashion", {}, (2,)),
    "vae_of_two_layers": (
        "vae_fashion", dict(network=CONV, family=dict(latents=(3, 2))), (7, 7, 3)
    ),
    "binary": (
        "vae_fashion", dict(network=CONV, family=dict(latents=(3,), decoder="bernoulli")),
        (7, 7, 3),
    ),
    "autoencoder": ("ae_fashion", dict(network=CONV, family=dict(latent=3)), (7, 7, 3)),
    "vqvae": ("vqvae_fashion", {}, (7, 7, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", FIRST_STAGES)
def test_every_first_stage_decodes_its_own_moments(name):
    path, changes, shape = FIRST_STAGES[name]
    raw = config.load(f"configs/{path}.py:smoke")
    for section, values in changes.items():
        raw[section] = {**({} if "name" in values else raw[section]), **values}
    family = build.family(build.settled(check.check(raw)))
    assert isinstance(family, Compresses) and family.latent_shape == shape
    random = np.random.default_rng(4)
    x = random.choice([-1.0, 1.0], size=(2, 28, 28, 1)).astype(np.float32)
    batch, keys = {"x": jnp.asarray(x)}, streams.per_example(KEY, jnp.arange(2))

    @jax.jit
    def both(batch):
        held = family.init(KEY, batch)
        mean, deviation = family.moments(held, batch)
        flat = family.encode(held, batch, keys)
        decoded = family.decode_latents(held, mean), family.reconstruct(held, batch, keys)
        return mean, deviation, flat, decoded

    mean, deviation, flat, (decoded, expected) = both(batch)
    assert mean.shape == deviation.shape == (2, *shape)
    np.testing.assert_allclose(mean.reshape(2, -1), flat, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(decoded, expected, rtol=1e-4, atol=1e-5)
    if ("vae" in name and name != "vqvae") or name == "binary":
        assert (deviation > 0).all() and np.unique(deviation).size > deviation.size / 2
    else:
        assert (deviation == 0).all()


def test_the_latents_of_several_levels_are_one_vector():
    family = build.family(build.settled(check.check(config.load("configs/vqvae2_cifar.py:smoke"))))
    grids = [np.prod(grid) for grid in family.network.grids]
    assert family.latent_shape == (sum(grids) * family.network.latent,)
