"""Distances between a set of samples and a data set, in the features of a network.

| name | measures | source |
|---|---|---|
| fd | Fréchet distance between the Gaussians with the same moments | Heusel et al. 2017 |
| kid | squared maximum mean discrepancy, unbiased | Bińkowski et al. 2018 |
| pr | precision and recall of manifolds of 3 nearest neighbours | Kynkäänniemi et al. 2019 |
| dc | density and coverage, with 5 nearest neighbours | Naeem et al. 2020 |
| is | Inception score, from the network's classes alone | Salimans et al. 2016 |
| copies | share of samples nearer to a training image than 99 % of the test images are | |
| accuracy | share of samples that the network takes for the class that was asked for | |

A distance is named METRIC_NETWORK, such as `fd_fashion`; `fid` is `fd_inception`. Each is also
measured for test images (its floor) and for uniform noise (its ceiling), which say what a value
means. `accuracy_own:WORKDIR` judges by the classifier of a run, such as the one that guided.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from genzoo.core.errors import nearest
from genzoo.evaluate.features.table import NETWORKS
from genzoo.evaluate.neighbours import Neighbours
from genzoo.math.frechet import Gaussian, frechet
from genzoo.math.inception_score import inception_score
from genzoo.math.kernel_distance import SUBSET, kernel_distance
from genzoo.math.neighbourhoods import Neighbourhoods, neighbourhoods
from genzoo.math.pca import Moments

OWN = "own:"
"""Before the workdir of a run that encodes, as a feature network."""
FID = "fid"
"""The name of the Fréchet distance in the features of `inception`."""
_FID = "fd_inception"
_NEAR = 1.0  # percentile of the test images' distances from their nearest training images
_CHUNK = 2048


@dataclass(eq=False)
class FeatureSet:
    """The features of a set of images, added in batches.

    keep: whether the features themselves are kept, or only their moments, whose size does not
    depend on the number of images. manifolds: what `neighbourhoods` gives with another set.
    """

    keep: bool
    manifolds: dict["FeatureSet", Neighbourhoods] = field(default_factory=dict)
    _moments: Moments | None = None
    _features: list[np.ndarray] = field(default_factory=list)
    _logits: list[np.ndarray] = field(default_factory=list)
    _labels: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(cls, moments: Moments) -> "FeatureSet":
        """A set of which only the moments are known."""
        return cls(keep=False, _moments=moments)

    def add(
        self,
        features: np.ndarray,
        logits: np.ndarray | None,
        labels: np.ndarray | None = None,
    ) -> None:
        """Adds images with these features [n, D] and, if the network has classes, logits [n, K].
        labels: the classes [n] that they should have, if they should have any."""
        before = self._moments or Moments.none(features.shape[1])
        self._moments = before.with_batch(features)
        if self.keep:
            self._features.append(features)
            if logits is not None:
                self._logits.append(logits)
            if labels is not None:
                self._labels.append(labels)
            self.manifolds.clear()

    @property
    def moments(self) -> Moments:
        """The moments of the features. Raises ValueError before the first image."""
        if self._moments is None:
            raise ValueError("no image was added")
        return self._moments

    @property
    def features(self) -> np.ndarray:
        """All features [N, D]."""
        return _joined(self._features)

    @property
    def logits(self) -> np.ndarray:
        """All logits [N, K]."""
        return _joined(self._logits)

    @property
    def labels(self) -> np.ndarray:
        """All classes [N] that the images should have."""
        return _joined(self._labels)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """The parts as one array, which takes their place. Raises ValueError if there is none."""
    if len(parts) != 1:
        parts[:] = [np.concatenate(parts)]
    return parts[0]


class Data(NamedTuple):
    """The training images that samples are compared with, and the test images."""

    train: FeatureSet
    test: FeatureSet


def frechet_distance(one: FeatureSet, other: FeatureSet) -> dict:
    """The Fréchet distance of two sets, which says so if a covariance is singular."""
    found = frechet(Gaussian.of(one.moments), Gaussian.of(other.moments))
    return {"value": found.distance, **({"singular": True} if found.singular else {})}


def _fd(samples: FeatureSet, data: Data) -> dict:
    return frechet_distance(samples, data.train)


def _kid(samples: FeatureSet, data: Data) -> dict:
    one, other = samples.features, data.train.features
    found = kernel_distance(one, other, size=min(SUBSET, len(one), len(other)))
    return {"value": found.value, "standard_error": found.error}


def _manifolds(samples: FeatureSet, data: Data) -> Neighbourhoods:
    if data.train not in samples.manifolds:
        found = neighbourhoods(data.train.features, samples.features)
        samples.manifolds[data.train] = found
    return samples.manifolds[data.train]


def _pr(samples: FeatureSet, data: Data) -> dict:
    found = _manifolds(samples, data)
    return {"precision": found.precision, "recall": found.recall}


def _dc(samples: FeatureSet, data: Data) -> dict:
    found = _manifolds(samples, data)
    return {"density": found.density, "coverage": found.coverage}


def _is(samples: FeatureSet, data: Data | None) -> dict:
    del data
    found = inception_score(samples.logits)
    return {"value": found.value, "deviation": found.deviation}


def _copies(samples: FeatureSet, data: Data) -> dict:
    train = data.train.features
    limit = np.percentile(nearest_training(data.test.features, train).distance, _NEAR)
    near = nearest_training(samples.features, train).distance < limit
    return {"share": float(near.mean()), "limit": float(limit)}


def _accuracy(samples: FeatureSet, data: Data | None) -> dict:
    del data
    right = samples.logits.argmax(1) == samples.labels
    value = float(right.mean())
    return {"value": value, "standard_error": float(np.sqrt(value * (1 - value) / len(right)))}


class Metric(NamedTuple):
    """measure: (samples, data) -> numbers by name. features: whether it needs the features
    themselves, and not only their moments. classes: whether it needs the network's classes. labels:
    whether it needs those of the samples. data: whether it needs the data; otherwise it gets
    None. least: the smallest number of samples."""

    measure: Callable[[FeatureSet, Data | None], dict]
    features: bool = True
    classes: bool = False
    labels: bool = False
    data: bool = True
    least: int = 2


METRICS: Mapping[str, Metric] = {
    "fd": Metric(_fd, features=False),
    "kid": Metric(_kid),
    "pr": Metric(_pr, least=6),
    "dc": Metric(_dc, least=6),
    "is": Metric(_is, classes=True, data=False, least=10),
    "copies": Metric(_copies),
    "accuracy": Metric(_accuracy, classes=True, labels=True, data=False),
}


class Distance(NamedTuple):
    """The name of a distance in two parts."""

    metric: str
    network: str

    def __str__(self) -> str:
        name = f"{self.metric}_{self.network}"
        return FID if name == _FID else name


def parsed(names: str) -> list[Distance]:
    """The distances named in eval.distances, separated by commas."""
    given = [name.strip() for name in names.split(",") if name.strip()]
    parts = [(_FID if name == FID else name).partition("_") for name in given]
    return [Distance(metric, network) for metric, _, network in parts]


def problems(names: str) -> list[str]:
    """A sentence for each invalid name in eval.distances."""
    found = []
    for one in parsed(names):
        if one.metric not in METRICS:
            found.append(f"eval.distances: {one.metric!r} is no metric: "
                         f"{nearest(one.metric, METRICS)}")  # fmt: skip
        elif one.network == OWN:
            found.append(f"eval.distances: {str(one)!r} names no workdir: write one after {OWN}")
        elif one.network not in NETWORKS and not one.network.startswith(OWN):
            known = (*NETWORKS, f"{OWN}WORKDIR")
            found.append(f"eval.distances: {str(one)!r} names no feature network: "
                         f"{nearest(one.network, known)}")  # fmt: skip
    return found


def nearest_training(queries: np.ndarray, train: np.ndarray) -> Neighbours:
    """The nearest of the training features [N, D] to each of the queries [Q, D]."""
    found = Neighbours.none(len(queries), 1)
    for begin in range(0, len(train), _CHUNK):
        part = train[begin : begin + _CHUNK]
        index = np.arange(begin, begin + len(part))
        found = found.with_batch("euclidean", queries, part, index)
    return found


@dataclass(eq=False)
class Closest:
    """The samples that are nearest to a training image, of those added so far.

    train: features [N, D] of the training images. count: number of samples kept.
    """

    train: np.ndarray
    count: int = 10
    _kept: list[tuple[float, int, np.ndarray]] = field(default_factory=list)

    def add(self, images: np.ndarray, features: np.ndarray) -> None:
        """Adds samples [n, H, W, C] with these features [n, D]."""
        found = nearest_training(features, self.train)
        rows = zip(found.distance[:, 0], found.index[:, 0], images, strict=True)
        both = [*self._kept, *((float(d), int(i), image) for d, i, image in rows)]
        self._kept = sorted(both, key=lambda row: row[:2])[: self.count]

    @property
    def images(self) -> np.ndarray:
        """The samples, nearest first: [count, H, W, C]."""
        return np.stack([image for _, _, image in self._kept])

    @property
    def index(self) -> np.ndarray:
        """The training image that each is nearest to."""
        return np.array([index for _, index, _ in self._kept])

    @property
    def distance(self) -> np.ndarray:
        """Its distance in the features."""
        return np.array([distance for distance, _, _ in self._kept])
