"""What distances in the features of one network need: the network and the features of the data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from tqdm.auto import tqdm

from genzoo import build
from genzoo.builders import datasets
from genzoo.core.errors import UserError
from genzoo.data.source import Source
from genzoo.evaluate.distances import METRICS, Data, Distance, FeatureSet
from genzoo.evaluate.feature_networks import FeatureNetwork, feature_network
from genzoo.experiment import Experiment
from genzoo.settings import DataSettings

_READ = 1000  # images read at a time


@dataclass(frozen=True, kw_only=True)
class Standard:
    """The protocol under which a distance has its plain name. data: the data set with which samples
    are compared, the first `reference` of its training images. samples: their number."""

    data: str
    reference: int = 10_000
    samples: int = 2000


STANDARDS: Mapping[str, Standard] = {
    "fashion": Standard(data="fashion_mini"),
    "digits": Standard(data="mnist"),
}
"""By network. Distances in other networks compare with all training images of the run's data."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ruler:
    """Measures distances in the features of a network.

    open: split -> the data that samples are compared with. data: its name. reference: number of
    training images; 0 for all. samples: number of samples, and of test images. keep: whether
    features are kept, or only their moments. standard: the protocol, if the network has one.
    """

    network: FeatureNetwork
    open: Callable[[str], Source]
    data: str
    reference: int
    samples: int
    keep: bool
    standard: Standard | None

    def features(self, images: Iterator[np.ndarray]) -> FeatureSet:
        """The features of images uint8 [n, H, W, C], which arrive in batches."""
        found = FeatureSet(keep=self.keep)
        for batch in images:
            found.add(*self.network(batch))
        return found

    @cached_property
    def real(self) -> Data:
        """The features of the data."""
        return Data(train=self._of("train", self.reference), test=self._of("test", self.samples))

    def _of(self, split: str, count: int) -> FeatureSet:
        source = self.open(split)
        count = min(count or len(source), len(source))
        batches = range(0, count, _READ)
        bar = tqdm(batches, desc=f"features of {split}", unit="batch", disable=None)
        return self.features(
            source.read(np.arange(begin, min(begin + _READ, count)))["x"] for begin in bar
        )

    @cached_property
    def noise(self) -> FeatureSet:
        """The features of images of independent uniform pixels."""
        random = np.random.default_rng(0)
        counts = [min(_READ, self.samples - begin) for begin in range(0, self.samples, _READ)]
        return self.features(
            random.integers(0, 256, (count, *self.network.shape), dtype=np.uint8)
            for count in counts
        )

    def measure(self, one: Distance, samples: FeatureSet) -> dict:
        """The numbers of a distance, those of test images ("floor") and of noise ("ceiling")."""
        measure = METRICS[one.metric].measure
        if one not in self._ends:
            self._ends[one] = {
                "floor": measure(self.real.test, self.real),
                "ceiling": measure(self.noise, self.real),
            }
        return {**measure(samples, self.real), **self._ends[one]}

    @cached_property
    def _ends(self) -> dict[Distance, dict]:
        return {}

    def label(self, one: Distance, count: int) -> str:
        """The name of a distance, with the number of samples unless the protocol is standard."""
        usual = self.standard and (count, self.real.train.moments.count) == (
            self.standard.samples,
            self.standard.reference,
        )
        return str(one) if usual else f"{one}@{count}"

    def protocol(self, count: int) -> dict:
        """What a distance between `count` samples and the data depends on, besides the samples."""
        network, train = self.network, self.real.train.moments
        return {
            "n": count,
            "split": "train",
            "network": {"name": network.name, "version": network.version, "hash": network.hash},
            "reference": {"data": self.data, "n": train.count, **self.open("train").identity()},
            "test": self.real.test.moments.count,
            "resize": network.resize,
        }


def ruler(experiment: Experiment, name: str, keep: bool) -> Ruler:
    """The ruler of a network for a run. Raises UserError if the network takes other images."""
    network, standard = feature_network(name), STANDARDS.get(name)
    if network.shape != experiment.shape:
        raise UserError(
            f"eval.distances: the network {name} takes images of {_sized(network.shape)}, but "
            f"those of {experiment.config.data.name} have {_sized(experiment.shape)}: name another "
            "network."
        )
    data = build.section(experiment.config, "data")
    if standard and data.name != standard.data:
        data = DataSettings(name=standard.data)
    return Ruler(
        network=network,
        open=partial(datasets.open_source, data),
        data=data.name,
        reference=standard.reference if standard else 0,
        samples=experiment.config.eval.samples,
        keep=keep,
        standard=standard,
    )


def _sized(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
