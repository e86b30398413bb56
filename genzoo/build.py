"""The tables of names: what "ddpm", "unet" or "cifar10" in a config means, and how to build it.

A new family or network is one row here; a new schedule or sampler is one row in the tables of the
builders. The keys of a section, with types and bounds, are the fields of a settings class, against
which `check.py` checks a config.
"""

from collections.abc import Mapping

from ml_collections import FrozenConfigDict

from genzoo.builders.autoencoder import AutoencoderSettings
from genzoo.builders.classifier import ClassifierSettings
from genzoo.builders.conditions import ConditionSettings, sources
from genzoo.builders.ddpm import DDPMSettings, DiffusionScoring
from genzoo.builders.denoising import FlowScoring
from genzoo.builders.dvae import DVAESettings
from genzoo.builders.edm import EDMSettings
from genzoo.builders.flow_matching import FlowMatchingSettings
from genzoo.builders.pca import PCASettings
from genzoo.builders.rows import DataRow, FamilyRow, NetworkRow, Parts, Stage
from genzoo.builders.sampling import STEERING, ContinuousSampling, DiffusionSampling
from genzoo.builders.score_sde import ScoreSDESettings
from genzoo.builders.token_prior import TokenPriorSettings, TokenSampling
from genzoo.builders.vae import DecoderSampling, ImportanceScoring, VAESettings
from genzoo.builders.vdm import TimeScoring, VDMSettings
from genzoo.builders.vqvae import VQVAESettings
from genzoo.config import freeze
from genzoo.core.contract import Family, Player, Tokenizes
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
from genzoo.settings import SECTIONS, DataSettings
from genzoo.train.averages import Average
from genzoo.train.optimizer import Optimizer, for_players

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

_TRAIN_A_PRIOR = (
    "Train a token_prior on its codes (see configs/prior_vqvae_fashion.py) and sample from that."
)
_CONTINUOUS = dict(
    networks=_OF_ANYTHING,
    kinds=_ANYTHING,
    sampling=ContinuousSampling,
    stages=STEERING,
    conditional=True,
)

FAMILIES: Mapping[str, FamilyRow] = {
    "ddpm": FamilyRow(
        settings=DDPMSettings,
        networks=_DENOISERS,
        conditional=True,
        sampling=DiffusionSampling,
        stages=STEERING,
        scoring=DiffusionScoring,
    ),
    "score_sde": FamilyRow(settings=ScoreSDESettings, scoring=FlowScoring, **_CONTINUOUS),
    "edm": FamilyRow(settings=EDMSettings, scoring=FlowScoring, **_CONTINUOUS),
    "flow_matching": FamilyRow(settings=FlowMatchingSettings, scoring=FlowScoring, **_CONTINUOUS),
    "vdm": FamilyRow(settings=VDMSettings, scoring=TimeScoring, **_CONTINUOUS),
    "classifier": FamilyRow(
        settings=ClassifierSettings,
        networks=("classifier",),
        instead={"sample": "A classifier guides the sampling of others: sample.classifier."},
        labelled=True,
    ),
    "pca": FamilyRow(settings=PCASettings),
    "autoencoder": FamilyRow(
        settings=AutoencoderSettings,
        networks=("mlp", "conv"),
        instead={"sample": "A plain autoencoder has no distribution over its codes: see vae."},
    ),
    "vae": FamilyRow(
        settings=VAESettings,
        networks=("mlp", "conv"),
        sampling=DecoderSampling,
        scoring=ImportanceScoring,
    ),
    "vqvae": FamilyRow(
        settings=VQVAESettings, networks=("hierarchy",), instead={"sample": _TRAIN_A_PRIOR}
    ),
    "dvae": FamilyRow(
        settings=DVAESettings, networks=("dalle",), instead={"sample": _TRAIN_A_PRIOR}
    ),
    "token_prior": FamilyRow(
        settings=TokenPriorSettings,
        conditional=True,
        networks=("transformer",),
        sampling=TokenSampling,
        stages={
            token_prior.TOKENIZER: Stage(
                capability=Tokenizes, called="a tokenizer of the same data"
            ),
        },
    ),
}


# --- data -----------------------------------------------------------------------------------------


def open_source(data: DataSettings, split: str) -> Source:
    """A split of the data set. Reads its files, and downloads them if needed."""
    kind, _, rest = data.name.partition(":")
    fit = {"size": data.size, "channels": data.channels, "resize": data.resize}
    if kind == "folder":
        own = {"labels": data.labels, "holdout": data.holdout}
        return folder.open_folder(rest, split=split, **fit, **own)
    if kind == "tfds":
        return tfds.open_tfds(rest, split, directory=data.dir, **fit)
    return DATA[data.name].open(split, data.dir)


