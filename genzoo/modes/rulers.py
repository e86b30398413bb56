"""What distances in the features of one network need: the network and the features of the data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import jax
import numpy as np

from genzoo import build
from genzoo.builders import datasets
from genzoo.core import named_arrays, streams, tree
from genzoo.core.contract import Classifies, Encodes, Variables, conditions_of
from genzoo.core.errors import UserError
from genzoo.core.files import expanded
from genzoo.core.types import Array, Tree
from genzoo.data import transforms
from genzoo.data.source import Records, Source
from genzoo.evaluate import reference
from genzoo.evaluate.distances import METRICS, OWN, Data, Distance, FeatureSet, parsed
from genzoo.evaluate.features.network import FeatureNetwork
from genzoo.evaluate.features.table import NETWORKS
from genzoo.evaluate.reference import Reference
from genzoo.experiment import Experiment, variables_of
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
    "shapes": Standard(data="shapes"),
}
"""By network. Distances in other networks compare with all training images of the run's data."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ruler:
    """Measures distances in the features of a network.

    shape: of the images. open: split -> the data that samples are compared with. data: its name.
    own: split -> the run's data, and own_data its name, for a metric that needs classes, because
    the data of a standard protocol may have none. reference: number of training images; 0 for all.
    samples: number of samples, and of test images. keep: whether features are kept, or only their
    moments. standard: the protocol, if the network has one. stored: the moments to compare with, in
    place of those of the training images.
    """

    network: FeatureNetwork
    shape: tuple[int, ...]
    open: Callable[[str], Source]
    data: str
    own: Callable[[str], Source]
    own_data: str
    reference: int
    samples: int
    keep: bool
    standard: Standard | None
    stored: Reference | None = None

    def features(self, records: Iterator[Records]) -> FeatureSet:
        """The features of records that arrive in batches: `x` uint8 [n, H, W, C], and `label` [n]
        if they have classes."""
        return features(self.network, records, keep=self.keep)

    @cached_property
    def real(self) -> Data:
        """The features of the data."""
        if self.stored:
            return Data(train=FeatureSet.of(self.stored.moments), test=self.test)
        return Data(train=self._train[0], test=self.test)

    @cached_property
    def test(self) -> FeatureSet:
        """The features of the test images."""
        return self._of(self.open("test"), "test", self.samples)

    @cached_property
    def _own_test(self) -> FeatureSet:
        """The features of the test images of the run's data."""
        if self.own_data == self.data:
            return self.test
        return self._of(self.own("test"), "test", self.samples)

    def _test_of(self, one: Distance) -> tuple[FeatureSet, str]:
        """(the test images whose numbers are the floor of a distance, the name of their data)."""
        if METRICS[one.metric].labels:
            return self._own_test, self.own_data
        return self.test, self.data

    @cached_property
    def _train(self) -> tuple[FeatureSet, Mapping[str, int]]:
        """The features of the training images, and the identity of their data set."""
        source = self.open("train")
        return self._of(source, "train", self.reference), source.identity()

    def _of(self, source: Source, split: str, count: int) -> FeatureSet:
        return self.features(read(source, count, f"features of {split}"))

    @cached_property
    def noise(self) -> FeatureSet:
        """The features of images of independent uniform pixels, with all classes in turn."""
        classes = np.arange(self.samples) % max(self.network.classes, 1)
        parts = np.split(classes, range(_READ, self.samples, _READ))
        images = noise(self.shape, self.samples)
        return self.features(
            {"x": x, "label": label} for x, label in zip(images, parts, strict=True)
        )

    def measure(self, one: Distance, samples: FeatureSet) -> dict:
        """The numbers of a distance, those of test images ("floor") and of noise ("ceiling")."""
        metric = METRICS[one.metric]
        return {**metric.measure(samples, self.real if metric.data else None), **self.ends(one)}

    def ends(self, one: Distance) -> dict[str, dict]:
        """The numbers of test images ("floor") and of noise ("ceiling")."""
        if one not in self._ends:
            metric = METRICS[one.metric]
            data = self.real if metric.data else None
            self._ends[one] = {
                "floor": metric.measure(self._test_of(one)[0], data),
                "ceiling": metric.measure(self.noise, data),
            }
        return self._ends[one]

    @cached_property
    def _ends(self) -> dict[Distance, dict]:
        return {}

    def called(self, one: Distance, count: int) -> str:
        """The name of a distance, with the number of samples unless the protocol is standard."""
        usual = self.standard and count == self.standard.samples
        if usual and METRICS[one.metric].data:
            usual = self.real.train.moments.count == self.standard.reference
        return str(one) if usual else f"{one}@{count}"

    def protocol(self, one: Distance, count: int) -> dict:
        """What a distance of `count` samples depends on, besides the samples."""
        data = METRICS[one.metric].data
        test, name = self._test_of(one)
        return {
            "n": count,
            **({"split": "train"} if data else {}),
            **self.network.protocol,
            **({"reference": self.origin} if data else {}),
            "test": {"data": name, "n": test.moments.count},
        }

    @cached_property
    def origin(self) -> dict:
        """What samples are compared with: a data set, the number of its images and its checksums;
        or moments of a file, and their hash."""
        if self.stored:
            return {**self.stored.about["data"], "hash": self.stored.hash}
        train, identity = self._train
        return {"data": self.data, "n": train.moments.count, **identity}


