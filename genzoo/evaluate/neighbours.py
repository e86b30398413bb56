"""Nearest neighbours of a few queries among many candidates that arrive in batches.

Distances are float64; only those from the queries to one batch are held at a time:

    euclidean: |q - x|        cosine: 1 - q . x / (|q| |x|), and 1 where one of the two is zero
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

_BLOCK = 1024  # queries converted to float64 at a time


def euclidean(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Distances [Q, N] of the queries [Q, D] from the candidates [N, D]."""
    lengths = np.square(queries).sum(1)[:, None] + np.square(candidates).sum(1)
    return np.sqrt(np.maximum(lengths - 2 * queries @ candidates.T, 0))


def cosine(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """1 - cosine of the angle [Q, N] between the queries [Q, D] and the candidates [N, D]."""
    return 1 - _unit(queries) @ _unit(candidates).T


def _unit(x: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm > 0, norm, 1)


METRICS: Mapping[str, Callable] = {"euclidean": euclidean, "cosine": cosine}


@dataclass(frozen=True)
class Neighbours:
    """The k nearest neighbours of each query so far, nearest first.

    distance: float64 [Q, k]. index: int64 [Q, k]. Missing neighbours have distance inf and index
    -1.
    """

    distance: np.ndarray
    index: np.ndarray

    @classmethod
    def none(cls, queries: int, count: int) -> "Neighbours":
        """The neighbours among no candidates."""
        shape = (queries, count)
        return cls(np.full(shape, np.inf), np.full(shape, -1, np.int64))

    def with_batch(
        self,
        metric: str,
        queries: np.ndarray,
        candidates: np.ndarray,
        index: np.ndarray,
        own: np.ndarray | None = None,
    ) -> "Neighbours":
        """The neighbours updated with a batch of candidates [N, D]. metric: a key of METRICS.

        queries: [Q, D]. index: [N], the indices of the candidates. own: [Q], the indices of the
        queries if they are among the candidates, so that none is its own neighbour.
        """
        candidates = candidates.astype(np.float64)
        parts = []
        for start in range(0, len(queries), _BLOCK):
            rows = slice(start, start + _BLOCK)
            distance = METRICS[metric](queries[rows].astype(np.float64), candidates)
            if own is not None:
                distance[own[rows][:, None] == index] = np.inf
            parts.append(self._nearer(rows, distance, index))
        return Neighbours(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _nearer(self, rows: slice, distance: np.ndarray, index: np.ndarray):
        count = self.distance.shape[1]
        distance = np.concatenate([self.distance[rows], distance], axis=1)
        here = np.broadcast_to(index, (len(distance), len(index)))
        index = np.concatenate([self.index[rows], here], axis=1)
        kept = np.argpartition(distance, count - 1, axis=1)[:, :count]
        distance, index = (np.take_along_axis(x, kept, 1) for x in (distance, index))
        order = np.lexsort((index, distance))
        return tuple(np.take_along_axis(x, order, 1) for x in (distance, index))


def vote(labels: np.ndarray, classes: int) -> np.ndarray:
    """The majority class [Q] among the neighbours' labels [Q, k], which are nearest first.

    Of several classes with equally many votes, the class of the nearest neighbour is taken.
    """
    queries, count = labels.shape
    votes, first = np.zeros((queries, classes)), np.full((queries, classes), count)
    rows = np.arange(queries)
    for rank in reversed(range(count)):
        votes[rows, labels[:, rank]] += 1
        first[rows, labels[:, rank]] = rank
    return (votes - first / (count + 1)).argmax(1)
