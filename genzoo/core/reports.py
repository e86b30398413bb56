"""The metrics of losses as reported numbers: their names, and the family's own report."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from genzoo.core.contract import Family, Report, Reports

_FROM_FIRST = ("loss", "gradient_norm", "learning_rate")


def by_name(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The metrics of all players, {player: {metric: value}}, in one flat dict. Metrics of a single
    player keep their names. With several players each is named `metric_player`, and the loss, the
    gradient norm and the learning rate of the first also keep their plain names."""
    if len(measured) == 1:
        return dict(*measured.values())
    named = {f"{k}_{player}": v for player, own in measured.items() for k, v in own.items()}
    first = next(iter(measured.values()))
    return {k: first[k] for k in _FROM_FIRST if k in first} | named


def scalars(measured: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The averaged metrics that are single numbers, with which every report begins."""
    return {k: float(v) for k, v in measured.items() if np.ndim(v) == 0}


def reported(family: Family, measured: Mapping[str, np.ndarray]) -> Report:
    """The family's own report on averaged metrics, or the metrics unchanged."""
    if isinstance(family, Reports):
        return family.report(measured)
    return Report(values={k: np.asarray(v).tolist() for k, v in measured.items()})
