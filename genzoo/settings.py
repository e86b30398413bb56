"""The sections of a config whose keys are the same for every family, with bounds and defaults.

The settings of networks are defined beside the networks, those of families in `builders/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from genzoo.builders.conditions import ConditionSettings
from genzoo.builders.space import SpaceSettings
from genzoo.core.bounds import (
    AtLeast,
    AtMost,
    Between,
    Each,
    Entries,
    Limit,
    Numbers,
    OneOf,
    without_effect,
)
from genzoo.data.listing import HOLDOUT
from genzoo.evaluate.distances import problems as distance_problems
from genzoo.evaluate.neighbours import METRICS
from genzoo.evaluate.reconstructions import problems as reconstruction_problems
from genzoo.runtime.compilation import LEVELS
from genzoo.train import weights_and_biases
from genzoo.train.averages import Average
from genzoo.train.loop import LoopSettings
from genzoo.train.optimizer import OptimizerSettings
from genzoo.train.sharding import MeshSettings

RAW = "raw"  # the params themselves, as opposed to an average

Seed = Annotated[int, AtLeast(0), AtMost(2**63 - 1), "Determines all randomness."]
Weights = Annotated[str, "An average by name, or raw for the params themselves."]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The top-level keys, and the section `conditions`, whose keys the user names."""

    seed: Seed = 0
    conditions: Annotated[
        dict[str, ConditionSettings], "The conditions of the model besides x and t, by name."
    ] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The data set."""

    name: Annotated[
        str, "A data set by name, folder:PATH, signals:, documents: or latents:PATH, or tfds:NAME."
    ]
    dir: Annotated[str, "The folder of its files; empty to find or download them."] = ""
    flip: Annotated[bool, "Whether images are mirrored at random in training."] = False
    size: Annotated[
        int | tuple[int, ...],
        Numbers(Between(-(2**24), 2**24)),
        "Side of the images in pixels or (height, width), for folders and TFDS sets; 32 or 64 for "
        "shapes and emoji; for signals the number of samples.",
    ] = 0
    channels: Annotated[
        int,
        AtLeast(1),
        Limit(10_000),
        "Channels: 1 for grey or 3 for colour, for folders and TFDS sets; for signals any number.",
    ] = 3
    resize: Annotated[
        str, OneOf(("crop", "stretch")), "How images get this size, for folders and TFDS sets."
    ] = "crop"
    labels: Annotated[bool, "Whether sub-folders are classes, if metadata has no labels."] = True
    holdout: Annotated[
        int,
        AtLeast(2),
        Limit(10**9),
        "One in this many files of a folder is held out for the test split.",
    ] = HOLDOUT
    hold: Annotated[
        float,
        AtLeast(0),
        Limit(1e6),
        "GiB up to which the decoded records of a folder or TFDS set are held in memory; larger "
        "sets are read from their files, in the same order.",
    ] = 1.0
    num_classes: Annotated[
        int,
        AtLeast(0),
        Limit(100_000),
        "Number of classes of a folder or TFDS set; 0 counts them in the data.",
    ] = 0
    classes: Annotated[
        tuple[str, ...],
        Entries(0, 65_536),
        "Names of the classes of a folder, in order; empty to read them from it.",
    ] = ()
    tokenizer: Annotated[
        str,
        "How captions become tokens: words (see data.words), bytes, minilm or wordllama (the "
        "tokenizers of these text encoders), or the path of a tokenizer.json.",
    ] = "words"
    tokens: Annotated[
        int,
        AtLeast(0),
        Limit(100_000),
        "Tokens of a caption, beyond which it is truncated; 0 for those of the longest caption in "
        "the training set, at most 64.",
    ] = 0
    words: Annotated[
        tuple[str, ...],
        Entries(0, 65_536),
        "The vocabulary of captions or documents; empty to learn it from the training set.",
    ] = ()
    vocabulary: Annotated[
        int,
        AtLeast(1),
        Limit(65_536),
        "Number of words of documents that are counted: the most frequent ones.",
    ] = 2000
    columns: Annotated[
        tuple[tuple[str, float, float], ...],
        Entries(0, 10_000),
        Numbers(Between(-1e30, 1e30)),
        "(name, mean, standard deviation) of each numeric column; empty to compute them from the "
        "training set.",
    ] = ()


@dataclass(frozen=True, kw_only=True)
class TrainSettings(LoopSettings):
    """How the model is trained, for how long, and what is saved."""

    averages: Annotated[dict[str, Average], "Averages of the params over time, by name."]
    accumulate: Annotated[
        int,
        AtLeast(1),
        Limit(2**24),
        "Parts of a batch whose gradients are accumulated one by one.",
    ] = 1
    keep: Annotated[
        int, AtLeast(1), Limit(1_000_000), "Number of newest checkpoints kept."
    ] = 2
    keep_every: Annotated[
        int,
        AtLeast(0),
        Limit(2**31 - 1),
        "Steps between checkpoints that are kept permanently; 0 for none.",
    ] = 0
    restart: Annotated[
        bool,
        "Whether to start over at step 0 if the workdir holds checkpoints of which none is good; "
        "they are moved aside.",
    ] = False
    resume_from: Annotated[
        int,
        AtLeast(0),
        Limit(2**31 - 1),
        "Step of an earlier checkpoint to go back to; later ones are set aside. 0 for the newest.",
    ] = 0
    picture_first: Annotated[
        int,
        AtLeast(0),
        Limit(2**31 - 1),
        "Step of the first sample grid; 0 for only the last.",
    ] = 1000
    picture_count: Annotated[
        int, AtLeast(0), Limit(10_000), "Images in a grid; 0 for no grids."
    ] = 64
    wandb: Annotated[
        str,
        OneOf(weights_and_biases.MODES),
        "Whether metrics also go to Weights & Biases; offline for a later `wandb sync`.",
    ] = "off"
    wandb_project: Annotated[str, "The project there."] = "genzoo"


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """What --mode=sample draws."""

    count: Annotated[int, AtLeast(1), Limit(10**9), "Number of samples."] = 64
    batch_size: Annotated[int, AtLeast(1), Limit(2**24), "Samples drawn at a time."] = 64
    seed: Annotated[int, AtLeast(0), AtMost(2**63 - 1), "Sample i depends on it and on i."] = 0
    weights: Weights = RAW
    conditions: Annotated[
        dict,
        "Condition -> its value: a class by name or number, all for all classes in turn, a text, "
        "numbers, a file, or none if absent; samples cycle through a list of values or, if nothing "
        "is given, through the test records, or all classes if there are no other conditions.",
    ] = field(default_factory=dict)
    repeat: Annotated[
        int,
        AtLeast(1),
        Limit(10**9),
        "Samples of each condition, drawn in a row from different noise.",
    ] = 1
    npz: Annotated[bool, "Whether all samples are also written as one array file."] = False
    into: Annotated[
        str,
        "Name of the folder in samples/; empty for one made from the step and from the settings "
        "that differ from the run's own.",
    ] = ""


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """What --mode=eval scores."""

    split: Annotated[str, "Split of the data: train or test."] = "test"
    count: Annotated[
        int, AtLeast(0), Limit(10**9), "Number of examples; 0 for the whole split."
    ] = 0
    batch_size: Annotated[int, AtLeast(1), Limit(2**24), "Examples scored at a time."] = 128
    weights: Weights = RAW
    seed: Annotated[int, AtLeast(0), AtMost(2**63 - 1), "Seed of the draws for scoring."] = 0
    losses: Annotated[bool, "Whether the loss and the likelihood are computed."] = True
    reconstructions: Annotated[
        str,
        "Measures of reconstructions of eval.split, separated by commas: psnr, ssim, lpips, or "
        "rfd_NETWORK, such as rfd_fashion: see evaluate/reconstructions.py.",
    ] = ""
    distances: Annotated[
        str,
        "Distances between samples and data, separated by commas, each METRIC_NETWORK, such as "
        "fd_fashion: see evaluate/distances.py.",
    ] = ""
    features: Annotated[
        str, "File with the weights of the feature network inception, for fid."
    ] = ""
    resize: Annotated[
        str,
        OneOf(("", "legacy", "clean", "pytorch")),
        "How inception resizes images; empty for legacy, as FID is defined.",
    ] = ""
    reference: Annotated[
        str, "File of --mode=stats whose moments take the place of the training images'."
    ] = ""
    samples: Annotated[
        int, AtLeast(2), Limit(10**8), "Number of samples drawn to measure distances."
    ] = 2000
    steps: Annotated[
        tuple[int, ...],
        Entries(0, 64),
        Each(Between(1, 100_000)),
        "Numbers of sampling steps at which distances are measured; empty for sample.steps.",
    ] = ()
    guidance: Annotated[
        tuple[float, ...],
        Entries(0, 64),
        Each(Between(-1e4, 1e4)),
        "Guidance scales at which distances are measured; empty for sample.guidance_scale.",
    ] = ()
    classifier_scale: Annotated[
        tuple[float, ...],
        Entries(0, 64),
        Each(Between(-1e6, 1e6)),
        "Scales of sample.classifier at which distances are measured; empty for "
        "sample.classifier_scale.",
    ] = ()

    def problems(self) -> list[str]:
        """Names of unknown distances, and keys without effect."""
        named = reconstruction_problems(self.reconstructions)
        if not self.distances:
            why, remedy = "without eval.distances", "name one there, such as fd_fashion"
            keys = ("features", "resize", "reference", "samples", "steps", "guidance",
                    "classifier_scale")  # fmt: skip
            if self.reconstructions:
                keys = [key for key in keys if key not in ("features", "resize")]
            problems = without_effect(self, "eval", keys, why, remedy)
            if not (self.losses or self.reconstructions):
                problems.append(
                    "eval.losses = False leaves nothing to evaluate: name eval.distances."
                )
            return named + problems
        problems = named + distance_problems(self.distances)
        if self.guidance and self.classifier_scale:
            problems.append(
                "eval.guidance and eval.classifier_scale: measure over one of them at a time."
            )
        return problems


# The other keys of the sections `sample` and `eval` depend on the family: see `builders/`.


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No keys of its own."""


