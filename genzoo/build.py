"""The only table of names: what a config calls "ddpm", "unet" or "cifar10", and what it builds.

A new family or network is one row here, a new schedule or sampler one in its builders' tables. A
section's keys and their types are read off the builder's signature; `check.py` holds a config
against them.
"""

from collections.abc import Mapping

from ml_collections import FrozenConfigDict

from genzoo.builders import autoencoders, codes, continuous
from genzoo.builders.ddpm import DDPMSettings
from genzoo.builders.rows import DataRow, FamilyRow, NetworkRow, Parts
from genzoo.config import freeze
from genzoo.core.contract import Family
from genzoo.core.errors import UserError
from genzoo.data import cifar, embedded, folder, idx, tfds, toys
from genzoo.data.fields import Field, Image, Points, Signal, numbered
from genzoo.data.pixels import sides
from genzoo.data.source import Source, Spec
from genzoo.families import token_prior
from genzoo.nets.autoencoder.convnet import ConvSettings
from genzoo.nets.autoencoder.dalle import DalleSettings
from genzoo.nets.autoencoder.hierarchy import HierarchySettings
from genzoo.nets.autoencoder.pair import MLPSettings
from genzoo.nets.point_mlp import PointMLPSettings
from genzoo.nets.transformer.transformer import TransformerSettings
from genzoo.nets.unet.classifier import ClassifierUNetSettings
from genzoo.nets.unet.song_unet import SongUNetSettings
from genzoo.nets.unet.unet import UNetSettings
from genzoo.nets.unet.vdm_unet import VDMUNetSettings
from genzoo.settings import (
    SECTIONS,
    ContinuousSampling,
    DataSettings,
    DecoderSampling,
    DiffusionSampling,
    DiffusionScoring,
    FlowScoring,
    ImportanceScoring,
    TimeScoring,
    TokenSampling,
)
from genzoo.train import optimizer as optimizers
from genzoo.train.averages import Average

DATA: Mapping[str, DataRow] = {
    "fashion_mini": DataRow(
        open=lambda split, dir: embedded.open_fashion_mini(split), spec=idx.FASHION_SPEC
    ),
    "cifar10": DataRow(open=cifar.open_cifar10, spec=cifar.SPEC),
    "mnist": DataRow(open=idx.open_mnist, spec=idx.MNIST_SPEC),
    "fashion_mnist": DataRow(open=idx.open_fashion_mnist, spec=idx.FASHION_SPEC),
    "swissroll": DataRow(
        open=lambda split, dir: toys.open_swissroll(split), spec=toys.SWISSROLL_SPEC
    ),
    "mixture": DataRow(open=lambda split, dir: toys.open_mixture(split), spec=toys.MIXTURE_SPEC),
    "waves": DataRow(open=lambda split, dir: toys.open_waves(split), spec=toys.WAVES_SPEC),
}

NETWORKS: Mapping[str, NetworkRow] = {
    "unet": NetworkRow(settings=UNetSettings, kinds=(Image, Signal)),
    "song_unet": NetworkRow(settings=SongUNetSettings, kinds=(Image, Signal)),
    "vdm_unet": NetworkRow(settings=VDMUNetSettings),
    "point_mlp": NetworkRow(settings=PointMLPSettings, kinds=(Points,)),
    "classifier": NetworkRow(settings=ClassifierUNetSettings),
    "mlp": NetworkRow(settings=MLPSettings),
    "conv": NetworkRow(settings=ConvSettings),
    "hierarchy": NetworkRow(settings=HierarchySettings),
    "dalle": NetworkRow(settings=DalleSettings),
    "transformer": NetworkRow(settings=TransformerSettings),
}

_DENOISERS = ("unet", "song_unet", "vdm_unet")
_OF_ANYTHING = (*_DENOISERS, "point_mlp")
_ANYTHING = (Image, Signal, Points)

