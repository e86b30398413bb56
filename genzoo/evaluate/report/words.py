"""The words of a report: names of metrics, captions of pictures, values for reading."""

import datetime
import math
from collections.abc import Mapping

from genzoo.evaluate.report.charts import MINUS, NOTHING, brief
from genzoo.evaluate.report.folder import number

METRICS: Mapping[str, str] = {
    "loss": "Loss",
    "gradient_norm": "Gradient norm",
    "learning_rate": "Learning rate",
    "examples_per_second": "Throughput, examples/s",
    "kl": "KL divergence",
    "kl_per_unit": "KL divergence by unit",
    "accuracy": "Accuracy",
    "reconstruction": "Reconstruction",
    "nats": f"{MINUS}log p, nats",
    "nats_standard_error": "standard error",
    "bits_per_dim": "Bits per dimension",
    "bits_per_dim_standard_error": "standard error",
    "fd_fashion": "FD-fashion",
    "fid": "FID",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "mean_squared_error": "Mean squared error",
    "perplexity": "Perplexity",
    "n": "examples",
    "nats_terms": f"{MINUS}log p by term, nats",
    "bits_per_dim_terms": "Bits per dimension by term",
    "bits_per_dim_curve": "Bits per dimension",
    "nats_exact": f"{MINUS}log p of the true density, nats",
}
"""Metric -> its name for reading, with its unit."""

PICTURES: Mapping[str, tuple[str, str]] = {
    "grid": ("Samples", ""),
    "reconstruction": (
        "Reconstructions",
        "Test images beside their reconstructions. What is lost is what the code does not hold.",
    ),
    "denoising": (
        "Denoising",
        "From noise to data: the state x_t, and below it the data that the model predicts from it. "
        "The prediction settles the large shapes first and the detail last.",
    ),
    "guidance": (
        "Guidance",
        "One column per class, each from one noise, at growing guidance scales. Guidance buys "
        "typicality with variety.",
    ),
    "solvers": (
        "Solvers",
        "Every solver from the same noise at growing numbers of steps, with its distance to the "
        "end of the exact flow. Stochastic solvers end elsewhere by design.",
    ),
    "inpainting": ("Inpainting", "Test images without their centre, and completions of them."),
    "colourisation": ("Colourisation", "Test images without colour, and colourisations of them."),
    "restoration": (
        "Restoration",
        "The conditions made from test images, and samples that restore the images. Where the "
        "samples differ, the condition leaves the answer open.",
    ),
    "field": (
        "Velocity field",
        "The velocity of the flow at several times, over the noisy points that it moves.",
    ),
    "trajectories": ("Paths", "The paths that solvers take from the same noise to the data."),
    "density": ("Density", "The exact log density, that of the model, and their difference."),
    "traversals": (
        "Traversals",
        "Decoded images while one unit of the code moves and the others stay.",
    ),
    "latent_plane": ("The plane of codes", "Codes of test images, and decoded codes on a grid."),
    "codebook": ("Codebook", "How often each code is used, and what single codes decode to."),
    "interpolation": ("Interpolation", "Decoded points on the way between two test images."),
    "distances": (
        "Distances over settings",
        "The distance of samples from the training images, and that of test images (dotted).",
    ),
    "nearest": (
        "Nearest training images",
        "The samples nearest to a training image in the features, above that image: a copy would "
        "show.",
    ),
    "neighbours": ("Nearest neighbours", "Test images and the training images nearest to them."),
    "forward": (
        "The forward process",
        "x_t over t under every schedule: how soon the data drowns in noise, from the same noise.",
    ),
    "schedule": (
        "Noise schedules",
        "beta_t, alpha_bar_t and log-SNR over t, under every schedule.",
    ),
}
"""Picture -> its title and its caption."""

SETTINGS = ("method", "steps", "guidance_scale", "guidance", "weights", "seed")
"""The keys of `sample` that a caption gives."""
VARIED: Mapping[str, tuple[str, ...]] = {
    "guidance": ("guidance_scale", "guidance"),
    "solvers": ("method", "steps"),
    "trajectories": ("method", "steps"),
    "forward": ("method", "steps", "guidance_scale", "guidance", "weights"),
    "field": ("method", "steps"),
    "density": ("method", "steps", "seed"),
}
"""Picture -> the keys among them that it varies or does not use."""


def titled(name: str) -> str:
    """The title of a metric or a picture by its name in a file."""
    known = METRICS.get(name)
    return known or name.replace("_", " ").strip()[:80] or "?"


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def shown(value: object, longest: int = 160) -> str:
    """A value of a config or a score for reading."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return brief(value)
    if isinstance(value, int):
        return f"{value:,}" if -(10**15) < value < 10**15 else brief(number(value))
    if value is None or value == "":
        return NOTHING
    if isinstance(value, list | tuple):
        if not value:
            return NOTHING
        text = ", ".join(shown(each, 40) for each in value[:12])
        text += f", … ({len(value):,} in all)" if len(value) > 12 else ""
    elif isinstance(value, Mapping):
        text = ", ".join(f"{k}: {shown(v, 40)}" for k, v in list(value.items())[:12]) or NOTHING
    else:
        text = str(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def plain(value: object) -> str:
    """A value of a config as the command line takes it."""
    if isinstance(value, list | tuple):
        text = ", ".join(plain(v) for v in value[:24]) + (", …" if len(value) > 24 else "")
        return f"({text},)" if len(value) == 1 else f"({text})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {plain(v)}" for k, v in list(value.items())[:24]) + "}"
    text = repr(value) if isinstance(value, str) and not value else str(value)
    return text if len(text) <= 240 else text[:239] + "…"


def duration(seconds: float) -> str:
    """A duration in words: 9 min 20 s."""
    if not math.isfinite(seconds):
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        rest = whole % 60
        return f"{whole // 60} min" + (f" {rest} s" if rest and whole < 1200 else "")
    if whole < 172_800:
        rest = whole % 3600 // 60
        return f"{whole // 3600} h" + (f" {rest} min" if rest else "")
    return f"{whole / 86_400:.1f} days"


_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")


def scaled(value: float, unit: str) -> str:
    """A number with a prefix: 20.3 GFLOP."""
    if not math.isfinite(value) or value < 0:
        return NOTHING
    power = 0
    while value >= 999.5 and power < len(_PREFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {_PREFIXES[power]}{unit}"


def moment(text: object) -> str:
    """A time in ISO form, to the minute."""
    try:
        at = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return NOTHING
    return f"{at:%d %B %Y, %H:%M}".lstrip("0") + " UTC"
