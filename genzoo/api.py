"""The same runs from Python and notebooks: what the command line does, with arrays in and out.

    run = genzoo.open("runs/fashion")
    images = run.sample(16, seed=0, label="sneaker", steps=20)      uint8 [16, H, W, C]

A call makes the config that the command line would make of the same keys, so that checks, sentences
(as `UserError`) and numbers are the same, bit for bit. Nothing is written but by `fit`.
"""

import base64
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict
from PIL.Image import Image as Picture

from genzoo import config as configs
from genzoo.core import streams, tree
from genzoo.core.contract import Family, Solves, Variables, conditions_of
from genzoo.core.errors import UserError
from genzoo.core.types import Array, Batch, Tree
from genzoo.data.pixels import BadImage
from genzoo.data.source import ArraySource, Spec
from genzoo.evaluate import figures
from genzoo.experiment import Experiment, require, variables_of
from genzoo.math import paths
from genzoo.modes import train as training
from genzoo.modes.encode import FILES, Trained
from genzoo.modes.reconstruct import reconstructed
from genzoo.modes.sample import draw
from genzoo.requests import Requests
from genzoo.resolve import resolved
from genzoo.runs import for_sampling
from genzoo.runtime.compilation import Program
from genzoo.samplers.predictor import Prediction
from genzoo.train.state import TrainState
from genzoo.workdir import Workdir

Pictures = np.ndarray | Picture | Sequence[Picture | np.ndarray]
"""Images: uint8 [N, H, W, C], one image, or a list of arrays or PIL images of any size."""
_PATHS = {"linear": paths.lerp, "spherical": paths.slerp}


def read_config(path: str, changes: Mapping[str, object] | None = None) -> FrozenConfigDict:
    """The config that `--config=PATH` makes with these changes, {"train.steps": 100}; checked, and
    every default in place. Raises UserError."""
    return resolved(configs.override(configs.load(path), changes or {}))


def fit(config: FrozenConfigDict, workdir: str | Path) -> "Run":
    """Trains to train.steps, or goes on with what the workdir holds, as --mode=train does; the run,
    open. Raises UserError."""
    training.train(resolved(config.to_dict(), Path(workdir)), Path(workdir))
    return open(workdir)