def spec(data: DataSettings) -> Spec:
    """The fields of the records, without opening the data. A folder or a TFDS set has a label here
    only if data.num_classes is set."""
    if row := DATA.get(data.name):
        return row.spec
    fields: dict[str, Field] = {
        "x": Image(shape=(*sides(data.size), data.channels), resize=data.resize)
    }
    if data.num_classes:
        fields["label"] = numbered(data.num_classes)
    return Spec(fields=fields)


def possible_fields(data: DataSettings) -> Mapping[str, Field]:
    """The fields that the data may have, before it is opened: a folder or a TFDS set may have
    classes."""
    known = dict(spec(data).fields)
    if ":" in data.name:
        known.setdefault("label", numbered(1))
    return known


def example_shape(data: DataSettings) -> tuple[int, ...]:
    """The shape of one datum, without opening the data."""
    return spec(data).shape


def class_count(data: DataSettings) -> int:
    """The number of classes in the data, from their names; no image is read."""
    row = DATA.get(data.name)
    if row:
        return len(row.spec.classes)
    if data.num_classes:
        return data.num_classes
    kind, _, rest = data.name.partition(":")
    if kind == "folder":
        return len(folder.class_names(rest, labels=data.labels))
    return len(tfds.class_names(rest, data.dir))


def labels(config: FrozenConfigDict) -> list[str]:
    """The names of the conditions that are made from the label."""
    return [name for name, source in sources(config.conditions).items() if source == "label"]


def settled(config: FrozenConfigDict) -> FrozenConfigDict:
    """The config with the number of classes filled in if the model depends on it, so that the model
    can be rebuilt without the data. Raises UserError if the data has no classes."""
    data, labelled = section(config, "data"), FAMILIES[config.family.name].labelled
    classes = labels(config)
    if not (labelled or classes):
        return config
    count = class_count(data)
    if not count:
        need = "A classifier learns labels" if labelled else f"conditions.{classes[0]} is a class"
        remedy = "use other data" if labelled else "leave it out"
        raise UserError(
            f"{need}, but {data.name} has no classes: {remedy}, or sort the images into one "
            "folder per class."
        )
    if data.name in DATA or data.num_classes:
        return config
    return freeze(config.to_dict() | {"data": {**config.data, "num_classes": count}})


# --- building -------------------------------------------------------------------------------------


def section(config: FrozenConfigDict, name: str):
    """A section that every config has, as its dataclass, without the family's own keys."""
    return _instance(SECTIONS[name], config[name])


def _instance(settings: type, values: Mapping):
    return settings(**{k: values[k] for k in settings.__dataclass_fields__})


def sampling(config: FrozenConfigDict):
    """The family's own keys in the section `sample`, as their dataclass."""
    return _instance(FAMILIES[config.family.name].sampling, config.sample)


def scoring(config: FrozenConfigDict):
    """The family's own keys in the section `eval`, as their dataclass."""
    return _instance(FAMILIES[config.family.name].scoring, config.eval)


def family_settings(config: FrozenConfigDict):
    """The section `family`, as its dataclass."""
    return _instance(FAMILIES[config.family.name].settings, config.family)


def network_settings(config: FrozenConfigDict):
    """The section `network`, as its dataclass; None for a family without a network."""
    if not FAMILIES[config.family.name].networks:
        return None
    return _instance(NETWORKS[config.network.name].settings, config.network)


def family(config: FrozenConfigDict) -> Family:
    """The model family of the config."""
    data, row = section(config, "data"), FAMILIES[config.family.name]
    x, network = spec(data).fields["x"], network_settings(config)
    parts = Parts(
        shape=x.shape,
        levels=x.levels > 0,
        classes=class_count(data) if row.labelled else 0,
        fields=spec(data).fields,
        conditions={k: ConditionSettings(**own) for k, own in config.conditions.items()},
        network=network.build if network else None,
        sample=sampling(config),
        eval=scoring(config),
        frozen={name: family(stage.config) for name, stage in config.frozen.items()},
    )
    return family_settings(config).build(parts)


def optimizers(
    config: FrozenConfigDict, players: Mapping[str, Player]
) -> dict[str, Optimizer]:
    """The optimizer of each player. Raises UserError if the config names an unknown player."""
    settings = section(config, "optimizer")
    return for_players(players, settings.build(config.train.steps), settings.own())


def averages(config: FrozenConfigDict) -> dict[str, Average]:
    """The averages of the config, by name."""
    return {name: Average(**values) for name, values in config.train.averages.items()}
