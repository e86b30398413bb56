"""The tables of names: what "ddpm" or "unet" in a config means, and how to build it.

A new family is one row here; a network is one in `builders/networks.py`, a data set one in
`builders/datasets.py`, and a new schedule or sampler one in the tables of the other builders. The
keys of a section, with types and bounds, are the fields of a settings class, against which
`check.py` checks a config.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from ml_collections import FrozenConfigDict

from genzoo.builders import datasets, expectations, latent
from genzoo.builders.alignment import ALIGNING
from genzoo.builders.autoencoder import AutoencoderSettings
from genzoo.builders.cascade import STAGES as ENLARGING
from genzoo.builders.cascade import CascadeSampling, CascadeSettings
from genzoo.builders.classifier import ClassifierSettings
from genzoo.builders.conditions import ConditionSettings, sources
from genzoo.builders.contrastive import OBJECTIVES, ContrastiveSettings
from genzoo.builders.controlnet import STAGES as STEERED
from genzoo.builders.controlnet import ControlNetSettings, ControlSampling
from genzoo.builders.ddpm import DDPMSettings, DiffusionScoring
from genzoo.builders.denoising import FlowScoring
from genzoo.builders.dvae import DVAESettings
from genzoo.builders.edm import EDMSettings
from genzoo.builders.flow_matching import FlowMatchingSettings
from genzoo.builders.gan import GANSettings
from genzoo.builders.kl_autoencoder import KLAutoencoderSettings
from genzoo.builders.mae import MAESettings
from genzoo.builders.networks import NETWORKS
from genzoo.builders.pca import PCASettings
from genzoo.builders.rows import FamilyRow, Parts, Stage
from genzoo.builders.sampling import STEERING, ContinuousSampling, DiffusionSampling
from genzoo.builders.score_sde import ScoreSDESettings
from genzoo.builders.space import LATENT
from genzoo.builders.text_encoder import TextEncoderSettings
from genzoo.builders.token_prior import TokenPriorSettings, TokenSampling
from genzoo.builders.vae import DecoderSampling, ImportanceScoring, VAESettings
from genzoo.builders.vdm import TimeScoring, VDMSettings
from genzoo.builders.vqgan import VQGANSettings
from genzoo.builders.vqvae import VQVAESettings
from genzoo.config import freeze
from genzoo.core.contract import Family, Player, Tokenizes
from genzoo.core.errors import UserError
from genzoo.core.size import Size, nothing
from genzoo.data.counts import Counts
from genzoo.data.fields import Field, Image, Points, Signal
from genzoo.families import token_prior
from genzoo.settings import SECTIONS
from genzoo.systems.latent import FIRST
from genzoo.train.averages import Average
from genzoo.train.optimizer import Optimizer, for_players

_DENOISERS = ("unet", "song_unet", "vdm_unet", "dit", "jit", "mmdit")
_OF_ANYTHING = (*_DENOISERS, "point_mlp")
_ANYTHING = (Image, Signal, Points)

_TRAIN_A_PRIOR = (
    "Train a token_prior on its codes (see configs/prior_vqvae_fashion.py) and sample from that."
)
_DIFFUSION, _CODES = "Diffusion and flows", "Autoencoders"
_TOKENS = "Discrete codes and their priors"
_CONTINUOUS = dict(
    networks=_OF_ANYTHING,
    kinds=_ANYTHING,
    sampling=ContinuousSampling,
    stages={**STEERING, **ALIGNING},
    conditional=True,
    latent=True,
    room=_DIFFUSION,
)

FAMILIES: Mapping[str, FamilyRow] = {
    "ddpm": FamilyRow(
        settings=DDPMSettings,
        networks=_DENOISERS,
        conditional=True,
        latent=True,
        sampling=DiffusionSampling,
        stages={**STEERING, **ALIGNING},
        scoring=DiffusionScoring,
        room=_DIFFUSION,
        expect=expectations.DIFFUSION,
    ),
    "score_sde": FamilyRow(
        settings=ScoreSDESettings,
        scoring=FlowScoring,
        expect=expectations.DIFFUSION,
        **_CONTINUOUS,
    ),
    "edm": FamilyRow(
        settings=EDMSettings, scoring=FlowScoring, expect=expectations.EDM, **_CONTINUOUS
    ),
    "flow_matching": FamilyRow(
        settings=FlowMatchingSettings,
        scoring=FlowScoring,
        expect=expectations.FLOW_MATCHING,
        **_CONTINUOUS,
    ),
    "vdm": FamilyRow(
        settings=VDMSettings, scoring=TimeScoring, expect=expectations.VDM, **_CONTINUOUS
    ),
    "controlnet": FamilyRow(
        settings=ControlNetSettings,
        kinds=(Image, Signal),
        sampling=ControlSampling,
        stages=STEERED,
        conditional=True,
        room=_DIFFUSION,
        expect=expectations.CONTROLNET,
    ),
    "cascade": FamilyRow(
        settings=CascadeSettings,
        sampling=CascadeSampling,
        stages=ENLARGING,
        conditional=True,
        room=_DIFFUSION,
        expect=expectations.CASCADE,
        fitted=True,
    ),
    "classifier": FamilyRow(
        settings=ClassifierSettings,
        networks=("classifier", "vit"),
        instead={"sample": "A classifier guides the sampling of others: sample.classifier."},
        labelled=True,
        room="Classifiers",
        expect=expectations.CLASSIFIER,
    ),
    "pca": FamilyRow(
        settings=PCASettings,
        kinds=(Image, Counts),
        room=_CODES,
        expect=expectations.PCA,
        fitted=True,
    ),
    "autoencoder": FamilyRow(
        settings=AutoencoderSettings,
        networks=("mlp", "conv"),
        kinds=(Image, Counts),
        instead={"sample": "A plain autoencoder has no distribution over its codes: see vae."},
        room=_CODES,
        expect=expectations.AUTOENCODER,
    ),
    "mae": FamilyRow(
        settings=MAESettings,
        networks=("mae",),
        instead={"sample": "A masked autoencoder completes images: --mode=reconstruct."},
        room=_CODES,
        expect=expectations.MAE,
    ),
    "contrastive": FamilyRow(
        settings=ContrastiveSettings,
        networks=tuple(dict.fromkeys(name for fit in OBJECTIVES.values() for name in fit)),
        instead={"sample": "A contrastive encoder compares; it draws nothing."},
        room="Contrastive encoders",
        expect=expectations.CONTRASTIVE,
    ),
    "text_encoder": FamilyRow(
        settings=TextEncoderSettings,
        networks=("text_transformer", "word_table"),
        kinds=(Image, Signal),
        instead={
            "sample": "It encodes the captions of others: conditions.text.through = 'text_encoder'."
        },
        room="Text encoders",
        expect=expectations.TEXT_ENCODER,
        fitted=True,
        encodes="text",
    ),
    "vae": FamilyRow(
        settings=VAESettings,
        networks=("mlp", "conv"),
        kinds=(Image, Counts),
        sampling=DecoderSampling,
        scoring=ImportanceScoring,
        room=_CODES,
        expect=expectations.VAE,
    ),
    "kl_autoencoder": FamilyRow(
        settings=KLAutoencoderSettings,
        networks=("autoencoder_kl",),
        instead={"sample": "The distribution of its latents is not known: see vae."},
        room=_CODES,
        expect=expectations.KL_AUTOENCODER,
    ),
    "gan": FamilyRow(
        settings=GANSettings,
        networks=("r3gan",),
        conditional=True,
        room="Adversarial networks",
        expect=expectations.GAN,
    ),
    "vqvae": FamilyRow(
        settings=VQVAESettings,
        networks=("hierarchy",),
        instead={"sample": _TRAIN_A_PRIOR},
        room=_TOKENS,
        expect=expectations.VQVAE,
    ),
    "vqgan": FamilyRow(
        settings=VQGANSettings,
        networks=("vqgan",),
        instead={"sample": _TRAIN_A_PRIOR},
        room=_TOKENS,
        expect=expectations.VQGAN,
    ),
    "dvae": FamilyRow(
        settings=DVAESettings,
        networks=("dalle",),
        instead={"sample": _TRAIN_A_PRIOR},
        room=_TOKENS,
        expect=expectations.DVAE,
    ),
    "token_prior": FamilyRow(
        settings=TokenPriorSettings,
        conditional=True,
        networks=("transformer",),
        sampling=TokenSampling,
        room=_TOKENS,
        expect=expectations.TOKEN_PRIOR,
        stages={
            token_prior.TOKENIZER: Stage(
                capability=Tokenizes, called="a tokenizer of the same data"
            ),
        },
    ),
}


# --- facts about the data -------------------------------------------------------------------------


def labels(config: FrozenConfigDict) -> list[str]:
    """The names of the conditions that are made from the label."""
    return [name for name, source in sources(config.conditions).items() if source == "label"]


def settled(config: FrozenConfigDict) -> FrozenConfigDict:
    """The config with all facts about the data that the model depends on, so that the model can be
    rebuilt without the data. Raises UserError if the data lacks a field."""
    data, labelled = section(config, "data"), FAMILIES[config.family.name].labelled
    needs = {source: name for name, source in sources(config.conditions).items()}
    learned = getattr(family_settings(config), "fields", ())
    needed = [*needs, *(["label"] if labelled else []), *learned]
    filled, missing = datasets.with_facts(data, needed)
    problems = []
    for name in missing:
        need, remedy = "A classifier learns labels", "use other data"
        if name in learned:
            need = f"The family {config.family.name} learns the field {name}"
        if name in needs:
            need, remedy = f"conditions.{needs[name]} needs the field {name}", "leave it out"
        problems.append(datasets.lacks(data, name, need, remedy))
    if problems:
        raise UserError(*problems)
    if filled == data:
        return config
    facts = {key: getattr(filled, key) for key in datasets.FACTS}
    return freeze(config.to_dict() | {"data": {**config.data, **facts}})


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
    data, network = section(config, "data"), network_settings(config)
    labelled = FAMILIES[config.family.name].labelled
    classes = datasets.class_count(data) if labelled else 0
    parts = _parts(config, datasets.spec(data).fields, classes, network and network.build)
    return latent.built(family_settings(config), parts, section(config, "space"))


def modelled_shape(config: FrozenConfigDict) -> tuple[int, ...] | None:
    """The shape of a datum, or of a latent: None until the config of the first stage is known."""
    if config.space.name != LATENT:
        return datasets.spec(section(config, "data")).shape
    first = config.frozen[FIRST].config
    return family(first).latent_shape if first else None


def require_installed(config: FrozenConfigDict) -> None:
    """Raises UserError if training needs a package that is not installed."""
    settings = family_settings(config)
    if hasattr(settings, "require_installed"):
        settings.require_installed()


def size(config: FrozenConfigDict) -> Size:
    """Bounds on the size of the model, without building or tracing it. The data is not opened:
    what is unknown of its fields has made-up sizes. Raises UserError if the family cannot be built.
    """
    fields = datasets.possible_fields(section(config, "data"))
    network, sizes = network_settings(config), [nothing()]

    def measured(**arguments):
        sizes.append(network.size(parts.shape, **arguments))
        return network.build(**arguments)

    classes = fields["label"].count if "label" in fields else 0
    settings = family_settings(config)
    parts, standard = _parts(config, fields, classes, measured if network else None), 0
    if config.space.name == LATENT:
        parts = latent.inside(parts)
        standard = 2 * parts.shape[-1]  # the mean and scale of every channel
    settings.build(parts)
    whole = settings.size(sizes[-1], parts) if hasattr(settings, "size") else sizes[-1]
    return replace(whole, stats=whole.stats + standard)


def _parts(
    config: FrozenConfigDict, fields: Mapping[str, Field], classes: int, network: Callable | None
) -> Parts:
    x = fields["x"]
    return Parts(
        shape=x.shape,
        levels=x.levels > 0,
        classes=classes,
        fields=fields,
        conditions={k: ConditionSettings(**own) for k, own in config.conditions.items()},
        network=network,
        inner=getattr(network_settings(config), "inner", None),
        sample=sampling(config),
        eval=scoring(config),
        frozen={name: family(stage.config) for name, stage in config.frozen.items()},
    )


def optimizers(config: FrozenConfigDict, players: Mapping[str, Player]) -> dict[str, Optimizer]:
    """The optimizer of each player. Raises UserError if the config names an unknown player."""
    settings = section(config, "optimizer")
    return for_players(players, settings.build(config.train.steps), settings.own())


def averages(config: FrozenConfigDict) -> dict[str, Average]:
    """The averages of the config, by name."""
    return {name: Average(**values) for name, values in config.train.averages.items()}
