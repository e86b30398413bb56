"""The sections of a config whose keys are the same for every family, with their defaults.

What may stand in the sections `family` and `network` is read off their builders in `build.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from genzoo.train.averages import Average
from genzoo.train.loop import LoopSettings
from genzoo.train.sharding import MeshSettings

RAW = "raw"  # the params themselves, beside the averages that a config names

@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """name: a row of DATA, `folder:PATH` or `tfds:NAME`. dir: where its files are, "" to look for
    them. flip: random mirroring in training. size, channels, resize: for folders and TFDS sets;
    size is one number or (height, width).
    labels, holdout: for folders, whether sub-folders are classes and one image in how many is held
    out for the test. num_classes: of folders and TFDS sets, 0 to ask the data."""

    name: str
    dir: str = ""
    flip: bool = False
    size: int | tuple[int, ...] = 0
    channels: int = 3
    resize: str = "crop"
    labels: bool = True
    holdout: int = 20
    num_classes: int = 0


OF_LOOSE_IMAGES = ("size", "channels", "resize", "labels", "holdout", "num_classes")
"""Keys of `data` that only folders and TFDS sets ask for; the others know their shape."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(LoopSettings):
    """averages: name -> Average. keep, keep_every: see Checkpoints. picture_first: the step of the
    first sample grid, 0 for none but the last; picture_count: images in it, 0 for no grids."""

    averages: dict[str, Average]
    accumulate: int = 1
    keep: int = 2
    keep_every: int = 0
    picture_first: int = 1000
    picture_count: int = 64


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """weights: an average's name or "raw". label: a class, -1 for all in turn. npz: also write all
    images as one array file. into: the name of the folder in samples/ that is written, "" for one
    made of the step and of what differs from the run's own settings."""

    count: int = 64
    batch_size: int = 64
    seed: int = 0
    weights: str = RAW
    label: int = -1
    npz: bool = False
    into: str = ""


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """count: examples, 0 for all of the split."""

    split: str = "test"
    count: int = 0
    batch_size: int = 128
    weights: str = RAW
    seed: int = 0


# What the sections `sample` and `eval` hold beside these depends on the family: one of each below.


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No keys of its own."""


@dataclass(frozen=True, kw_only=True)
class DiffusionSampling:
    """Of families that denoise. method, grid: names. steps: of the sampler, 0 for all of a table.

    eta: the noise of ddim. rho: of the grid karras. shift: of any grid towards the noise, 1 for
    none. churn, churn_low, churn_high, churn_noise: S_churn, S_min, S_max, S_noise of edm.
    corrector_snr: of predictor_corrector. tolerance: of rk45.
    guidance_scale: 1 is off. guidance_rescale: of Lin et al. 2023. guidance_low, guidance_high: the
    times between which there is guidance. guide, guide_weights: the workdir of a weaker model to
    lean away from. classifier, classifier_weights, classifier_scale: that of a noisy classifier.
    resample: how often a step is taken where a part of the data is known (RePaint). pictures:
    names, with commas, of what else to draw: see `--mode=sample` in the README.
    unroll: steps of the loop written out.
    """

    method: str = "ancestral"
    steps: int = 0
    grid: str = "uniform"
    eta: float = 0.0
    rho: float = 7.0
    shift: float = 1.0
    churn: float = 0.0
    churn_low: float = 0.0
    churn_high: float = 1e9
    churn_noise: float = 1.0
    corrector_snr: float = 0.16
    tolerance: float = 1e-5
    clip: str = "clip"
    guidance_scale: float = 1.0
    guidance_rescale: float = 0.0
    guidance_low: float = 0.0
    guidance_high: float = 1.0
    guide: str = ""
    guide_weights: str = RAW
    classifier: str = ""
    classifier_weights: str = RAW
    classifier_scale: float = 1.0
    resample: int = 1
    pictures: str = ""
    unroll: int = 1


@dataclass(frozen=True, kw_only=True)
class ContinuousSampling(DiffusionSampling):
    """The same for families of continuous time, with the defaults of EDM."""

    method: str = "heun"
    steps: int = 18
    grid: str = "karras"
    clip: str = "none"


@dataclass(frozen=True, kw_only=True)
class FlowScoring:
    """Of the likelihood by the probability flow. trace: of the Jacobian, hutchinson (one random
    probe each time) or exact (as many products as dimensions). probes: averaged, of hutchinson.
    tolerance: of the adaptive solver."""

    trace: str = "hutchinson"
    probes: int = 1
    tolerance: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class TimeScoring:
    """draws: times per example over which the diffusion loss is averaged, spread evenly."""

    draws: int = 16


@dataclass(frozen=True, kw_only=True)
class DiffusionScoring:
    """bound_steps: steps of the variational bound per example, drawn one from each of so many
    strata; 0 for every step."""

    bound_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class DecoderSampling:
    """noise: whether pixels are drawn from the decoder's distribution; else its mean is shown."""

    noise: bool = False


@dataclass(frozen=True, kw_only=True)
class ImportanceScoring:
    """importance_samples: K of the importance-weighted bound, 1 for the ELBO."""

    importance_samples: int = 1


@dataclass(frozen=True, kw_only=True)
class TokenSampling:
    """temperature: 0 is greedy. top_k: how many of the likeliest codes are kept, 0 for all. top_p:
    the mass of the likeliest codes that is kept, 1 for all."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """A model that another run has trained and that this one uses as it is. workdir: of that run.
    weights: an average's name or "raw". config: that run's, filled in from its workdir."""

    workdir: str
    weights: str = RAW
    config: dict = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """seconds: how long each program is timed. sample_steps: sampling steps that are timed."""

    seconds: float = 10.0
    sample_steps: int = 10


@dataclass(frozen=True, kw_only=True)
class CompileSettings:
    """topology: what to compile for, such as v5e:4x4, v5p-64, 2xv5e-256, cpu:8, h200:4. level: of
    optimisation, O0 to O3 or default. program: train, sample or all. suggest: whether a program
    that does not fit is compiled again with what might make it fit."""

    topology: str = ""
    level: str = "O0"
    program: str = "all"
    suggest: bool = True


@dataclass(frozen=True, kw_only=True)
class ToolSettings:
    """Of the modes that look into a representation. first, second: image files to start from, or
    two examples of eval.split by number to interpolate between; folder: of images to encode; "" for
    a choice from eval.split. metric: euclidean or cosine.
    neighbours: how many are looked for. probe_examples: training images that a probe learns from at
    most; probe_l2: the penalty on its weights."""

    first: str = ""
    second: str = ""
    folder: str = ""
    metric: str = "euclidean"
    neighbours: int = 8
    probe_examples: int = 10_000
    probe_l2: float = 1e-3


SECTIONS: Mapping[str, type] = {
    "data": DataSettings,
    "train": TrainSettings,
    "sample": SampleSettings,
    "eval": EvalSettings,
    "mesh": MeshSettings,
    "bench": BenchSettings,
    "tools": ToolSettings,
    "compile": CompileSettings,
}
