"""The sections of a config whose keys are the same for every family: bounds, defaults, meaning.

The settings of networks stand beside what they build, those of families in `builders/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from genzoo.builders.conditions import ConditionSettings
from genzoo.core.bounds import AtLeast, AtMost, OneOf, without_effect
from genzoo.evaluate.neighbours import METRICS
from genzoo.runtime.compilation import LEVELS
from genzoo.train.averages import Average
from genzoo.train.loop import LoopSettings
from genzoo.train.optimizer import OptimizerSettings
from genzoo.train.sharding import MeshSettings

RAW = "raw"  # the params themselves, beside the averages that a config names

Seed = Annotated[int, AtLeast(0), AtMost(2**63 - 1), "All randomness follows from it."]
Weights = Annotated[str, "An average by name, or raw for the params themselves."]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What stands in no section of its own keys."""

    seed: Seed = 0
    conditions: Annotated[
        dict[str, ConditionSettings], "What the model is told besides x and t, by name."
    ] = field(default_factory=dict)


_OF_FOLDERS = ("labels", "holdout")
OF_LOOSE_IMAGES = ("size", "channels", "resize", "num_classes", *_OF_FOLDERS)
"""Keys of `data` that only folders and TFDS sets ask for; the others know their shape."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The data set."""

    name: Annotated[str, "A data set by name, folder:PATH or tfds:NAME."]
    dir: Annotated[str, "Where its files are; nothing to look for them, or to fetch them."] = ""
    flip: Annotated[bool, "Whether images are mirrored at random in training."] = False
    size: Annotated[
        int | tuple[int, ...], "Side in pixels or (height, width), of folders and TFDS sets."
    ] = 0
    channels: Annotated[
        int, OneOf((1, 3)), "1 is grey, 3 is colour, of folders and TFDS sets."
    ] = 3
    resize: Annotated[
        str, OneOf(("crop", "stretch")), "How images get that shape, of folders and TFDS sets."
    ] = "crop"
    labels: Annotated[bool, "Whether the sub-folders of a folder are classes."] = True
    holdout: Annotated[int, AtLeast(2), "One image of a folder in so many is for the test."] = 20
    num_classes: Annotated[
        int, AtLeast(0), "Of folders and TFDS sets; 0 counts them in the data."
    ] = 0

    def problems(self) -> list[str]:
        """Which keys this data set does not use."""
        kind, colon, _ = self.name.partition(":")
        known_shape, of_folder = not colon, kind == "folder"
        keys = OF_LOOSE_IMAGES if known_shape else () if of_folder else _OF_FOLDERS
        why, remedy = f"with data.name = {self.name!r}", "take a folder:PATH or a tfds:NAME"
        if not known_shape:
            remedy = "take a folder:PATH"
        return without_effect(self, "data", keys, why, remedy)


@dataclass(frozen=True, kw_only=True)
class TrainSettings(LoopSettings):
    """How long and how the model is trained, and what is kept of it."""

    averages: Annotated[dict[str, Average], "Averages of the params over time, by name."]
    accumulate: Annotated[int, AtLeast(1), "Parts that a batch is taken in, one by one."] = 1
    keep: Annotated[int, AtLeast(1), "Newest checkpoints that are kept."] = 2
    keep_every: Annotated[
        int, AtLeast(0), "Steps between checkpoints that are kept for good; 0 for none."
    ] = 0
    picture_first: Annotated[
        int, AtLeast(0), "Step of the first sample grid; 0 for none but the last."
    ] = 1000
    picture_count: Annotated[int, AtLeast(0), "Images of a grid; 0 for no grids."] = 64


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """What is drawn by --mode=sample."""

    count: Annotated[int, AtLeast(1), "Samples."] = 64
    batch_size: Annotated[int, AtLeast(1), "Samples drawn at a time."] = 64
    seed: Annotated[int, AtLeast(0), AtMost(2**63 - 1), "Sample i follows from it and i."] = 0
    weights: Weights = RAW
    conditions: Annotated[
        dict,
        "Condition -> its value: a class or its name, numbers, a file, or none for its absence; "
        "those left out are all classes in turn, or of test records in turn.",
    ] = field(default_factory=dict)
    npz: Annotated[bool, "Whether all samples are also written as one array file."] = False
    into: Annotated[
        str,
        "Name of the folder in samples/ that is written; empty for one made of the step and of "
        "what differs from the run's own settings.",
    ] = ""


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """What --mode=eval scores."""

    split: Annotated[str, "Of the data: train or test."] = "test"
    count: Annotated[int, AtLeast(0), "Examples; 0 for all of the split."] = 0
    batch_size: Annotated[int, AtLeast(1), "Examples scored at a time."] = 128
    weights: Weights = RAW
    seed: Annotated[int, AtLeast(0), AtMost(2**63 - 1), "Of what is drawn to score."] = 0


# What the sections `sample` and `eval` hold beside these depends on the family: see `builders/`.


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No keys of its own."""


@dataclass(frozen=True, kw_only=True)
class FrozenSettings:
    """A model that another run has trained and that this one uses as it is."""

    workdir: Annotated[str, "Of that run."]
    weights: Weights = RAW
    config: Annotated[dict, "That run's; filled in from its workdir."] = field(
        default_factory=dict
    )


@dataclass(frozen=True, kw_only=True)
class StartSettings:
    """Another run whose params this one starts from."""

    workdir: Annotated[str, "Of that run; empty to start from fresh params."] = ""
    weights: Weights = RAW
    partial: Annotated[
        bool, "Whether arrays of another shape there are drawn anew; else they are an error."
    ] = False

    def problems(self) -> list[str]:
        """Which keys have no effect."""
        if self.workdir:
            return []
        why, remedy = "without start.workdir", "name the run to start from"
        return without_effect(self, "start", ("weights", "partial"), why, remedy)


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What --mode=bench times."""

    seconds: Annotated[float, AtLeast(0), "How long each program is timed."] = 10.0
    sample_steps: Annotated[int, AtLeast(1), "Sampling steps that are timed, at most."] = 10


@dataclass(frozen=True, kw_only=True)
class CompileSettings:
    """What --mode=compile compiles."""

    topology: Annotated[
        str, "What to compile for, such as v5e:4x4, v5p-64, 2xv5e-256, cpu:8, h200:4."
    ] = ""
    level: Annotated[str, OneOf(LEVELS), "Of optimisation."] = "O0"
    program: Annotated[str, OneOf(("train", "sample", "all")), "Which programs."] = "all"
    suggest: Annotated[
        bool, "Whether what does not fit is compiled again with what might make it fit."
    ] = True


@dataclass(frozen=True, kw_only=True)
class ToolSettings:
    """Of the modes that look into a representation."""

    first: Annotated[
        str, "An image file, or the number of an example of eval.split; nothing for a choice."
    ] = ""
    second: Annotated[str, "The same, of the other end of an interpolation."] = ""
    folder: Annotated[str, "Images to encode; nothing for eval.split."] = ""
    metric: Annotated[str, OneOf(METRICS), "Of distances between embeddings."] = "euclidean"
    neighbours: Annotated[int, AtLeast(1), "How many are looked for."] = 8
    probe_examples: Annotated[
        int, AtLeast(2), "Training images that a probe learns from, at most."
    ] = 10_000
    probe_l2: Annotated[float, AtLeast(1e-9), "Penalty on the weights of a probe."] = 1e-3


SECTIONS: Mapping[str, type] = {
    "data": DataSettings,
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