def features(network: FeatureNetwork, records: Iterator[Records], *, keep: bool) -> FeatureSet:
    """See `Ruler.features` and `Ruler.keep`."""
    found = FeatureSet(keep=keep)
    for batch in records:
        found.add(*network.outputs(batch["x"]), batch.get("label"))
    return found


def read(source: Source, count: int, what: str = "reading") -> Iterator[Records]:
    """The first `count` records of a source, or all if there are fewer or if it is 0, in batches.
    what: for the progress."""
    count = min(count or len(source), len(source))
    for begin in tracked(range(0, count, _READ), what):
        yield source.read(np.arange(begin, min(begin + _READ, count)))


def noise(shape: Sequence[int], count: int) -> Iterator[np.ndarray]:
    """`count` images of independent uniform pixels, uint8 [n, *shape], in batches."""
    random = np.random.default_rng(0)
    for begin in range(0, count, _READ):
        yield random.integers(0, 256, (min(_READ, count - begin), *shape), dtype=np.uint8)


def fitting(network: FeatureNetwork, experiment: Experiment, key: str) -> FeatureNetwork:
    """The network, if it accepts the run's images; else raises UserError. key: of the config."""
    if problem := network.problem(experiment.shape):
        raise UserError(f"{key}: {problem} Name another network.")
    return network


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
    fitting(network, experiment, "eval.distances")
    if problems := _class_problems(experiment, name, network):
        raise UserError(*(f"eval.distances: {problem}" for problem in problems))
    stored = None
    if settings.reference:
        stored = reference.load(expanded(settings.reference), network.protocol)
        if keep:
            raise UserError(
                "eval.reference holds moments, which suffice for fd alone: leave other distances "
                "out of eval.distances, or eval.reference."
            )
    data = build.section(experiment.config, "data")
    own = data
    if standard and data.name != standard.data:
        data = DataSettings(name=standard.data)
    return Ruler(
        network=network,
        shape=experiment.shape,
        open=partial(datasets.open_source, data),
        data=data.name,
        own=partial(datasets.open_source, own),
        own_data=own.name,
        reference=standard.reference if standard else 0,
        samples=settings.samples,
        keep=keep,
        standard=standard,
        stored=stored,
    )


def _class_problems(experiment: Experiment, name: str, network: FeatureNetwork) -> list[str]:
    """Why distances that depend on the network's classes cannot be measured."""
    named, problems = parsed(experiment.config.eval.distances), []
    for one in named:
        metric = METRICS[one.metric]
        if one.network != name or not metric.classes:
            continue
        ours = experiment.spec.classes if metric.labels else ()
        if not network.classes:
            problems.append(
                f"{one} needs a network with classes, and {network.name} has none: name a "
                "classifier, such as fashion."
            )
        elif metric.labels and not _asks_for_classes(experiment):
            problems.append(
                f"{one} needs class-conditional samples, but this model has no class condition: "
                "leave it out, train with the condition label, or name a sample.classifier."
            )
        elif metric.labels and network.names != ours:
            problems.append(
                f"{one}: the classes of {network.name} are not those of "
                f"{experiment.config.data.name}: name a classifier of the same data."
            )
    return problems


def _asks_for_classes(experiment: Experiment) -> bool:
    guided = bool(experiment.config.sample.get("classifier"))
    return guided or "label" in conditions_of(experiment.family)


def of_run(workdir: Path) -> FeatureNetwork:
    """The representation of a run that encodes, with eval.weights, as a feature network; that of a
    classifier has classes."""
    place = Workdir(workdir)
    raw = place.stored("name the workdir of a run that encodes in eval.distances, after own:")
    config = resolved(raw, place.path)
    experiment = Experiment(config)
    of_images = build.FAMILIES[config.family.name].encodes == "x"
    if not (isinstance(experiment.family, Encodes) and of_images):
        raise UserError(
            f"eval.distances: {OWN}{workdir} holds a {config.family.name}, which has no "
            "representation of images: name a run of a family that can encode."
        )
    state = place.load(config, experiment.abstract_state)
    variables = variables_of(state, config.eval.weights)

    classifies = isinstance(experiment.family, Classifies)

    def apply(parts: Tree, images: Array) -> tuple[Array, Array | None]:
        batch = {"x": transforms.to_float(images)}
        if classifies:
            return experiment.family.classify(Variables(**parts), batch)
        keys = streams.per_example(streams.root(0), np.zeros(len(images), np.int32))
        return experiment.family.encode(Variables(**parts), batch, keys), None

    parts = {name: getattr(variables, name) for name in ("params", "stats", "frozen")}
    height, width, channels = experiment.shape
    images = jax.ShapeDtypeStruct((1, *experiment.shape), np.float32)
    features, logits = jax.eval_shape(apply, parts, images)
    return FeatureNetwork(
        name=f"{OWN}{config.family.name}",
        version=f"step {int(state.step)}, {config.eval.weights}",
        hash=named_arrays.digest(jax.device_get(tree.by_path(variables.params))),
        verified=True,
        resize="",
        side=0,
        sides=(height, width),
        channels=channels,
        dimensions=features.shape[-1],
        classes=logits.shape[-1] if classifies else 0,
        names=experiment.spec.classes if classifies else (),
        apply=apply,
        params=parts,
        batch_size=config.eval.batch_size,
    )
