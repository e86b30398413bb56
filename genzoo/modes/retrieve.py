"""`--mode=retrieve`: the training images that a representation has nearest to others."""

from pathlib import Path

import numpy as np
from ml_collections import FrozenConfigDict

from genzoo.core.errors import UserError
from genzoo.data import loose
from genzoo.data.source import Source
from genzoo.evaluate import figures
from genzoo.evaluate.neighbours import Neighbours
from genzoo.modes.encode import FILES, Embedded, Trained, trained
from genzoo.runtime.agreement import is_first
from genzoo.runtime.stopping import Stop
from genzoo.workdir import announced

_QUERIES = 8
_SHOWN = 16  # neighbours in the picture at most
_TRAIN = "train"


def retrieve(config: FrozenConfigDict, workdir: Path, stop: Stop | None = None) -> dict:
    """The tools.neighbours nearest training images, by tools.metric, of the first images of
    eval.split or of the file tools.first: `samples/neighbours.png` and `retrieve.json`, with labels
    also the precision, which is the share of neighbours of the query's class."""
    model = trained(config, workdir, "retrieve", "encode", stop=stop)
    train = model.experiment.open(_TRAIN)
    queries, names = _queries(model)
    own = queries.index if not names and config.eval.split == _TRAIN else None
    candidates = len(train) - (own is not None)
    if candidates < 1:
        raise UserError(f"The train split of {train.name} has no other example.")
    count = min(config.tools.neighbours, candidates)
    found = Neighbours.none(len(queries.index), count)
    for batch in model.embeddings(train, _TRAIN, np.arange(len(train)), "searching"):
        metric = config.tools.metric
        found = found.with_batch(metric, queries.embedding, batch.embedding, batch.index, own)
    records = train.read(found.index.ravel())
    labels = records["label"].reshape(found.index.shape) if "label" in records else None
    report = {
        **({"query": config.tools.first} if names else {"split": config.eval.split}),
        "step": model.step,
        "metric": config.tools.metric,
        "neighbours": count,
    }
    if labels is not None and queries.label is not None:
        report["precision"] = float((labels == queries.label[:, None]).mean())
    report["queries"] = _listed(queries, names, found, labels)
    model.place.write("retrieve.json", report)
    if is_first():
        images = records["x"].reshape(*found.index.shape, *records["x"].shape[1:])
        _draw(model, queries, names, found, images, labels, train)
    shown = {k: v for k, v in report.items() if k != "queries"}
    made = [model.place.samples / "neighbours.png", model.place.path / "retrieve.json"]
    return shown | {"files": announced(made)}


def _queries(model: Trained) -> tuple[Embedded, list[str]]:
    """The queries, and the names of those that come from files."""
    config = model.experiment.config
    if config.tools.first:
        file = loose.existing(config.tools.first, "tools.first")
        (found,) = model.embeddings(model.files([file]), FILES, np.arange(1))
        return found, [file.name]
    source = model.experiment.open(config.eval.split)
    count = min(_QUERIES, len(source))
    parts = list(model.embeddings(source, config.eval.split, np.arange(count)))
    joined = (
        None if values[0] is None else np.concatenate(values) for values in zip(*parts, strict=True)
    )
    return Embedded(*joined), []


def _listed(
    queries: Embedded, names: list[str], found: Neighbours, labels: np.ndarray | None
) -> list[dict]:
    listed = []
    for i, index in enumerate(queries.index.tolist()):
        query = {"file": names[i]} if names else {"index": index}
        if queries.label is not None:
            query["label"] = int(queries.label[i])
        near = {"indices": found.index[i].tolist(), "distances": found.distance[i].tolist()}
        if labels is not None:
            near["labels"] = labels[i].tolist()
        listed.append({**query, **near})
    return listed


def _draw(
    model: Trained,
    queries: Embedded,
    names: list[str],
    found: Neighbours,
    images: np.ndarray,
    labels: np.ndarray | None,
    train: Source,
) -> None:
    def caption(distance: float, label: int | None) -> str:
        return f"{distance:.3g}" + ("" if label is None else f"\n{named(label)}")

    def named(label: int) -> str:
        return figures.shortened(train.spec.classes[label])

    rows, shown = [], min(_SHOWN, found.index.shape[1])
    for i, index in enumerate(queries.index.tolist()):
        known = None if labels is None else labels[i]
        captions = [
            figures.shortened(names[i]) if names else f"example {index}",
            *(
                caption(found.distance[i, rank], None if known is None else known[rank])
                for rank in range(shown)
            ),
        ]
        if queries.label is not None:
            captions[0] += f"\n{named(queries.label[i])}"
        everything = np.concatenate([queries.image[i][None], images[i, :shown]])
        wrong = set()
        if known is not None and queries.label is not None:
            wrong = {rank + 1 for rank in range(shown) if known[rank] != queries.label[i]}
        rows.append(figures.Row(images=everything, captions=captions, marked=wrong))
    figures.save_rows(
        model.place.samples / "neighbours.png",
        rows,
        columns=("query", *(str(rank + 1) for rank in range(shown))),
        apart=(1,),
        title=f"nearest training images, {model.experiment.config.tools.metric} distance",
    )
