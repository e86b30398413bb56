"""The default precision of float32 products on this device, and its effect on a training step.

    python tests/peers/device_precision.py

Compares one step of a small U-Net on the GPU, with products in full float32 ("highest"), with the
platform's default (TensorFloat-32 on recent NVIDIA GPUs) and in bfloat16, with the same step on the
CPU in full float32. Adam's moments after one step are the gradient and its square, so the figure is
|a - b| / |b| over all of them.
"""

import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from device_report import DRY, Report

from genzoo import check, config
from genzoo.experiment import Experiment

# The relative error of a product of 1,024 terms is about 1e-7 in float32, 3e-4 in TensorFloat-32
# (10 bits) and 3e-3 in bfloat16 (7 bits). Bounds on the step's error are about ten times as large.
LIMITS = {"float32": 1e-5, "tf32": 1.5e-3, "bfloat16": 1e-2}
BOUNDS = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 1e-1}
NETWORK = {"width": "64", "multipliers": "(1, 2)", "blocks": "1", "attention": "(16,)"}
TINY = {
    "width": "8", "multipliers": "(1,)", "blocks": "1", "attention": "(8,)", "norm_groups": "4",
    "patch": "4",
}  # fmt: skip


def relative(approximate: np.ndarray, exact: np.ndarray) -> float:
    """|approximate - exact| / |exact|."""
    return float(np.linalg.norm(approximate - exact) / np.linalg.norm(exact))


def products() -> dict:
    """Of a matrix product and a convolution in float32, by the default: the relative error, and
    which format it speaks for."""
    random = np.random.default_rng(0)
    side, channels = (64, 8) if DRY else (1024, 64)
    a, b = random.normal(size=(2, side, side))
    x, kernel = random.normal(size=(4, 32, 32, channels)), random.normal(size=(3, 3, channels, 64))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    exact = {
        "matmul": a @ b,
        "convolution": np.einsum("bijcuv,uvco->bijo", windows, kernel, optimize=True),
    }
    f32 = [jnp.asarray(value, jnp.float32) for value in (a, b, x, kernel)]
    layout = ("NHWC", "HWIO", "NHWC")
    ours = {
        "matmul": jax.jit(jnp.matmul)(*f32[:2]),
        "convolution": jax.jit(
            lambda x, k: jax.lax.conv_general_dilated(
                x, k, (1, 1), "VALID", dimension_numbers=layout
            )
        )(*f32[2:]),
    }
    errors = {name: relative(np.asarray(ours[name], np.float64), exact[name]) for name in exact}
    return {
        name: {"error": error, "format": next((k for k, v in LIMITS.items() if error < v), "none")}
        for name, error in errors.items()
    }


def experiment_of(device: jax.Device, dtype: str) -> Experiment:
    """The step's experiment on a device."""
    network = {f"network.{k}": v for k, v in (TINY if DRY else NETWORK).items()}
    changes = {
        **network, "network.dropout": "0.0", "network.dtype": dtype, "data.flip": "False",
        "train.batch_size": "4" if DRY else "32",
    }  # fmt: skip
    raw = config.override(config.load("configs/ddpm_cifar.py"), changes)
    return Experiment(check.check(raw, devices=1), devices=(device,))


def start(experiment: Experiment) -> tuple:
    """(a state, a batch). The params are not those of step 0, at which the network's last layer is
    zero, and with it the gradient of all others."""
    random = np.random.default_rng(0)

    def normal(leaf):
        return (0.1 * random.normal(size=leaf.shape)).astype(leaf.dtype)

    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), experiment.abstract_state)
    state = replace(zeros, params=jax.tree.map(normal, zeros.params))
    size = experiment.config.train.batch_size
    fields = experiment.spec.fields
    return state, {name: field.made_up(random, size) for name, field in fields.items()}


def moments(device: jax.Device, dtype: str, precision: str | None) -> tuple[float, np.ndarray]:
    """(loss, Adam's moments after one step) on a device."""
    experiment = experiment_of(device, dtype)
    state, batch = jax.device_put(start(experiment), device)
    with jax.default_device(device), jax.default_matmul_precision(precision):
        after, measured = jax.jit(experiment.updater(1).update)(state, batch)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(after.opt_state)]
    floats = [leaf.ravel() for leaf in leaves if leaf.dtype == np.float32 and leaf.ndim]
    total, count = measured["loss"]
    return float(total / count), np.concatenate(floats)


def main() -> int:
    """The part `precision`."""
    report = Report("precision")
    report.start()
    default = products()
    report.put("float32 products by default", value=default)
    card = jax.devices()[0]
    coarsest = max((product["format"] for product in default.values()), key=list(LIMITS).index)
    loss, exact = moments(jax.devices("cpu")[0], "float32", "highest")
    report.put("loss on the CPU", value=loss)
    wrong, steps = [], [("bfloat16", "bfloat16", None, "bfloat16")]
    if not DRY:  # a CPU is exact in any case, and every step is a program to compile
        steps += [
            ("float32, highest", "float32", "highest", "float32"),
            ("float32, default", "float32", None, coarsest),
        ]
    for name, dtype, precision, expected in steps:
        loss, ours = moments(card, dtype, precision)
        error, bound = relative(ours, exact), BOUNDS[expected]
        report.put(
            "training step", name, value={"loss": loss, "error": error, "bound": bound}
        )
        if not error <= bound:
            wrong.append(name)
    report.put("beyond its bound", value=wrong)
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
