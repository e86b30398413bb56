"""The Python interface: what the command line does, with arrays in and out.

    run = genzoo.open("runs/fashion")
    images = run.sample(16, seed=0, label="sneaker", steps=20)      uint8 [16, H, W, C]

A call resolves the same config as the command line does for the same keys, so that checks, messages
(as `UserError`) and numbers are the same, bit for bit. Only `fit` writes files.
"""

import base64
import html
import io
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
from genzoo import needs
from genzoo.core import streams, tree
from genzoo.core.contract import Family, Solves, Variables, conditions_of
from genzoo.core.errors import UserError
from genzoo.core.types import Array, Batch, Tree
from genzoo.data.fields import Image
from genzoo.data.pixels import BadImage
from genzoo.data.source import ArraySource, Spec
from genzoo.evaluate import figures
from genzoo.experiment import Experiment, require, require_kind, variables_of
from genzoo.math import paths
from genzoo.modes import train as training
from genzoo.modes.encode import FILES, Trained
from genzoo.modes.reconstruct import reconstructed
from genzoo.modes.sample import DRAWN, draw
from genzoo.requests import Requests
from genzoo.resolve import resolved
from genzoo.runs import for_sampling
from genzoo.runtime.compilation import Program
from genzoo.samplers.predictor import Prediction
from genzoo.train import writers
from genzoo.train.state import TrainState
from genzoo.workdir import Workdir

Inputs = np.ndarray | Picture | str | Sequence[Picture | np.ndarray | str]
"""Images: uint8 [N, H, W, C], one image, or a list of arrays or PIL images of any size. Documents,
for a model of these: a text, a list of texts, or counts uint16 [N, V]."""
_PATHS = {"linear": paths.lerp, "spherical": paths.slerp}


def read_config(path: str, changes: Mapping[str, object] | None = None) -> FrozenConfigDict:
    """The resolved config of `--config=PATH`, checked and with every default in place. changes: by
    dotted key, such as {"train.steps": 100}. Raises UserError."""
    return resolved(configs.override(configs.load(path), changes or {}))


def fit(config: FrozenConfigDict, workdir: str | Path) -> "Run":
    """Trains to train.steps, resuming the run in the workdir if there is one, as --mode=train does,
    and opens the run. Raises UserError."""
    checked = resolved(config.to_dict(), Path(workdir))
    needs.require(checked, "train")
    training.train(checked, Path(workdir))
    return open(workdir)


