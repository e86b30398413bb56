"""Scores are exact under padding, pictures show what they should, and costs are consistent."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from train.toy import Line

from genzoo.core import streams
from genzoo.core.contract import Likelihood, Variables, capabilities
from genzoo.evaluate import pictures
from genzoo.evaluate.score import score, score_batch
from genzoo.runtime import cost
from genzoo.runtime.compilation import compile_program, flops, run_once


class Guess(Line):
    """A family with a known likelihood: x squared nats, half of it in each term."""

    def likelihood(self, variables, batch, keys):
        del variables
        total = jnp.square(batch["x"][:, 0, 0, 0]) + 0 * streams.uniform(keys)
        values = jnp.stack([total / 4, 3 * total / 4], axis=1)
        return Likelihood(
            total=total,
            terms={"a": total / 2, "b": total / 2},
            curve=(jnp.asarray([0.25, 0.75]), values),
        )


def padded(values, size):
    for start in range(0, len(values), size):
        index = np.minimum(np.arange(start, start + size), len(values) - 1)
        yield {
            "x": jnp.asarray(values[index], jnp.float32).reshape(-1, 1, 1, 1),
            "index": jnp.asarray(index),
            "mask": jnp.asarray(np.arange(start, start + size) < len(values), jnp.float32),
        }


@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_scores_are_exact_whatever_the_batch(size):
    values = np.linspace(-1, 2, 7)
    family = Guess()
    variables = Variables(
        params={"w": jnp.float32(1), "b": jnp.float32(0)}, stats={"seen": jnp.int32(0)}
    )
    report, _ = score(
        lambda batch: score_batch(family, variables, batch, streams.root(0), jnp.int32(0)),
        padded(values, size),
        dimensions=2,
        family=family,
    )
    loss = (values - (3 * values - 1)) ** 2
    assert report["examples"] == 7
    assert report["loss"]["loss"] == pytest.approx(loss.mean(), rel=1e-6)
    assert report["loss"]["positive"] == pytest.approx(loss[values > 0].mean(), rel=1e-6)
    nats, to_bits = values**2, 1 / (2 * np.log(2))
    assert report["nats"] == pytest.approx(nats.mean(), rel=1e-6)
    assert report["bits_per_dim"] == pytest.approx(nats.mean() * to_bits, rel=1e-6)
    error = nats.std(ddof=1) / np.sqrt(7) * to_bits
    assert report["bits_per_dim_standard_error"] == pytest.approx(error, rel=1e-5)
    assert report["bits_per_dim_terms"]["a"] == pytest.approx(nats.mean() * to_bits / 2, rel=1e-6)
    curve = np.asarray(report["bits_per_dim_curve"]["value"])
    np.testing.assert_allclose(curve, nats.mean() * to_bits * np.array([0.25, 0.75]), rtol=1e-6)
    json.dumps(report)


def test_a_family_without_likelihood_has_its_loss_scored():
    variables = Variables(
        params={"w": jnp.float32(3), "b": jnp.float32(-1)}, stats={"seen": jnp.int32(0)}
    )
    report, warnings = score(
        lambda batch: score_batch(Line(), variables, batch, streams.root(0), jnp.int32(0)),
        padded(np.arange(5.0), 2),
        dimensions=1,
        family=Line(),
    )
    assert not warnings
    assert report["loss"]["loss"] == 0 and "bits_per_dim" not in report
    assert capabilities(Line()) == () and capabilities(Guess()) == ("likelihood",)


def test_a_grid_holds_every_image_at_its_place():
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1) * np.ones((1, 4, 3, 1), np.uint8)
    page = pictures.grid(images, columns=2)
    assert page.shape == (3 * 5 + 1, 2 * 4 + 1, 1)
    for i in range(5):
        top, left = 1 + (i // 2) * 5, 1 + (i % 2) * 4
        assert (page[top : top + 4, left : left + 3] == i).all()
    assert (page[11:, 5:8] == 255).all() and (page[0] == 255).all()
    assert pictures.grid(images, columns=2, shown_width=30).shape[1] == 36


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_lossless(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, channels), np.uint8)
    pictures.save_each(tmp_path, images, first=7)
    for i in range(3):
        found = np.asarray(Image.open(tmp_path / f"{7 + i:06d}.png"))
        np.testing.assert_array_equal(found.reshape(8, 8, channels), images[i])


def test_flops_of_a_matrix_product():
    a, b = jnp.zeros((64, 128)), jnp.zeros((128, 32))
    assert flops(jnp.matmul, a, b) == 2 * 64 * 128 * 32


def test_a_program_is_called_and_timed():
    program = compile_program(jax.jit(lambda x: x * 2).lower(jnp.arange(4.0)))
    np.testing.assert_array_equal(program(jnp.arange(4.0)), [0, 2, 4, 6])
    with pytest.raises(TypeError):
        program(jnp.arange(5.0))  # no retrace
    seconds = cost.time_calls(lambda: time.sleep(0.002), least_seconds=0.01)
    found = cost.summary(program, seconds, examples=8, parts=2, flops=100.0)
    median = found["step_seconds"]["median"]
    assert median == pytest.approx(np.median(seconds) / 2)
    assert found["examples_per_second"] == pytest.approx(8 / (2 * median))
    assert found["flops_per_second"] == pytest.approx(100 / median)
    assert found["peak_memory_bytes"] > 2**20
    assert run_once(lambda: jnp.float32(3)) == 3