FAMILIES: Mapping[str, FamilyRow] = {
    "ddpm": FamilyRow(
        settings=DDPMSettings,
        networks=_DENOISERS,
        sampling=DiffusionSampling,
        scoring=DiffusionScoring,
    ),
    "score_sde": FamilyRow(
        build=continuous.score_sde,
        problems=continuous.score_sde_problems,
        networks=_OF_ANYTHING,
        kinds=_ANYTHING,
        sampling=ContinuousSampling,
        scoring=FlowScoring,
    ),
    "edm": FamilyRow(
        build=continuous.edm,
        problems=continuous.edm_problems,
        networks=_OF_ANYTHING,
        kinds=_ANYTHING,
        sampling=ContinuousSampling,
        scoring=FlowScoring,
    ),
    "flow_matching": FamilyRow(
        build=continuous.flow_matching,
        problems=continuous.flow_matching_problems,
        networks=_OF_ANYTHING,
        kinds=_ANYTHING,
        sampling=ContinuousSampling,
        scoring=FlowScoring,
    ),
    "vdm": FamilyRow(
        build=continuous.variational,
        problems=continuous.variational_problems,
        networks=_OF_ANYTHING,
        kinds=_ANYTHING,
        sampling=ContinuousSampling,
        scoring=TimeScoring,
    ),
    "classifier": FamilyRow(
        build=continuous.classifier,
        problems=continuous.classifier_problems,
        networks=("classifier",),
        instead={"sample": "A classifier guides the sampling of others: sample.classifier."},
        labelled=True,
    ),
    "pca": FamilyRow(
        build=autoencoders.pca, problems=autoencoders.pca_problems, networks=()
    ),
    "autoencoder": FamilyRow(
        build=autoencoders.autoencoder,
        problems=autoencoders.autoencoder_problems,
        networks=("mlp", "conv"),
        instead={"sample": "A plain autoencoder has no distribution over its codes: see vae."},
    ),
    "vae": FamilyRow(
        build=autoencoders.vae,
        problems=autoencoders.vae_problems,
        networks=("mlp", "conv"),
        sampling=DecoderSampling,
        scoring=ImportanceScoring,
    ),
    "vqvae": FamilyRow(
        build=codes.vqvae,
        problems=codes.vqvae_problems,
        networks=("hierarchy",),
        instead={"sample": codes.TRAIN_A_PRIOR},
    ),
    "dvae": FamilyRow(
        build=codes.dvae,
        problems=codes.dvae_problems,
        networks=("dalle",),
        instead={"sample": codes.TRAIN_A_PRIOR},
    ),
    "token_prior": FamilyRow(
        build=codes.token_prior,
        problems=codes.token_prior_problems,
        networks=("transformer",),
        sampling=TokenSampling,
        first_stages={token_prior.TOKENIZER: "tokenize"},
    ),
}

DECAYS = {
    "constant": optimizers.constant,
    "linear": optimizers.linear,
    "cosine": optimizers.cosine,
    "stages": optimizers.stages,
}


# --- data -----------------------------------------------------------------------------------------


def open_source(data: DataSettings, split: str) -> Source:
    """The data set's split; reads, and where needed fetches, its files."""
    kind, _, rest = data.name.partition(":")
    fit = {"size": data.size, "channels": data.channels, "resize": data.resize}
    if kind == "folder":
        own = {"labels": data.labels, "holdout": data.holdout}
        return folder.open_folder(rest, split=split, **fit, **own)
    if kind == "tfds":
        return tfds.open_tfds(rest, split, directory=data.dir, **fit)
    return DATA[data.name].open(split, data.dir)


def spec(data: DataSettings) -> Spec:
    """What the records hold, without opening the data. Of folders and TFDS sets a class is known
    of only where data.num_classes says so."""
    if row := DATA.get(data.name):
        return row.spec
    fields: dict[str, Field] = {
        "x": Image(shape=(*sides(data.size), data.channels), resize=data.resize)
    }
    if data.num_classes:
        fields["label"] = numbered(data.num_classes)
    return Spec(fields=fields)


