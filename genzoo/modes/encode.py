"""`--mode=encode`: writes the representations of many images or documents into one array file.

Also holds what all modes that examine a representation share: the trained model, passes over
examples, decoding.
"""

import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo import build
from genzoo.core import streams
from genzoo.core.contract import Family, Variables
from genzoo.core.errors import UserError
from genzoo.core.files import aside, expanded
from genzoo.core.types import Batch
from genzoo.data import documents, loose, transforms
from genzoo.data.counts import Counts
from genzoo.data.fields import Image
from genzoo.data.source import ArraySource, Source, Spec
from genzoo.experiment import Experiment, require, require_kind, variables_of
from genzoo.runtime.agreement import is_first
from genzoo.runtime.compilation import Program
from genzoo.runtime.progress import tracked
from genzoo.runtime.stopping import Stop
from genzoo.workdir import Workdir, announced

FILES = "files"  # the name used instead of a split for images from files
_log = logging.getLogger("genzoo")


class Embedded(NamedTuple):
    """Examples of a source with their embeddings: index in the source int32 [n], embedding float32
    [n, D], x in its stored form (images uint8 [n, H, W, C], word counts uint16 [n, V]), label int32
    [n] or None."""

    index: np.ndarray
    embedding: np.ndarray
    x: np.ndarray
    label: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model for the tools. programs: compiled programs by name and shapes."""

    experiment: Experiment
    place: Workdir
    step: int
    variables: Variables
    programs: dict[tuple, Program] = field(default_factory=dict)

    @property
    def family(self) -> Family:
        """The model family."""
        return self.experiment.family

    @property
    def of_texts(self) -> bool:
        """Whether the model encodes the texts of records rather than the datum x."""
        return build.FAMILIES[self.experiment.config.family.name].encodes == "text"

    def texts(self, texts: Sequence[str], key: str) -> Source:
        """Texts as records whose x is blank. key: the config key that gives them, for errors."""
        fields = {name: self.experiment.spec.fields[name] for name in ("x", "text")}
        x, ids = fields["x"], np.stack([fields["text"].parse(text, key) for text in texts])
        arrays = {"x": np.zeros((len(ids), *x.shape), x.dtype), "text": ids}
        return ArraySource(name="the texts", spec=Spec(fields=fields), arrays=arrays)

    def files(self, files: Sequence[Path]) -> Source:
        """The examples in files: images, resized to the shape of the model's, or documents."""
        x = self.experiment.x
        if isinstance(x, Counts):
            return documents.open_files(files, x)
        return loose.open_files(files, x)

    def embeddings(
        self, source: Source, split: str, indices: np.ndarray, title: str = "encoding"
    ) -> Iterator[Embedded]:
        """The embeddings of the examples with these indices, in batches and in that order. split:
        names the random stream (FILES for files); the randomness of an example depends only on its
        index. title: of the progress bar. Raises UserError if an embedding is not finite."""
        key = streams.named(streams.root(self.experiment.config.eval.seed), f"encode {split}")
        function = partial(_embedded, self.experiment, key)
        for batch in self.passes(f"encode {split}", function, source.read, indices, title):
            if not np.isfinite(batch["embedding"]).all():
                raise UserError(
                    f"The model's representation of {source.name} is not finite: use another "
                    "average (eval.weights) or train again."
                )
            index, embedding, x = (batch[name] for name in ("index", "embedding", "x"))
            yield Embedded(index, embedding, x, batch.get("label"))

    def decoded(self, latents: np.ndarray, title: str = "decoding") -> np.ndarray:
        """Images decoded from points [N, D] in the latent space, uint8 [N, H, W, C]."""
        latents = np.asarray(latents, np.float32)
        return self.images(
            "decode",
            lambda variables, rows: self.family.decode(variables, rows["latent"]),
            lambda rows: {"latent": latents[rows]},
            len(latents),
            title,
        )

    def images(
        self, name: str, function: Callable, read: Callable, count: int, title: str
    ) -> np.ndarray:
        """The images that a function of (variables, rows) returns for rows 0 to count - 1: uint8
        [count, H, W, C]. The other arguments are those of `passes`."""

        def drawn(variables, rows):
            return transforms.to_uint8(function(variables, rows))

        return np.concatenate(list(self.passes(name, drawn, read, np.arange(count), title)))

    def passes(
        self, name: str, function: Callable, read: Callable, indices: np.ndarray, title: str
    ) -> Iterator:
        """Applies a function of (variables, rows) to the rows that `read` returns for the indices,
        in batches of eval.batch_size; yields host arrays, in every process. The rows also hold
        `index`. name: identifies the function, which is compiled once for each shape."""
        placement, total = self.experiment.placement, len(indices)
        size = min(self.experiment.config.eval.batch_size, total)
        size = -(-size // placement.devices) * placement.devices
        mine = placement.rows(size)
        starts = range(0, total, size)
        for start in tracked(starts, title):
            self.experiment.stop.check()
            at = indices[np.minimum(start + mine, total - 1)]
            rows = placement.put_batch({**read(at), "index": at.astype(np.int32)})
            key = (name, *((k, v.shape, str(v.dtype)) for k, v in sorted(rows.items())))
            if key not in self.programs:
                self.programs[key] = self.experiment.program(function, self.variables, rows)
            values = jax.device_get(self.programs[key](self.variables, rows))
            yield jax.tree.map(lambda value, real=total - start: value[:real], values)


def trained(
    config: FrozenConfigDict, workdir: Path, mode: str, *needed: str, stop: Stop | None = None
) -> Trained:
    """The newest model of the run in the workdir, with eval.weights. needed: capabilities. Raises
    UserError if the family lacks one of them or the workdir holds no such model."""
    experiment, place = Experiment(config, stop or Stop()), Workdir(workdir)
    for capability in needed:
        require(experiment.family, config.family.name, capability, mode)
    if "decode" in needed:
        require_kind(experiment, (Image,), mode, "draws images")
    place.check_writable()
    state = place.load(config, experiment.abstract_state)
    variables = variables_of(state, config.eval.weights)
    return Trained(experiment=experiment, place=place, step=int(state.step), variables=variables)


def chosen(config: FrozenConfigDict, source: Source) -> np.ndarray:
    """The indices of the first eval.count examples of a source; 0 means all."""
    return np.arange(min(config.eval.count or len(source), len(source)))


def numbered(config: FrozenConfigDict, key: str, source: Source) -> int:
    """The example of the source, that of eval.split, whose number is `tools.KEY`."""
    number = config.tools[key]
    if int(number) >= len(source):
        raise UserError(
            f"tools.{key} = {number!r} must be from 0 to {len(source) - 1}, the examples of the "
            f"{config.eval.split} split of {source.name}."
        )
    return int(number)


def spread(total: int, count: int) -> np.ndarray:
    """At most `count` of `total` indices, evenly spaced, so that data sorted by class gives some
    of each."""
    count = min(count, total)
    return np.arange(count) * total // count


def collected(passes: Iterator[Embedded], count: int) -> Mapping[str, np.ndarray]:
    """{"embedding": float32 [count, D], "index": int32 [count], "label": int32 [count] if there are
    labels}. The examples themselves are not kept in memory."""
    arrays: dict[str, np.ndarray] = {}
    done = 0
    for batch in passes:
        for name in ("embedding", "index", "label"):
            values = getattr(batch, name)
            if values is not None:
                new = np.empty((count, *values.shape[1:]), values.dtype)
                arrays.setdefault(name, new)[done : done + len(values)] = values
        done += len(batch.index)
    return arrays


def encode(config: FrozenConfigDict, workdir: Path, stop: Stop | None = None) -> dict:
    """Writes the embeddings of eval.split, or of the images or documents below tools.folder, as
    `embeddings.npz`: `embedding` float32 [N, D], `index` [N], and `label` [N], or `file` [N] for a
    folder."""
    model = trained(config, workdir, "encode", "encode", stop=stop)
    names: dict[str, np.ndarray] = {}
    if config.tools.folder and model.of_texts:
        raise UserError(
            f"tools.folder = {config.tools.folder!r}: {config.family.name} encodes texts, not "
            "files; leave it empty to encode those of eval.split."
        )
    if config.tools.folder:
        files = loose.below(config.tools.folder, "tools.folder", model.experiment.x)
        top = expanded(config.tools.folder)
        source, split = model.files(files), FILES
        names["file"] = np.array([file.relative_to(top).as_posix() for file in files], np.str_)
    else:
        source, split = model.experiment.open(config.eval.split), config.eval.split
    indices = np.arange(len(source)) if names else chosen(config, source)
    arrays = collected(model.embeddings(source, split, indices), len(indices))
    path = model.place.path / "embeddings.npz"
    if is_first():
        _write(path, {**arrays, **names})
    count, dimensions = arrays["embedding"].shape
    _log.info("%d embeddings of %d dimensions.", count, dimensions)
    where = {"folder": config.tools.folder} if names else {"split": split}
    return {**where, "count": count, "dimensions": dimensions, "step": model.step,
            "files": announced([path])}  # fmt: skip


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    # Like np.savez, which cannot write an array named `file`.
    with aside(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, values, allow_pickle=False)


def _embedded(experiment: Experiment, key, variables: Variables, rows: Batch) -> dict:
    keys = streams.per_example(key, rows["index"])
    values = experiment.family.encode(variables, experiment.prepared(rows), keys)
    return {**rows, "embedding": values.astype(np.float32)}
