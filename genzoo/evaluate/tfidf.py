"""TF-IDF weights of word counts, the usual baseline of document retrieval.

    w_dv = x_dv log(N / n_v),     each row w_d divided by its length |w_d|                    (1)

where x_dv is the count of word v in document d, and n_v of the N documents contain the word: the
weighting "tfc" of Salton & Buckley 1988 (Term-weighting approaches in automatic text retrieval).
The similarity of two documents is the cosine of the angle between their weights.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TfIdf:
    """Equation (1). idf: log(N / n_v), float64 [V]; 0 for words that no document contains."""

    idf: np.ndarray

    @classmethod
    def of(cls, batches: Iterable[np.ndarray]) -> "TfIdf":
        """The weights of a collection of documents, from their counts in batches [n, V]."""
        total, frequency = 0, 0
        for counts in batches:
            total += len(counts)
            frequency = frequency + (counts > 0).sum(0)
        idf = np.log(total / np.maximum(frequency, 1))
        return cls(np.where(frequency > 0, idf, 0.0))

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        """Equation (1) for counts [n, V]: float64 [n, V]; zero for a document without words."""
        weights = counts * self.idf
        length = np.linalg.norm(weights, axis=1, keepdims=True)
        return weights / np.where(length > 0, length, 1)