def example_shape(data: DataSettings) -> tuple[int, ...]:
    """The shape of one datum, without opening the data."""
    return spec(data).shape


def class_count(data: DataSettings) -> int:
    """How many classes the data has, by names alone: no image is read."""
    row = DATA.get(data.name)
    if row:
        return len(row.spec.classes)
    if data.num_classes:
        return data.num_classes
    kind, _, rest = data.name.partition(":")
    if kind == "folder":
        return len(folder.class_names(rest, labels=data.labels))
    return len(tfds.class_names(rest, data.dir))


def settled(config: FrozenConfigDict) -> FrozenConfigDict:
    """The config with the number of classes in it where the model depends on it, so that the model
    can be built again without the data. Raises UserError where the data has no classes."""
    data, labelled = section(config, "data"), FAMILIES[config.family.name].labelled
    if not (labelled or config.family.get("conditional")):
        return config
    count = class_count(data)
    if not count:
        asked = "family.conditional = True" if not labelled else "A classifier learns from labels"
        remedy = "take other data" if labelled else "set it to False"
        raise UserError(
            f"{asked}, but {data.name} has no classes: {remedy}, or sort the images into one "
            "folder per class."
        )
    if data.name in DATA or data.num_classes:
        return config
    return freeze(config.to_dict() | {"data": {**config.data, "num_classes": count}})


# --- building -------------------------------------------------------------------------------------


def section(config: FrozenConfigDict, name: str):
    """A section that is the same in every config, as its dataclass; without the family's own keys,
    where it has some there."""
    return _chosen(SECTIONS[name], config[name])


def _chosen(settings: type, values: Mapping):
    return settings(**{k: values[k] for k in settings.__dataclass_fields__})


def sampling(config: FrozenConfigDict):
    """The family's own keys of the section `sample`, as their dataclass."""
    return _chosen(FAMILIES[config.family.name].sampling, config.sample)


def family(config: FrozenConfigDict) -> Family:
    """The family that the config describes."""
    data, row = section(config, "data"), FAMILIES[config.family.name]
    own = config.family
    x = spec(data).fields["x"]
    parts = Parts(
        shape=x.shape,
        levels=x.levels > 0,
        num_classes=class_count(data) if row.labelled or own.get("conditional") else 0,
        network=_network(config).build if row.networks else None,
        sample=sampling(config),
        eval=_chosen(row.scoring, config.eval),
        frozen={name: family(stage.config) for name, stage in config.frozen.items()},
    )
    if row.settings:
        return _chosen(row.settings, config.family).build(parts)
    return row.build(parts=parts, **_own(config.family))


def _own(values: Mapping) -> dict:
    return {key: value for key, value in values.items() if key != "name"}


def _network(config: FrozenConfigDict):
    return _chosen(NETWORKS[config.network.name].settings, config.network)


def network_problems(config: FrozenConfigDict) -> list[str]:
    """What does not fit together in the section `network`, or with the data."""
    return _network(config).problems(example_shape(section(config, "data")))


def family_problems(config: FrozenConfigDict) -> list[str]:
    """What does not fit together in the section `family`, or with other sections."""
    row = FAMILIES[config.family.name]
    if row.settings:
        return _chosen(row.settings, config.family).problems(config)
    return row.problems(config)


def optimizer(config: FrozenConfigDict) -> optimizers.Optimizer:
    """The optimizer that the config describes."""
    own = dict(config.optimizer)
    decay = DECAYS[own.pop("decay")]
    return optimizers.Optimizer(decay=decay, total_steps=config.train.steps, **own)


def averages(config: FrozenConfigDict) -> dict[str, Average]:
    """The averages that the config names."""
    return {name: Average(**values) for name, values in config.train.averages.items()}