def open(workdir: str | Path, changes: Mapping[str, object] | None = None) -> "Run":
    """The run in a workdir, as its newest checkpoint has it. changes: keys of its config, such as
    {"sample.steps": 50, "eval.weights": "raw"}. Raises UserError where there is none."""
    place = Workdir(Path(workdir))
    stored = place.config()
    if stored is None:
        raise UserError(f"--workdir={workdir} holds no run (there is no config.json).")
    raw = configs.override(stored, changes or {})
    run = Run(place=place, raw=raw, config=resolved(raw, place.path))
    run.state  # noqa: B018  (that it can be read is said here, not later)
    return run


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A trained model. config: resolved. Made by `open` and `fit`."""

    place: Workdir
    raw: Mapping
    config: FrozenConfigDict
    _programs: dict = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"Run({str(self.place.path)!r}, {self.config.family.name}, step {self.step})"

    @cached_property
    def _experiment(self) -> Experiment:
        return Experiment(self.config)

    @cached_property
    def state(self) -> TrainState:
        """What the newest good checkpoint holds."""
        return self.place.load(self.config, self._experiment.abstract_state)

    @property
    def family(self) -> Family:
        """The model family."""
        return self._experiment.family

    @property
    def step(self) -> int:
        """Steps that it was trained."""
        return int(self.state.step)

    @property
    def variables(self) -> Variables:
        """Params, stats and frozen models; the params those of sample.weights."""
        return variables_of(self.state, self.config.sample.weights)

    @property
    def params(self) -> Tree:
        """The params of sample.weights, a nested dict."""
        return self.variables.params

    # --- samples ----------------------------------------------------------------------------------

    def sample(self, count: int | None = None, **asked: object) -> np.ndarray:
        """Samples as they are stored, [count, ...]: of images uint8 [count, H, W, C].

        asked: values of conditions by their names, label="sneaker" or text="a red bag"; other names
        are keys of the section `sample` (seed, steps, method, guidance_scale, weights ...).
        """
        changes = {} if count is None else {"count": count}
        requests, variables = self._requests({**changes, **asked})
        programs = self._kept("sample", asked)
        drawn = draw(requests, variables, programs, requests.experiment.config.sample.count)
        return np.concatenate([part.images for part in drawn])

    def predictor(self, **asked: object) -> Callable[[Array, Array], Prediction]:
        """(x_t [B, ...] float, t [] or [B]) -> the data and the noise that samples of these
        conditions are predicted by: guided and clipped, row i as sample i is. asked: as for
        `sample`. For families that solve an equation from noise to data."""
        requests, variables = self._requests(asked)
        if not isinstance(requests.family, Solves):
            raise UserError(f"{self.config.family.name} has no predictor: it does not denoise.")

        @jax.jit
        def run(variables, rows, x, t):
            conditions = requests.conditions(variables, rows)
            return requests.family.predictor(variables, conditions)(x, t)

        def predict(x: Array, t: Array) -> Prediction:
            x = jnp.asarray(x)
            return run(variables, requests.rows(np.arange(len(x))), x, jnp.asarray(t, x.dtype))

        return predict

    def _requests(self, asked: Mapping[str, object]) -> tuple[Requests, Variables]:
        told = conditions_of(self.family)
        keys = {f"sample.{'conditions.' if k in told else ''}{k}": v for k, v in asked.items()}
        config = self.config
        if keys:
            config = resolved(configs.override(self.raw, keys), self.place.path)
        experiment = Experiment(config)
        require(experiment.family, config.family.name, "sample", "sample")
        variables = variables_of(self.state, config.sample.weights)
        family, variables = for_sampling(experiment, variables)
        requests = Requests(experiment=experiment, family=family)
        requests.check()
        return requests, variables

    def _kept(self, name: str, asked: Mapping[str, object]) -> dict[int, Program]:
        """The programs compiled by earlier calls that asked for the same."""
        return self._programs.setdefault((name, repr(sorted(asked.items()))), {})

    # --- representations --------------------------------------------------------------------------

    def encode(self, images: Pictures) -> np.ndarray:
        """The representation of images, float32 [N, D]."""
        model, source = self._tools("encode"), self._source(images)
        passes = model.embeddings(source, FILES, np.arange(len(source)))
        return np.concatenate([part.embedding for part in passes])

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """What points [N, D] of the space of `encode` stand for, uint8 [N, H, W, C]."""
        return self._tools("decode").decoded(latents)

    def interpolate(
        self, first: Pictures, second: Pictures, count: int = 9, path: str = "linear"
    ) -> np.ndarray:
        """What lies between two images: uint8 [count + 2, H, W, C], their own decoded codes at the
        ends. path: "linear" or "spherical"."""
        if path not in _PATHS:
            raise UserError(f"path = {path!r} is unknown: known are: {', '.join(_PATHS)}.")
        self._tools("encode", "decode")
        ends = self.encode(np.concatenate([self._stored(first), self._stored(second)]))
        times = jnp.linspace(0, 1, count + 2)
        points = _PATHS[path](jnp.asarray(ends[:1]), jnp.asarray(ends[1:]), times)
        return self.decode(np.asarray(points)[0])

    def reconstruct(self, images: Pictures, **fields: object) -> np.ndarray:
        """What comes back of images that are encoded and decoded, uint8 [N, H, W, C]. fields: what
        the model is told of them beside, one value for all or a list."""
        require(self.family, self.config.family.name, "reconstruct", "reconstruct")
        source = self._source(images, fields)
        variables = variables_of(self.state, self.config.eval.weights)
        programs = self._programs.setdefault("reconstruct", {})
        return reconstructed(self._experiment, variables, programs, source, len(source)).copy

    def likelihood(self, images: Pictures, **fields: object) -> np.ndarray:
        """-log p of each example in nats, or the family's bound on it, float32 [N]: as --mode=eval
        averages it. fields: as for `reconstruct`."""
        model, source = self._tools("likelihood"), self._source(images, fields)
        root = streams.root(self.config.eval.seed)

        def nats(variables: Variables, rows: Batch) -> Array:
            keys = streams.per_example(streams.named(root, "likelihood"), rows["index"])
            return self.family.likelihood(variables, self._experiment.prepared(rows), keys).total

        rows = np.arange(len(source))
        return np.concatenate(list(model.passes("likelihood", nats, source.read, rows, "scoring")))

    def _tools(self, *needed: str) -> Trained:
        for capability in needed:
            require(self.family, self.config.family.name, capability, capability)
        return Trained(
            experiment=self._experiment,
            place=self.place,
            step=self.step,
            variables=variables_of(self.state, self.config.eval.weights),
            programs=self._programs.setdefault("tools", {}),
        )

    def _stored(self, images: Pictures) -> np.ndarray:
        """Data as the data set holds them; images are fitted to its shape."""
        x = self._experiment.x
        several = isinstance(images, list | tuple) or np.ndim(images) == len(x.shape) + 1
        try:
            return np.stack([x.take(np.asarray(one)) for one in (images if several else [images])])
        except (ValueError, BadImage) as reason:
            raise UserError(f"This is none of the model's {x.plural}: {reason}.") from reason

    def _source(self, images: Pictures, given: Mapping[str, object] | None = None) -> ArraySource:
        arrays = {"x": self._stored(images)}
        known = self._experiment.spec.fields
        for name, said in (given or {}).items():
            if name not in known:
                raise UserError(f"{name} is no field of the data: there are {', '.join(known)}.")
            each = said if isinstance(said, list) else [said] * len(arrays["x"])
            arrays[name] = np.stack([known[name].parse(one, name) for one in each])
        spec = Spec(fields={name: known[name] for name in arrays})
        return ArraySource(name="the images", spec=spec, arrays=arrays)

    # --- notebooks --------------------------------------------------------------------------------

    def history(self) -> list[dict]:
        """The lines of metrics.jsonl: what training measured, by step."""
        file = self.place.path / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.is_file() else []
        return [json.loads(line) for line in lines]

    def _repr_html_(self) -> str:
        """The model's name and size, its newest training picture and its loss, for a notebook."""
        size = tree.count(self.state.params)
        title = f"{self.config.family.name}, {size:,} parameters, step {self.step:,}"
        shown = [f"<p><b>{html.escape(title)}</b><br>{html.escape(str(self.place.path))}</p>"]
        grids = sorted((self.place.samples / "training").glob("step_*.png"))
        images = [grids[-1].read_bytes()] if grids else []
        history = [(one["step"], one["loss"]) for one in self.history() if "loss" in one]
        if len(history) > 1:
            page = io.BytesIO()
            figures.save_curve(page, *np.transpose(history))
            images.append(page.getvalue())
        shown += [
            f'<img src="data:image/png;base64,{base64.b64encode(image).decode()}">'
            for image in images
        ]
        return "".join(shown)
