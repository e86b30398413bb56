"""`--mode=retrieve`: finds the training examples nearest to given ones in a representation."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ml_collections import FrozenConfigDict

from genzoo.core.contract import Retrieves
from genzoo.core.errors import UserError
from genzoo.core.files import write_atomically
from genzoo.data.counts import Counts
from genzoo.data.documents import OTHER, Documents
from genzoo.data.fields import Image
from genzoo.data.source import ArraySource, Source, Spec
from genzoo.evaluate import figures
from genzoo.evaluate.neighbours import Neighbours
from genzoo.evaluate.tfidf import TfIdf
from genzoo.experiment import require_kind
from genzoo.modes.across import retrieve_across
from genzoo.modes.encode import FILES, Embedded, Trained, numbered, spread, trained
from genzoo.runtime.agreement import is_first
from genzoo.runtime.stopping import Stop
from genzoo.workdir import announced

_QUERIES = 8
_SHOWN = 16  # maximum number of neighbours in the picture
_BATCH = 1024  # documents whose TF-IDF weights are in memory at once
_TRAIN = "train"
_log = logging.getLogger("genzoo")


def retrieve(config: FrozenConfigDict, workdir: Path, stop: Stop | None = None) -> dict:
    """Finds the tools.neighbours training examples that are nearest to each query by tools.metric.

    The queries are tools.first (a file, a sentence for documents, or an example by number) or, by
    default, the first images of eval.split, or eval.count documents spread over it. If there are
    labels, the precision is the fraction of neighbours with the query's class. A text encoder
    compares the texts of the examples, and tools.first is a text.

    Writes `retrieve.json` and, for images, `samples/neighbours.png`. For documents it writes
    `retrieval.txt`. Both files then list a few queries with their neighbours by the model and by
    TF-IDF, and the precision of either is over the queries whose class is not "other". Families
    that embed texts as well are examined by `retrieve_across`.
    """
    model = trained(config, workdir, "retrieve", "encode", stop=stop)
    require_kind(model.experiment, (Image, Counts), "retrieve", "shows images or documents")
    if isinstance(model.family, Retrieves):
        return retrieve_across(model)
    if config.tools.prompts:
        raise UserError(
            f"tools.prompts has no effect: this {config.family.name} does not compare images with "
            "texts, as that of clip_shapes does; leave it empty."
        )
    train = model.experiment.open(_TRAIN)
    of_documents = isinstance(model.experiment.x, Counts)
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
    report = {
        **({"query": config.tools.first} if names else {"split": config.eval.split}),
        "step": model.step,
        "metric": config.tools.metric,
        "neighbours": count,
    }
    if of_documents:
        results, made = _documents(model, train, queries, names, nearest, own)
    else:
        results, made = _images(model, train, queries, names, nearest)
    report |= results
    model.place.write("retrieve.json", report)
    told = names and (of_documents or model.of_texts)
    shown = {k: v for k, v in report.items() if k != "queries" or told}
    return shown | {"files": announced([*made, model.place.path / "retrieve.json"])}


def _queries(model: Trained) -> tuple[Embedded, list[str]]:
    """The queries, and their names if they are files or texts."""
    config, x = model.experiment.config, model.experiment.x
    first = config.tools.first
    if first and not first.isdecimal():
        if model.of_texts:
            source = model.texts([first], "tools.first")
        else:
            arrays = {"x": x.parse(first, "tools.first")[None]}
            source = ArraySource(name="the query", spec=Spec(fields={"x": x}), arrays=arrays)
        (embedded,) = model.embeddings(source, FILES, np.arange(1))
        return embedded, [first]
    source = model.experiment.open(config.eval.split)
    if first:
        indices = np.array([numbered(config, "first", source)])
    elif isinstance(x, Counts):
        indices = spread(len(source), config.eval.count or len(source))
    else:
        indices = np.arange(min(_QUERIES, len(source)))
    parts = list(model.embeddings(source, config.eval.split, indices))
    joined = (
        None if values[0] is None else np.concatenate(values) for values in zip(*parts, strict=True)
    )
    return Embedded(*joined), []


def _listed(
    queries: Embedded,
    names: list[str],
    kind: str,
    nearest: Neighbours,
    labels: np.ndarray | None,
) -> list[dict]:
    """The entries of the report for each query. kind: what its name is, if it has one."""
    listed = []
    for i, index in enumerate(queries.index.tolist()):
        query = {kind: names[i]} if names else {"index": index}
        if queries.label is not None:
            query["label"] = int(queries.label[i])
        near = {"indices": nearest.index[i].tolist(), "distances": nearest.distance[i].tolist()}
        if labels is not None:
            near["labels"] = labels[i].tolist()
        listed.append({**query, **near})
    return listed


# --- images ---------------------------------------------------------------------------------------


def _images(
    model: Trained,
    train: Source,
    queries: Embedded,
    names: list[str],
    nearest: Neighbours,
) -> tuple[dict, list[Path]]:
    """Draws the neighbours; (the entries of the report, the files)."""
    names = names if model.of_texts else [Path(name).name for name in names]
    results: dict = {}
    records = train.read(nearest.index.ravel())
    labels = records["label"].reshape(nearest.index.shape) if "label" in records else None
    if labels is not None and queries.label is not None:
        results["precision"] = float((labels == queries.label[:, None]).mean())
    kind = "text" if model.of_texts else "file"
    results["queries"] = _listed(queries, names, kind, nearest, labels)
    found: list[list[str]] = [[] for _ in queries.index]
    if model.of_texts:
        rows = records["text"].reshape(*nearest.index.shape, -1)
        found = [[train.spec.fields["text"].text(ids) for ids in row] for row in rows]
        results["queries"] = [
            entry | {"texts": texts} for entry, texts in zip(results["queries"], found, strict=True)
        ]
    if is_first():
        images = records["x"].reshape(*nearest.index.shape, *records["x"].shape[1:])
        _draw(model, queries, names, nearest, images, labels, train, found)
    return results, [model.place.samples / "neighbours.png"]


def _draw(
    model: Trained,
    queries: Embedded,
    names: list[str],
    nearest: Neighbours,
    images: np.ndarray,
    labels: np.ndarray | None,
    train: Source,
    found: list[list[str]],
) -> None:
    """found: the texts of the neighbours of each query, if these are texts."""

    def caption(i: int, rank: int) -> str:
        line = named(labels[i, rank]) if labels is not None else ""
        if found[i]:
            line = figures.shortened(found[i][rank], 11)
        return f"{nearest.distance[i, rank]:.3g}" + (f"\n{line}" if line else "")

    def named(label: int) -> str:
        return figures.shortened(train.spec.classes[label], 11)  # as wide as an image

    rows, shown = [], min(_SHOWN, nearest.index.shape[1])
    for i, index in enumerate(queries.index.tolist()):
        known = None if labels is None else labels[i]
        captions = [
            figures.shortened(names[i]) if names else f"example {index}",
            *(caption(i, rank) for rank in range(shown)),
        ]
        if queries.label is not None:
            captions[0] += f"\n{named(queries.label[i])}"
        # A text that was given has no image.
        query = np.full_like(images[i, :1], 255) if names and found[i] else queries.x[i][None]
        everything = np.concatenate([query, images[i, :shown]])
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


# --- documents ------------------------------------------------------------------------------------


def _documents(
    model: Trained,
    train: Documents,
    queries: Embedded,
    names: list[str],
    nearest: Neighbours,
    own: np.ndarray | None,
) -> tuple[dict, list[Path]]:
    """Writes the lists of neighbours; (the entries of the report, the files)."""
    neighbours = {"embedding": nearest, "tfidf": _by_tfidf(train, queries, nearest, own)}
    results: dict = {}
    if queries.label is not None:
        # Documents of the class "other" need have nothing in common.
        judged = np.array([train.spec.classes[k] != OTHER for k in queries.label], bool)
        results["judged"] = int(judged.sum())
        for key, near in {"precision": nearest, "precision_tfidf": neighbours["tfidf"]}.items():
            right = train.arrays["label"][near.index[judged]] == queries.label[judged, None]
            results[key] = float(right.mean()) if judged.any() else None
    titles = names
    if not names:
        source = model.experiment.open(model.experiment.config.eval.split)
        titles = [source.titles[index] for index in queries.index]
    results["queries"] = []
    for i in spread(len(titles), _QUERIES).tolist():
        entry = {"query": titles[i]}
        if queries.label is not None:
            entry["label"] = train.spec.classes[queries.label[i]]
        near = {method: _described(train, near, i) for method, near in neighbours.items()}
        results["queries"].append(entry | near)
    path = model.place.path / "retrieval.txt"
    table = "\n\n".join(_table(entry) for entry in results["queries"])
    _log.info("%s", table)
    if is_first():
        write_atomically(path, table + "\n")
    return results, [path]


def _described(train: Documents, nearest: Neighbours, query: int) -> list[dict]:
    """The neighbours of one query."""
    listed = []
    for index, distance in zip(nearest.index[query], nearest.distance[query], strict=True):
        entry = {"title": train.titles[index]}
        if "label" in train.arrays:
            entry["label"] = train.spec.classes[train.arrays["label"][index]]
        listed.append(entry | {"distance": float(distance)})
    return listed


def _by_tfidf(
    train: Documents, queries: Embedded, like: Neighbours, own: np.ndarray | None
) -> Neighbours:
    """As many neighbours as `like` has, by the cosine distance of TF-IDF weights of the words that
    the model counts."""

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(train), _BATCH):
            index = np.arange(start, min(start + _BATCH, len(train)))
            yield index, train.read(index)["x"]

    weights = TfIdf.of(counts for _, counts in batches())
    nearest, of_queries = Neighbours.none(*like.index.shape), weights(queries.x)
    for index, counts in batches():
        nearest = nearest.with_batch("cosine", of_queries, weights(counts), index, own)
    return nearest


def _table(entry: dict) -> str:
    """A query with its neighbours by both methods, as text."""
    label = f"  ({entry['label']})" if "label" in entry else ""
    lines = [f"query: {entry['query']}{label}"]
    for method, heading in (("embedding", "by the model"), ("tfidf", "by TF-IDF")):
        lines += [f"  {heading}:", "    distance  document"]
        lines += [
            f"    {near['distance']:8.3f}  {near['title']}"
            + (f"  ({near['label']})" if "label" in near else "")
            for near in entry[method]
        ]
    return "\n".join(lines)
