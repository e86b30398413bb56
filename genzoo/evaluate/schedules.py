"""Noise schedules side by side: what they make of data over t, and their curves.

    alpha_bar(t) = alpha^2 / (alpha^2 + sigma^2) = sigmoid(logsnr(t))                           (1)
    beta_n = 1 - alpha_bar(n / T) / alpha_bar((n - 1) / T),   alpha_bar(0) = 1                  (2)

For a variance-preserving process these are the quantities of Ho et al. 2020. Any other process is
described by the variance-preserving one with the same log-SNR.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from genzoo.evaluate.figures import FAINT, INK, blank, marks
from genzoo.evaluate.figures import save as save_figure
from genzoo.math.schedules import Schedule, TableSchedule

STEPS = 1000
"""T of (2) for a schedule that is no table."""
MOMENTS = tuple(i / 10 for i in range(11))
"""Times at which noisy data are drawn."""
_KEPT = 200  # values of a curve in a file


@dataclass(frozen=True, kw_only=True)
class Curves:
    """A schedule at t = n / T, n = 1..T: (1), (2) and the log-SNR, each float64 [T]."""

    t: np.ndarray
    beta: np.ndarray
    alpha_bar: np.ndarray
    logsnr: np.ndarray


def curves(schedule: Schedule) -> Curves:
    """The curves of a schedule, those of a table in float64."""
    table = isinstance(schedule, TableSchedule)
    steps = schedule.steps if table else STEPS
    t = np.arange(1, steps + 1) / steps
    if table:
        with np.errstate(divide="ignore"):
            logsnr = np.log(schedule.alpha_bar) - np.log(-np.expm1(2 * schedule.log_alpha[1:]))
        return Curves(t=t, beta=schedule.beta, alpha_bar=schedule.alpha_bar, logsnr=logsnr)
    logsnr = np.asarray(schedule.logsnr(jnp.asarray(t, jnp.float32)), np.float64)
    # log sigmoid, whose differences are exact also where alpha_bar is almost 1.
    log_alpha_bar = -np.logaddexp(0, -logsnr)
    with np.errstate(invalid="ignore"):
        beta = -np.expm1(np.diff(log_alpha_bar, prepend=0.0))
    return Curves(t=t, beta=beta, alpha_bar=np.exp(log_alpha_bar), logsnr=logsnr)


def noisy(schedules: Mapping[str, Schedule], x_0: np.ndarray) -> dict[str, np.ndarray]:
    """x_t of data [N, ...] at MOMENTS from the same noise, for every schedule: [K, N, ...], at unit
    scale: x_t / sqrt(alpha^2 + sigma^2), because some processes grow without bound."""
    eps = np.random.default_rng(0).normal(size=x_0.shape)
    times, states = jnp.asarray(MOMENTS), {}
    for name, schedule in schedules.items():
        alpha, sigma = (
            np.asarray(scale(times), np.float64).reshape(-1, *(1,) * x_0.ndim)
            for scale in (schedule.alpha, schedule.sigma)
        )
        states[name] = (alpha * x_0 + sigma * eps) / np.hypot(alpha, sigma)
    return states


def plain(named: Mapping[str, Curves]) -> dict:
    """The curves as plain data, thinned: {"t": [...], "schedules": {name: {"beta": [...], ...}}}.
    Schedules with other times than the first are interpolated."""
    t = next(iter(named.values())).t
    t = t[np.unique(np.round(np.linspace(0, len(t) - 1, _KEPT)).astype(int))]

    def at(curves: Curves, values: np.ndarray) -> list[float | None]:
        known = np.interp(t, curves.t, values)
        return [float(v) if np.isfinite(v) else None for v in known]

    return {
        "t": t.tolist(),
        "schedules": {
            name: {key: at(one, getattr(one, key)) for key in ("beta", "alpha_bar", "logsnr")}
            for name, one in named.items()
        },
    }


_PANELS = (("beta", "$\\beta_t$"), ("alpha_bar", "$\\bar\\alpha_t$"), ("logsnr", "log-SNR"))


def save(path: Path, named: Mapping[str, Curves]) -> None:
    """Saves the curves as PNG: beta on a logarithmic axis, alpha_bar, log-SNR."""
    figure = blank(1300, 420)
    colours = [colour for colour, _ in marks(len(named))]
    for i, (key, title) in enumerate(_PANELS):
        axes = figure.add_axes((0.05 + 0.32 * i, 0.13, 0.265, 0.70))
        for number, (name, one) in enumerate(named.items()):
            values = getattr(one, key)
            axes.plot(
                one.t, np.where(np.isfinite(values), values, np.nan), color=colours[number],
                lw=2.4 if number == 0 else 1.4, label=name, zorder=3 if number == 0 else 2,
            )  # fmt: skip
        if key == "beta":
            axes.set_yscale("log")
        axes.set_title(title, fontsize=12, color=INK)
        axes.set_xlabel("t", color=INK)
        axes.set_xlim(0, 1)
        axes.tick_params(labelsize=9, colors=FAINT)
        axes.spines[["top", "right"]].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="upper center", ncols=len(names), frameon=False, fontsize=10)
    save_figure(figure, path)
