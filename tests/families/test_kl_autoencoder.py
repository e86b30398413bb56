"""The KL autoencoder against a linear one by hand: the loss, when the critic joins, its weight."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families.toy_critic import (
    AFTER,
    CRITIC,
    CRITIC_PARAMS,
    DECODER_PARAMS,
    SHAPE,
    WEIGHT,
    A,
    B,
    C,
    context,
    decode,
    images,
    net,
)

from genzoo.core.contract import Decodes, Encodes, Reconstructs, Reports, capabilities
from genzoo.families.adversarial_training import Comparison
from genzoo.families.kl_autoencoder import KLAutoencoder
from genzoo.nets.autoencoder.pair import Pair

VALUES, S, KL_WEIGHT = 4, -0.3, 0.01


def moments(params, x):
    """Mean a x, and the log variance 0 of what `diagonal` bounds."""
    return jnp.concatenate([params["a"] * x, jnp.zeros_like(x)], -1)


PARAMS = {
    "encoder": {"a": jnp.float32(A)},
    "decoder": DECODER_PARAMS,
    "log_scale": jnp.float32(S),
    "critic": CRITIC_PARAMS,
}


def family(adversary=CRITIC, perceptual=None, weight=1.0) -> KLAutoencoder:
    return KLAutoencoder(
        pair=Pair(encoder=net(moments), decoder=net(decode), grid=SHAPE[:2]), latent=1,
        comparison=Comparison(perceptual=perceptual, weight=weight), kl_weight=KL_WEIGHT,
        adversary=adversary, sampled=False,
    )  # fmt: skip


def distance(x, y):
    return jnp.square(x - y).sum((1, 2, 3))


def by_hand(x, perceptual=0.0):
    """(likelihood, kl, -D(y)) of each example in float64, and the adaptive weight."""
    x = x.astype(np.float64)
    y = B * A * x
    r = np.abs(x - y).mean((1, 2, 3)) + perceptual * np.square(x - y).sum((1, 2, 3))
    likelihood = VALUES * (r * np.exp(-S) + S)
    kl = 0.5 * np.square(A * x).sum((1, 2, 3))
    adversarial = -C * np.square(y).mean((1, 2, 3))
    # Slopes of the means by b, where y = b a x.
    of_error = (np.sign(y - x) * A * x).mean((1, 2, 3))
    of_error = of_error + perceptual * (2 * (y - x) * A * x).sum((1, 2, 3))
    of_score = (-2 * C * y * A * x).mean((1, 2, 3))
    weight = np.abs(VALUES * np.exp(-S) * of_error.mean()) / (np.abs(of_score.mean()) + 1e-4)
    return likelihood, kl, adversarial, min(weight, 1e4)


@pytest.mark.parametrize("perceptual", [0.0, 0.5])
def test_the_loss_by_hand(perceptual):
    x = images()
    likelihood, kl, adversarial, weight = by_hand(x, perceptual)
    own = dict(perceptual=distance, weight=perceptual) if perceptual else {}
    losses, aux = jax.jit(family(**own).loss)(PARAMS, context(x))
    expected = likelihood + KL_WEIGHT * kl + WEIGHT * weight * adversarial
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["adversarial"], adversarial, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["adversarial_weight"], WEIGHT * weight, rtol=1e-5)
    assert ("perceptual" in aux.metrics) == bool(perceptual)
    alone, _ = family(adversary=None, **own).loss(PARAMS, context(x))
    np.testing.assert_allclose(alone, likelihood + KL_WEIGHT * kl, rtol=1e-5)


def test_one_step_gates_the_critic_and_its_say():
    x, model = images(), family()
    player = model.losses["critic"]
    alone = family(adversary=None)

    def gradient(model, step):
        return jax.grad(lambda params: model.loss(params, context(x, step))[0].mean())(PARAMS)

    def loss(model, step):
        return model.loss(PARAMS, context(x, step))[0]

    for step in (0, AFTER - 1):
        assert not player.moves_at(jnp.int32(step))
        np.testing.assert_array_equal(loss(model, step), loss(alone, step))
        for one, other in zip(
            jax.tree.leaves(gradient(model, step)), jax.tree.leaves(gradient(alone, step)),
            strict=True,
        ):  # fmt: skip
            np.testing.assert_array_equal(one, other)
    for step in (AFTER, AFTER + 5):
        assert player.moves_at(jnp.int32(step))
        assert np.abs(loss(model, step) - loss(alone, step)).min() > 1e-3


def test_the_weight_carries_no_gradient_and_balances_the_last_layer():
    x, model = images(), family()

    def slope(model):
        loss = lambda params: model.loss(params, context(x))[0].mean()  # noqa: E731
        return jax.grad(loss)(PARAMS)["decoder"]["out"]["conv"]["kernel"]

    alone = slope(family(adversary=None))
    added = slope(model) - alone
    # |w d g_D| = w |g|, up to the 1e-4 in the denominator of d.
    np.testing.assert_allclose(np.abs(added), WEIGHT * np.abs(alone), rtol=1e-3)


def test_every_player_trains_its_own_params():
    x, model = images(), family()
    owned = {
        name: {path for path in ("encoder/a", "decoder/out/conv/kernel", "log_scale", "critic/c")
               if player.owns(path)}
        for name, player in model.losses.items()
    }  # fmt: skip
    assert owned == {
        "autoencoder": {"encoder/a", "decoder/out/conv/kernel", "log_scale"},
        "critic": {"critic/c"},
    }
    assert list(model.losses) == ["autoencoder", "critic"]
    critic = model.losses["critic"].loss
    losses, aux = critic(PARAMS, context(x))
    y = A * B * x.astype(np.float64)
    hinge = (np.maximum(0, 1 - C * x**2) + np.maximum(0, 1 + C * y**2)) / 2
    np.testing.assert_allclose(losses, hinge.mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["score_made"], (C * y**2).mean((1, 2, 3)), rtol=1e-5)
    slopes = jax.grad(lambda params: critic(params, context(x))[0].mean())(PARAMS)
    assert slopes.pop("critic")["c"] != 0
    assert all(leaf == 0 for leaf in jax.tree.leaves(slopes))


def test_padding_changes_neither_the_loss_nor_the_weight():
    x, model = images(), family()
    alone = model.loss(PARAMS, context(x))[0]
    for filling in (7.0, np.nan):
        padded = np.concatenate([x, np.full_like(x[:2], filling)])
        mask = jnp.asarray([1.0, 1, 1, 0, 0])
        losses = model.loss(PARAMS, context(padded, mask=mask))[0]
        np.testing.assert_allclose(losses[:3], alone, rtol=1e-6)


def test_the_latents_are_drawn_from_the_posterior_in_the_loss_alone():
    x, model = images(400), replace(family(adversary=None), sampled=True)
    measured = model.loss(PARAMS, context(x))[1].metrics
    spread = measured["latent_square"].mean() - np.square(A * x).mean()
    np.testing.assert_allclose(spread, 1.0, atol=0.1)  # the variance of q
    values = model.report(
        {f"{k}_autoencoder": np.asarray(v.mean(0)) for k, v in measured.items()}
    ).values
    np.testing.assert_allclose(values["scale"], np.exp(S), rtol=1e-5)
    square, mean = measured["latent_square"].mean(), measured["latent_mean"].mean()
    np.testing.assert_allclose(values["latent_std"], np.sqrt(square - mean**2), rtol=1e-5)


def test_capabilities():
    model = family()
    for capability in (Reconstructs, Encodes, Decodes, Reports):
        assert isinstance(model, capability)
    assert "sample" not in capabilities(model)