def open(workdir: str | Path, changes: Mapping[str, object] | None = None) -> "Run":
    """The run in a workdir, at its newest checkpoint. changes: to its config by dotted key, such as
    {"sample.steps": 50, "eval.weights": "raw"}. Raises UserError if there is none."""
    place = Workdir(Path(workdir))
    stored = place.stored("give the workdir of a run, or train one with genzoo.fit")
    raw = configs.override(stored, changes or {})
    run = Run(place=place, raw=raw, config=resolved(raw, place.path))
    run.state  # noqa: B018  (reports an unreadable checkpoint now rather than later)
    return run


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A trained model, returned by `open` and `fit`. raw: its config as a plain dict, with changes.
    config: the same, resolved."""

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
        """The state in the newest readable checkpoint."""
        return self.place.load(self.config, self._experiment.abstract_state)

    @property
    def family(self) -> Family:
        """The model family."""
        return self._experiment.family

    @property
    def step(self) -> int:
        """The number of training steps."""
        return int(self.state.step)

    @property
    def variables(self) -> Variables:
        """Params (those that sample.weights names), stats and frozen models."""
        return variables_of(self.state, self.config.sample.weights)

    @property
    def params(self) -> Tree:
        """The params that sample.weights names, a nested dict."""
        return self.variables.params

    # --- samples ----------------------------------------------------------------------------------

    def sample(self, count: int | None = None, **settings: object) -> np.ndarray:
        """Samples in the format of the data, [count, ...]; images are uint8 [count, H, W, C].

        settings: values of conditions by name, such as label="sneaker" or text="a red bag"; all
        other names are keys of the section `sample` (seed, steps, method, weights ...). Raises
        UserError.
        """
        changes = {} if count is None else {"count": count}
        requests, variables = self._requests({**changes, **settings})
        programs = self._compiled("sample", settings)
        drawn = draw(requests, variables, programs, requests.experiment.config.sample.count)
        return np.concatenate([part.images for part in drawn])

    def predictor(self, **settings: object) -> Callable[[Array, Array], Prediction]:
        """(x_t [B, ...] float, t [] or [B]) -> the predicted data and noise, with guidance and
        clipping, where row i has the conditions of sample i. settings: as for `sample`. For
        families that solve an equation from noise to data; raises UserError for others."""
        requests, variables = self._requests(settings)
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

    def _requests(self, settings: Mapping[str, object]) -> tuple[Requests, Variables]:
        known = conditions_of(self.family)
        keys = {f"sample.{'conditions.' if k in known else ''}{k}": v for k, v in settings.items()}
        config = self.config
        if keys:
            config = resolved(configs.override(self.raw, keys), self.place.path)
        experiment = Experiment(config)
        require(experiment.family, config.family.name, "sample", "sample")
        require_kind(experiment, DRAWN, "sample", "draws images, signals and points")
        variables = variables_of(self.state, config.sample.weights)
        family, variables = for_sampling(experiment, variables)
        requests = Requests(experiment=experiment, family=family)
        requests.check()
        return requests, variables

    def _compiled(self, name: str, settings: Mapping[str, object]) -> dict[int, Program]:
        """The programs compiled by earlier calls with the same arguments."""
        return self._programs.setdefault((name, repr(sorted(settings.items()))), {})

    # --- representations --------------------------------------------------------------------------

    def encode(self, images: Inputs) -> np.ndarray:
        """The representation of images or documents, or of texts (a string or a list of strings)
        for a model that encodes these: float32 [N, D]."""
        model = self._tools("encode")
        if model.of_texts:
            texts = [images] if isinstance(images, str) else list(images)
            source = model.texts(texts, "images")
        else:
            source = self._source(images)
        passes = model.embeddings(source, FILES, np.arange(len(source)))
        return np.concatenate([part.embedding for part in passes])

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Images decoded from points [N, D] in the space of `encode`: uint8 [N, H, W, C]."""
        model = self._tools("decode")
        require_kind(model.experiment, (Image,), "decode", "gives images")
        return model.decoded(latents)

    def interpolate(
        self, first: Inputs, second: Inputs, count: int = 9, path: str = "linear"
    ) -> np.ndarray:
        """An interpolation between two images in the space of `encode`: uint8 [count + 2, H, W, C],
        with their reconstructions at the ends. path: "linear" or "spherical"."""
        if path not in _PATHS:
            raise UserError(f"path = {path!r} is unknown: use {' or '.join(map(repr, _PATHS))}.")
        self._tools("encode", "decode")
        ends = self.encode(np.concatenate([self._stored(first), self._stored(second)]))
        times = jnp.linspace(0, 1, count + 2)
        points = _PATHS[path](jnp.asarray(ends[:1]), jnp.asarray(ends[1:]), times)
        return self.decode(np.asarray(points)[0])

    def reconstruct(self, images: Inputs, **fields: object) -> np.ndarray:
        """Reconstructions of images, uint8 [N, H, W, C]. fields: other fields of their records that
        the model takes, each as one value for all or a list."""
        require(self.family, self.config.family.name, "reconstruct", "reconstruct")
        source = self._source(images, fields)
        variables = variables_of(self.state, self.config.eval.weights)
        programs = self._programs.setdefault("reconstruct", {})
        return reconstructed(self._experiment, variables, programs, source, len(source)).copy

    def likelihood(self, images: Inputs, **fields: object) -> np.ndarray:
        """-log p of each example in nats, or the family's bound on it: float32 [N], which
        --mode=eval averages. fields: as for `reconstruct`."""
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

    def _stored(self, images: Inputs) -> np.ndarray:
        """Examples in the format of the data set; images are resized to its shape."""
        x = self._experiment.x
        several = isinstance(images, list | tuple) or np.ndim(images) == len(x.shape) + 1
        try:
            return np.stack([x.take(np.asarray(one)) for one in (images if several else [images])])
        except (ValueError, BadImage) as reason:
            raise UserError(f"These are not {x.plural} for this model: {reason}.") from reason

    def _source(self, images: Inputs, given: Mapping[str, object] | None = None) -> ArraySource:
        arrays = {"x": self._stored(images)}
        known = self._experiment.spec.fields
        for name, value in (given or {}).items():
            if name not in known:
                raise UserError(f"{name} is not a field of the data: it has {', '.join(known)}.")
            values = value if isinstance(value, list) else [value] * len(arrays["x"])
            arrays[name] = np.stack([known[name].parse(one, name) for one in values])
        spec = Spec(fields={name: known[name] for name in arrays})
        return ArraySource(name="the images", spec=spec, arrays=arrays)

    # --- notebooks --------------------------------------------------------------------------------

    def history(self) -> list[dict]:
        """The training metrics by step: the lines of metrics.jsonl."""
        file = self.place.path / "metrics.jsonl"
        return writers.read_lines(file)[0] if file.is_file() else []

    def _repr_html_(self) -> str:
        """The model's name and size, newest training grid and loss curve, for a notebook."""
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
