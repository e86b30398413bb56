"""What distances in the features of one network need: the network and the features of the data."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import jax
import numpy as np

from genzoo import build
from genzoo.builders import datasets
from genzoo.core import named_arrays, streams, tree
from genzoo.core.contract import Variables
from genzoo.core.errors import UserError
from genzoo.core.files import expanded
from genzoo.core.types import Array, Tree
from genzoo.data import transforms
from genzoo.data.source import Source
from genzoo.evaluate import reference
from genzoo.evaluate.distances import METRICS, OWN, Data, Distance, FeatureSet, parsed
from genzoo.evaluate.features.network import FeatureNetwork
from genzoo.evaluate.features.table import NETWORKS
from genzoo.evaluate.reference import Reference
from genzoo.experiment import Experiment, require, variables_of
from genzoo.resolve import resolved
from genzoo.runtime.progress import tracked
from genzoo.settings import DataSettings
from genzoo.workdir import Workdir

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

    shape: of the images. open: split -> the data that samples are compared with. data: its name.
    reference: number of training images; 0 for all. samples: number of samples, and of test images.
    keep: whether features are kept, or only their moments. standard: the protocol, if the network
    has one. stored: the moments to compare with, in place of those of the training images.
    """

    network: FeatureNetwork
    shape: tuple[int, ...]
    open: Callable[[str], Source]
    data: str
    reference: int
    samples: int
    keep: bool
    standard: Standard | None
    stored: Reference | None = None

    def features(self, images: Iterator[np.ndarray]) -> FeatureSet:
        """The features of images uint8 [n, H, W, C], which arrive in batches."""
        found = FeatureSet(keep=self.keep)
        for batch in images:
            found.add(*self.network.outputs(batch))
        return found

    @cached_property
    def real(self) -> Data:
        """The features of the data."""
        test = self._of(self.open("test"), "test", self.samples)
        if self.stored:
            return Data(train=FeatureSet.of(self.stored.moments), test=test)
        return Data(train=self._train[0], test=test)

    @cached_property
    def _train(self) -> tuple[FeatureSet, Mapping[str, int]]:
        """The features of the training images, and the identity of their data set."""
        source = self.open("train")
        return self._of(source, "train", self.reference), source.identity()

    def _of(self, source: Source, split: str, count: int) -> FeatureSet:
        count = min(count or len(source), len(source))
        batches = range(0, count, _READ)
        bar = tracked(batches, f"features of {split}")
        return self.features(
            source.read(np.arange(begin, min(begin + _READ, count)))["x"] for begin in bar
        )

    @cached_property
    def noise(self) -> FeatureSet:
        """The features of images of independent uniform pixels."""
        random = np.random.default_rng(0)
        counts = [min(_READ, self.samples - begin) for begin in range(0, self.samples, _READ)]
        return self.features(
            random.integers(0, 256, (count, *self.shape), dtype=np.uint8) for count in counts
        )

    def measure(self, one: Distance, samples: FeatureSet) -> dict:
        """The numbers of a distance, those of test images ("floor") and of noise ("ceiling")."""
        return {**METRICS[one.metric].measure(samples, self.real), **self.ends(one)}

    def ends(self, one: Distance) -> dict[str, dict]:
        """The numbers of test images ("floor") and of noise ("ceiling")."""
        if one not in self._ends:
            measure = METRICS[one.metric].measure
            self._ends[one] = {
                "floor": measure(self.real.test, self.real),
                "ceiling": measure(self.noise, self.real),
            }
        return self._ends[one]

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
        return {
            "n": count,
            "split": "train",
            **self.network.protocol,
            "reference": self.origin,
            "test": self.real.test.moments.count,
        }

    @cached_property
    def origin(self) -> dict:
        """What samples are compared with: a data set, the number of its images and its checksums;
        or moments of a file, and their hash."""
        if self.stored:
            return {**self.stored.about["data"], "hash": self.stored.hash}
        train, identity = self._train
        return {"data": self.data, "n": train.moments.count, **identity}


def rulers_of(experiment: Experiment) -> dict[str, Ruler]:
    """The ruler of each network that eval.distances names. Raises UserError."""
    keeps: dict[str, bool] = {}
    for one in parsed(experiment.config.eval.distances):
        keeps[one.network] = keeps.get(one.network, False) or METRICS[one.metric].features
    return {name: ruler(experiment, name, keep) for name, keep in keeps.items()}


def ruler(experiment: Experiment, name: str, keep: bool) -> Ruler:
    """The ruler of a network for a run. Raises UserError if the network takes other images."""
    settings, standard = experiment.config.eval, STANDARDS.get(name)
    if name.startswith(OWN):
        network = of_run(Path(name.removeprefix(OWN)))
    else:
        network = NETWORKS[name].open(settings.features, settings.resize)
    if problem := network.problem(experiment.shape):
        raise UserError(f"eval.distances: {problem} Name another network.")
    stored = None
    if settings.reference:
        stored = reference.load(expanded(settings.reference), network.protocol)
        if keep:
            raise UserError(
                "eval.reference holds moments, which suffice for fd alone: leave other distances "
                "out of eval.distances, or eval.reference."
            )
    data = build.section(experiment.config, "data")
    if standard and data.name != standard.data:
        data = DataSettings(name=standard.data)
    return Ruler(
        network=network,
        shape=experiment.shape,
        open=partial(datasets.open_source, data),
        data=data.name,
        reference=standard.reference if standard else 0,
        samples=settings.samples,
        keep=keep,
        standard=standard,
        stored=stored,
    )


def of_run(workdir: Path) -> FeatureNetwork:
    """The representation of a run that encodes, with eval.weights, as a feature network."""
    place = Workdir(workdir)
    raw = place.stored("name the workdir of a run that encodes in eval.distances, after own:")
    config = resolved(raw, place.path)
    experiment = Experiment(config)
    require(experiment.family, config.family.name, "encode", "eval")
    state = place.load(config, experiment.abstract_state)
    variables = variables_of(state, config.eval.weights)

    def apply(parts: Tree, images: Array) -> tuple[Array, None]:
        batch = {"x": transforms.to_float(images)}
        keys = streams.per_example(streams.root(0), np.zeros(len(images), np.int32))
        return experiment.family.encode(Variables(**parts), batch, keys), None

    parts = {name: getattr(variables, name) for name in ("params", "stats", "frozen")}
    height, width, channels = experiment.shape
    images = jax.ShapeDtypeStruct((1, *experiment.shape), np.float32)
    return FeatureNetwork(
        name=f"{OWN}{config.family.name}",
        version=f"step {int(state.step)}",
        hash=named_arrays.digest(jax.device_get(tree.by_path(variables.params))),
        verified=True,
        resize="",
        side=0,
        sides=(height, width),
        channels=channels,
        dimensions=jax.eval_shape(apply, parts, images)[0].shape[-1],
        classes=0,
        apply=apply,
        params=parts,
        batch_size=config.eval.batch_size,
    )