@dataclass(frozen=True, kw_only=True)
class FrozenSettings:
    """A model trained by another run that this one uses unchanged."""

    workdir: Annotated[str, "Workdir of that run."]
    weights: Weights = RAW
    config: Annotated[dict, "Config of that run, filled in from its workdir."] = field(
        default_factory=dict
    )


@dataclass(frozen=True, kw_only=True)
class StartSettings:
    """Another run whose params this one starts from."""

    workdir: Annotated[str, "Workdir of that run; empty to start from fresh params."] = ""
    weights: Weights = RAW
    partial: Annotated[
        bool, "Whether arrays whose shape differs there stay fresh; if not, they are an error."
    ] = False

    def problems(self) -> list[str]:
        """Keys without effect."""
        if self.workdir:
            return []
        why, remedy = "without start.workdir", "name the run to start from"
        return without_effect(self, "start", ("weights", "partial"), why, remedy)


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What --mode=bench times."""

    seconds: Annotated[
        float, AtLeast(0), Limit(1e6), "How long each program is timed."
    ] = 10.0
    sample_steps: Annotated[
        int, AtLeast(1), Limit(100_000), "Maximum number of sampling steps timed."
    ] = 10


@dataclass(frozen=True, kw_only=True)
class CompileSettings:
    """What --mode=compile compiles."""

    topology: Annotated[
        str, "Devices to compile for, such as v5e:4x4, v5p-64, 2xv5e-256, cpu:8, h200:4."
    ] = ""
    level: Annotated[str, OneOf(LEVELS), "Optimisation level."] = "O0"
    program: Annotated[
        str, OneOf(("train", "sample", "all")), "The programs to compile."
    ] = "all"
    suggest: Annotated[
        bool, "Whether a program that does not fit is compiled again with settings that may help."
    ] = True


@dataclass(frozen=True, kw_only=True)
class ToolSettings:
    """Settings of the modes that examine a representation."""

    first: Annotated[
        str,
        "An image file (for documents a .txt file or a sentence, for models of texts a text), or "
        "the number of an example in eval.split; empty for a default choice.",
    ] = ""
    second: Annotated[str, "The same for the other end of an interpolation."] = ""
    folder: Annotated[
        str, "A folder of images or documents to encode; empty for eval.split."
    ] = ""
    dataset: Annotated[str, "A new folder for the data, encoded to train on (latents:PATH)."] = ""
    metric: Annotated[str, OneOf(METRICS), "Distance between embeddings."] = "euclidean"
    neighbours: Annotated[int, AtLeast(1), Limit(100_000), "Number of neighbours to find."] = 8
    prompts: Annotated[
        tuple[str, ...],
        Entries(0, 65_536),
        "Different texts of which every image gets the nearest, for families that embed both.",
    ] = ()
    ranker: Annotated[
        str, "Workdir of the run that ranks samples, which embeds images and texts, such as CLIP."
    ] = ""
    ranker_weights: Weights = RAW
    probe_examples: Annotated[
        int, AtLeast(2), Limit(10**9), "Maximum number of training images for a probe."
    ] = 10_000
    probe_l2: Annotated[
        float, AtLeast(1e-9), Limit(1e9), "L2 penalty on the weights of a probe."
    ] = 1e-3


SECTIONS: Mapping[str, type] = {
    "data": DataSettings,
    "space": SpaceSettings,
    "optimizer": OptimizerSettings,
    "train": TrainSettings,
    "start": StartSettings,
    "sample": SampleSettings,
    "eval": EvalSettings,
    "mesh": MeshSettings,
    "bench": BenchSettings,
    "tools": ToolSettings,
    "compile": CompileSettings,
}
