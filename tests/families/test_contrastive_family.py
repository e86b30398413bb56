"""Contrastive encoders: the start of training, and steps that devices do not change."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo import build, check, config
from genzoo.core.contract import Context, Retrieves
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment, variables_of
from genzoo.families.contrastive import info_nce, pairwise_sigmoid
from genzoo.math import contrastive
from genzoo.math.contrastive import SIGMOID_START_BIAS, START_SCALE


@cache
def experiment(name: str, **changes: str) -> Experiment:
    overrides = {k.replace("__", "."): v for k, v in changes.items()}
    raw = config.override(config.load(f"configs/{name}.py:smoke"), overrides)
    return Experiment(build.settled(check.check(raw)))


def records(made: Experiment, count: int) -> dict:
    random = np.random.default_rng(0)
    return made.prepared({k: f.made_up(random, count) for k, f in made.spec.fields.items()})


def test_equal_texts_give_chance():
    made = experiment("clip_shapes")
    params = made.initial_variables().params
    assert float(params["objective"]["log_scale"]) == pytest.approx(START_SCALE)
    batch = records(made, 8)
    batch["text"] = jnp.broadcast_to(batch["text"][:1], batch["text"].shape)
    batch["x"] = jnp.broadcast_to(batch["x"][:1], batch["x"].shape)
    context = Context(batch=batch, key=jax.random.key(0), step=jnp.int32(0), stats={})
    losses, _ = made.family.losses["model"].loss(params, context)
    np.testing.assert_allclose(losses, np.full(8, np.log(8)), rtol=1e-5)


def test_siglip_has_a_bias_and_clip_none():
    made = experiment("clip_shapes", family__objective="sigmoid")
    start = made.initial_variables().params["objective"]
    assert {k: float(v) for k, v in start.items()} == {
        "log_scale": pytest.approx(np.log(10)), "bias": SIGMOID_START_BIAS
    }  # fmt: skip
    assert set(experiment("clip_shapes").initial_variables().params["objective"]) == {"log_scale"}


def test_the_scale_of_clip_is_bounded_and_that_of_siglip_is_not():
    rng = np.random.default_rng(0)
    a, b = (contrastive.unit(jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)) for _ in "ab")
    for scale in (60.0, 150.0):
        params = {"log_scale": jnp.log(scale), "bias": jnp.float32(-12.0)}
        clip = contrastive.info_nce(a, b, min(scale, 100.0))
        np.testing.assert_allclose(info_nce(a, b, params, None), clip, rtol=1e-4)
        siglip = contrastive.pairwise_sigmoid(a, b, scale, -12.0)
        np.testing.assert_allclose(pairwise_sigmoid(a, b, params, None), siglip, rtol=1e-4)


def test_each_field_is_embedded_without_the_other():
    made = experiment("clip_shapes")
    assert isinstance(made.family, Retrieves)
    assert not isinstance(experiment("simclr_fashion").family, Retrieves)
    batch, variables = records(made, 3), variables_of(made.new_state(), "raw")
    for name in ("x", "text"):
        embedded = made.family.embed(variables, {name: batch[name]}, name)
        np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-5)


def test_a_network_that_does_not_fit_the_objective_is_refused():
    with pytest.raises(UserError, match="trains the network 'clip', not 'classifier'"):
        experiment("simclr_fashion", family__objective="info_nce")
    with pytest.raises(UserError, match=r"family.temperature = 0.1 has no effect"):
        experiment("clip_shapes", family__temperature="0.1")
    with pytest.raises(UserError, match=r"but (the data|fashion_mini) has no (texts|captions)"):
        experiment("clip_shapes", data__name="fashion_mini", data__size="0", network__patch="7")


DEVICES = """
import json, jax, numpy as np
from genzoo import build, check, config
from genzoo.experiment import Experiment

SMALL = {"train.batch_size": "8", "train.steps_per_call": "1", "optimizer.warmup": "0"}
VIT = {"network": {"name": "vit", "width": 8, "depth": 1, "heads": 2, "patch": 7}}
found = []
for name, network in (("clip_shapes", {}), ("simclr_fashion", VIT)):
    raw = config.override(config.load(f"configs/{name}.py:smoke") | network, SMALL)
    for count in (1, 2, 4):
        devices = tuple(jax.devices()[:count])
        made = Experiment(build.settled(check.check(raw, count)), devices=devices)
        random, place = np.random.default_rng(0), made.placement
        records = {k: f.made_up(random, 8) for k, f in made.spec.fields.items()}
        data = place.put_everywhere(made.flat(records))
        rows = place.put_batch({"rows": np.arange(8, dtype=np.int32)[None]}, leading=1)
        state = made.new_state()
        state, sums = made.training(state, data, rows).compile()(state, data, rows)
        params = jax.tree.leaves(jax.device_get(state.params))
        norm = sum(float(np.square(x).sum()) for x in params)
        found.append([float(sums["loss"][0]), float(sums["gradient_norm"][0]), norm])
print(json.dumps(found))
"""


@pytest.mark.slow  # six programs for one, two and four devices: 40 s
def test_one_two_and_four_devices_take_the_same_step():
    done = subprocess.run(
        [sys.executable, "-c", DEVICES],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=500,
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
             "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu",
             "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for one, two, four in (found[:3], found[3:]):
        np.testing.assert_allclose(two, one, rtol=2e-5)
        np.testing.assert_allclose(four, one, rtol=2e-5)
