"""`--mode=retrieve`: finds the training images nearest to given ones in a representation."""

from pathlib import Path

import numpy as np
from ml_collections import FrozenConfigDict

from genzoo.core.errors import UserError
from genzoo.data import loose
from genzoo.data.source import Source
from genzoo.evaluate import figures
from genzoo.evaluate.neighbours import Neighbours
from genzoo.modes.encode import FILES, Embedded, Trained, numbered, trained
from genzoo.runtime.agreement import is_first
from genzoo.runtime.stopping import Stop
from genzoo.workdir import announced

_QUERIES = 8
_SHOWN = 16  # maximum number of neighbours in the picture
_TRAIN = "train"


def retrieve(config: FrozenConfigDict, workdir: Path, stop: Stop | None = None) -> dict:
    """Finds the training images nearest, by tools.metric, to the first images of eval.split or to
    tools.first (a file, or an example by number); tools.neighbours of them.

    Writes `samples/neighbours.png` and `retrieve.json`; if there are labels, also the precision,
    the fraction of neighbours with the query's class.
    """
    model = trained(config, workdir, "retrieve", "encode", stop=stop)
    train = model.experiment.open(_TRAIN)
    queries, names = _queries(model)
    own = queries.index if not names and config.eval.split == _TRAIN else None
    candidates = len(train) - (own is not None)
    if candidates < 1:
        raise UserError(
            f"The train split of {train.name} has no other example: set eval.split to 'test'."
        )
    count = min(config.tools.neighbours, candidates)
    nearest = Neighbours.none(len(queries.index), count)
    for batch in model.embeddings(train, _TRAIN, np.arange(len(train)), "searching"):
        metric = config.tools.metric
        nearest = nearest.with_batch(metric, queries.embedding, batch.embedding, batch.index, own)
    records = train.read(nearest.index.ravel())
    labels = records["label"].reshape(nearest.index.shape) if "label" in records else None
    report = {
        **({"query": config.tools.first} if names else {"split": config.eval.split}),
        "step": model.step,
        "metric": config.tools.metric,
        "neighbours": count,
    }
    if labels is not None and queries.label is not None:
        report["precision"] = float((labels == queries.label[:, None]).mean())
    report["queries"] = _listed(queries, names, nearest, labels)
    model.place.write("retrieve.json", report)
    if is_first():
        images = records["x"].reshape(*nearest.index.shape, *records["x"].shape[1:])
        _draw(model, queries, names, nearest, images, labels, train)
    shown = {k: v for k, v in report.items() if k != "queries"}
    made = [model.place.samples / "neighbours.png", model.place.path / "retrieve.json"]
    return shown | {"files": announced(made)}


def _queries(model: Trained) -> tuple[Embedded, list[str]]:
    """The queries, and their names if they come from files."""
    config = model.experiment.config
    first = config.tools.first
    if first and not first.isdecimal():
        file = loose.existing(first, "tools.first")
        (embedded,) = model.embeddings(model.files([file]), FILES, np.arange(1))
        return embedded, [file.name]
    source = model.experiment.open(config.eval.split)
    if first:
        indices = np.array([numbered(config, "first", source)])
    else:
        indices = np.arange(min(_QUERIES, len(source)))
    parts = list(model.embeddings(source, config.eval.split, indices))
    joined = (
        None if values[0] is None else np.concatenate(values) for values in zip(*parts, strict=True)
    )
    return Embedded(*joined), []


def _listed(
    queries: Embedded, names: list[str], nearest: Neighbours, labels: np.ndarray | None
) -> list[dict]:
    listed = []
    for i, index in enumerate(queries.index.tolist()):
        query = {"file": names[i]} if names else {"index": index}
        if queries.label is not None:
            query["label"] = int(queries.label[i])
        near = {"indices": nearest.index[i].tolist(), "distances": nearest.distance[i].tolist()}
        if labels is not None:
            near["labels"] = labels[i].tolist()
        listed.append({**query, **near})
    return listed


def _draw(
    model: Trained,
    queries: Embedded,
    names: list[str],
    nearest: Neighbours,
    images: np.ndarray,
    labels: np.ndarray | None,
    train: Source,
) -> None:
    def caption(distance: float, label: int | None) -> str:
        return f"{distance:.3g}" + ("" if label is None else f"\n{named(label)}")

    def named(label: int) -> str:
        return figures.shortened(train.spec.classes[label])

    rows, shown = [], min(_SHOWN, nearest.index.shape[1])
    for i, index in enumerate(queries.index.tolist()):
        known = None if labels is None else labels[i]
        captions = [
            figures.shortened(names[i]) if names else f"example {index}",
            *(
                caption(nearest.distance[i, rank], None if known is None else known[rank])
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
