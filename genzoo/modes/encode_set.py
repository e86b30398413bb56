"""`--mode=encode` with tools.dataset: writes the data of a first stage as latents to train on."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo import build
from genzoo.builders import datasets
from genzoo.config import freeze
from genzoo.core.contract import Variables
from genzoo.core.errors import UserError
from genzoo.core.files import expanded
from genzoo.core.latents import Compresses
from genzoo.core.tree import checksum
from genzoo.core.types import Array, Batch, Tree
from genzoo.data import latent_folder, records
from genzoo.data.fields import Classes, Field, Image, Tokens, Vector
from genzoo.data.latent_folder import Column, Description, SplitWriter
from genzoo.data.source import SPLITS
from genzoo.data.vocabulary import Words
from genzoo.experiment import Experiment, require_kind
from genzoo.modes import encode as embeddings
from genzoo.modes.encode import Trained
from genzoo.runtime.agreement import by_first
from genzoo.runtime.compilation import run_once
from genzoo.runtime.stopping import Stop
from genzoo.settings import DataSettings
from genzoo.workdir import announced

_log = logging.getLogger("genzoo")
_COLUMNS = ("x", "label", "text", "properties")
"""The fields that are written."""


def encode(config: FrozenConfigDict, workdir: Path, stop: Stop | None = None) -> dict:
    """The mode: writes a data set if tools.dataset names its folder, and otherwise embeddings."""
    if not config.tools.dataset:
        return embeddings.encode(config, workdir, stop)
    return _encode_set(config, embeddings.trained(config, workdir, "encode", stop=stop))


def _encode_set(config: FrozenConfigDict, model: Trained) -> dict:
    """Writes the moments of all examples of both splits, with their labels, texts and numbers: see
    `data.latent_folder`. With data.flip also those of mirror images."""
    experiment = model.experiment
    require_kind(experiment, (Image,), "encode", "writes latents of images")
    if not isinstance(model.family, Compresses):
        raise UserError(
            "tools.dataset needs a first stage, such as a kl_autoencoder or a vqvae, but this "
            f"is a run of {config.family.name}: leave it empty, or name the workdir of one."
        )
    if config.tools.folder:
        raise UserError("tools.dataset encodes the data of the run: leave tools.folder empty.")
    folder, data = expanded(config.tools.dataset), build.section(config, "data")
    by_first(lambda: _made(folder))
    data, _ = datasets.with_facts(data, datasets.row_of(data).possible)
    fields = {k: v for k, v in datasets.spec(data).fields.items() if k in _COLUMNS}
    model = replace(model, experiment=_with_fields(experiment, data))
    shape = (1 + config.data.flip, 2, *model.family.latent_shape)
    columns = [Column(name="x", shape=shape, dtype="float32")] + [
        Column(name=name, shape=field.shape, dtype=np.dtype(field.dtype).name)
        for name, field in fields.items()
        if name != "x"
    ]
    processes, me = jax.process_count(), jax.process_index()
    splits = {}
    for split in SPLITS:
        source = datasets.open_source(data, split)
        indices = np.arange(len(source))
        writer = SplitWriter(
            folder, split, columns, len(source), lambda number: number % processes == me
        )
        rows = model.passes(f"moments {split}", _moments(model), source.read, indices, "encoding")
        for batch in rows:
            writer.add(batch)
        writer.close()
        splits[split] = writer.part
        _log.info("%d examples of the split %s.", len(source), split)
    description = Description(
        columns=tuple(columns),
        splits=splits,
        first=fingerprint(experiment, model.variables),
        data={**_facts(fields), "tokenizer": data.tokenizer},
        made_from={
            "workdir": str(model.place.path), "weights": config.eval.weights, "step": model.step,
            "data": config.data.name,
        },
    )  # fmt: skip
    by_first(lambda: description.write(folder))
    return {
        "dataset": str(folder),
        **{split: part.count for split, part in splits.items()},
        "latent": list(description.latent_shape),
        "step": model.step,
        "files": announced([folder / latent_folder.DESCRIPTION]),
    }


def _made(folder: Path) -> None:
    """Makes the folder. Raises UserError if it holds anything but the files of a failed attempt."""
    problem = "give a new folder in tools.dataset, or remove it."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [p.name for p in folder.iterdir() if p.suffix != ".array_record"]
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): {problem}") from error
    if others:
        raise UserError(f"{folder} already holds {sorted(others)[0]}: {problem}")


def _with_fields(experiment: Experiment, data: DataSettings) -> Experiment:
    """The experiment whose data has these settings, and so all fields."""
    whole = experiment.config.to_dict()
    facts = {key: getattr(data, key) for key in datasets.FACTS}
    return replace(experiment, config=freeze(whole | {"data": {**whole["data"], **facts}}))


def _moments(model: Trained):
    """(variables, rows) -> the rows, with the moments [B, sides, 2, *latent] as x."""
    experiment = model.experiment
    fields = {"x": experiment.x}

    def run(variables: Variables, rows: Batch) -> dict[str, Array]:
        images = {"x": rows["x"]}
        sides = [records.prepare(images, fields=fields)]
        if experiment.config.data.flip:
            sides.append(records.all_mirrored(images, fields))
        moments = [jnp.stack(model.family.moments(variables, side), 1) for side in sides]
        return {**rows, "x": jnp.stack(moments, 1)}

    return run


def fingerprint(experiment: Experiment, variables: Variables | Tree) -> int:
    """The checksum of the variables of a model, wherever they are."""
    tree = variables.tree if isinstance(variables, Variables) else variables
    where = jax.tree.map(lambda _: experiment.placement.replicated, tree)
    return checksum(jax.device_get(run_once(lambda tree: tree, tree, out_shardings=where)))


def _facts(fields: Mapping[str, Field]) -> dict[str, object]:
    """The facts from which a config rebuilds these fields."""
    facts: dict[str, object] = {}
    for field in fields.values():
        if isinstance(field, Classes):
            facts |= {"num_classes": field.count, "classes": list(field.names)}
        if isinstance(field, Tokens):
            words = field.tokenizer.words if isinstance(field.tokenizer, Words) else ()
            facts |= {"tokens": field.shape[0], "words": list(words)}
        if isinstance(field, Vector):
            columns = zip(field.names, field.mean, field.deviation, strict=True)
            facts["columns"] = [list(column) for column in columns]
    return facts
