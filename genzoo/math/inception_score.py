"""The Inception score (Salimans et al. 2016) of class probabilities p(y | x_i) of samples x_i:

    score = exp( mean_i KL( p(y | x_i) || mean_j p(y | x_j) ) )                               (1)

It lies between 1 and the number of classes, is high if each sample clearly belongs to some class
and the samples to many, and never looks at real data. It is computed on S equal parts of the
samples, and grows with the number of samples in a part.
"""

import itertools
from typing import NamedTuple

import numpy as np

from genzoo.core.types import Vectors
from genzoo.math.kernel_distance import SEED

SPLITS = 10


class InceptionScore(NamedTuple):
    """The mean and the standard deviation of (1) over parts."""

    value: float
    deviation: float


def inception_score(
    logits: Vectors, *, splits: int = SPLITS, seed: int | None = SEED
) -> InceptionScore:
    """Equation (1), in float64, of p(y | x_i) = softmax of the logits [B, classes].

    splits: S. seed: of the order of the samples, since samples may come ordered by class; None
    keeps their order. Raises ValueError for fewer samples than parts.
    """
    logits = np.asarray(logits, np.float64)
    if not 1 <= splits <= len(logits):
        raise ValueError(f"{splits} parts of {len(logits)} samples")
    if seed is not None:
        logits = logits[np.random.RandomState(seed).permutation(len(logits))]
    shifted = logits - logits.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    edges = np.arange(splits + 1) * len(logs) // splits
    scores = [_score(logs[a:b]) for a, b in itertools.pairwise(edges)]
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))


def _score(logs: np.ndarray) -> float:
    probabilities = np.exp(logs)
    mean = probabilities.mean(0)
    # A class whose probability underflows in every sample adds 0 log 0 = 0.
    log_mean = np.log(np.where(mean > 0, mean, 1))
    divergences = (probabilities * (np.where(probabilities > 0, logs, 0) - log_mean)).sum(1)
    return np.exp(divergences.mean())
