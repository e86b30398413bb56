"""`--mode=retrieve` for families that embed two fields: images by texts and texts by images."""

from collections.abc import Callable

import numpy as np

from genzoo.core.errors import UserError
from genzoo.core.types import Batch
from genzoo.data.source import Source
from genzoo.evaluate import figures, matching
from genzoo.modes.encode import Trained, chosen
from genzoo.runtime.agreement import is_first
from genzoo.workdir import announced

_X, _TEXT = "x", "text"
_SHOWN = 8  # texts in the picture
_LISTED = 3  # texts listed for an image
_PICTURE = "neighbours.png"


def retrieve_across(model: Trained) -> dict:
    """Compares the first eval.count images of eval.split with their texts.

    Reports the share of images whose own text is nearest among eight and among all different texts,
    and the share of texts for which one of their own images is nearest among all. With a judge of
    texts, as for shapes, it also reports the share of images that show the nearest text, even if it
    is not their own. With tools.prompts every image is assigned the nearest prompt (zero-shot
    classification); with one prompt for each class, in order, the accuracy is reported.

    Writes `retrieve.json` and `samples/neighbours.png`: texts with the images nearest to them. The
    texts are tools.first (a text, or an example by number) or those of the first examples.
    """
    config = model.experiment.config
    field = model.experiment.spec.fields[_TEXT]
    source = model.experiment.open(config.eval.split)
    indices = chosen(config, source)
    # Wrong texts are refused before all images are embedded.
    asked, prompts = config.tools.first, _prompts(model)
    one = field.parse(asked, "tools.first")[None] if asked and not asked.isdecimal() else None
    if asked.isdecimal() and int(asked) >= len(indices):
        raise UserError(
            f"tools.first = {asked!r} must be a text, or from 0 to {len(indices) - 1}, the "
            "examples that are compared."
        )
    records = source.read(indices)
    images = embedded(model, _X, lambda rows: {_X: records[_X][rows]}, len(indices))
    first, own = matching.distinct(records[_TEXT])
    ids = records[_TEXT][first]
    texts = embedded(model, _TEXT, lambda rows: {_TEXT: ids[rows]}, len(ids))
    report = {
        "split": config.eval.split,
        "step": model.step,
        "images": len(images),
        "texts": len(texts),
        **matching.scores(images, texts, own, config.eval.seed),
    }
    if model.experiment.spec.judge is not None:
        nearest = [field.text(ids[i]) for i in matching.nearest_texts(images, texts)]
        shown = model.experiment.spec.judge.shows(records[_X], nearest)
        report["shows_nearest_text"] = float(shown.mean())
    if len(prompts):
        report |= _by_prompts(model, source, records, images, prompts)
    if one is not None:
        queries = embedded(model, _TEXT, lambda rows: {_TEXT: one[rows]}, 1)
        titles, mine = [asked], [-1]
    else:
        rows = np.arange(min(_SHOWN, len(texts)))
        if asked:
            rows = own[[int(asked)]]
        queries, titles, mine = texts[rows], [field.text(ids[i]) for i in rows], rows
    near = np.argsort(-(queries @ images.T), axis=1, kind="stable")[:, : config.tools.neighbours]
    report["queries"] = [
        {
            "text": title,
            "indices": indices[row].tolist(),
            "texts": [field.text(records[_TEXT][i]) for i in row],
        }
        for title, row in zip(titles, near, strict=True)
    ]
    if asked.isdecimal():
        order = np.argsort(-(texts @ images[int(asked)]), kind="stable")[:_LISTED]
        report["nearest_texts"] = [field.text(ids[i]) for i in order]
    picture = model.place.samples / _PICTURE
    if is_first():
        figures.save_rows(
            picture,
            [
                figures.Row(
                    images=records[_X][row],
                    heading=title,
                    captions=["its own" if own[i] == text else "" for i in row],
                )
                for title, text, row in zip(titles, mine, near, strict=True)
            ],
            title="images nearest to a text",
        )
    model.place.write("retrieve.json", report)
    shown = report if asked else {k: v for k, v in report.items() if k != "queries"}
    return shown | {"files": announced([picture, model.place.path / "retrieve.json"])}


def _prompts(model: Trained) -> np.ndarray:
    """The ids [P, L] of tools.prompts, of which there may be none. Raises UserError for a text that
    the model cannot read, and for two that are the same to it."""
    field, known = model.experiment.spec.fields[_TEXT], {}
    for prompt in model.experiment.config.tools.prompts:
        ids = field.parse(prompt, "tools.prompts")
        if same := known.get(ids.tobytes()):
            raise UserError(
                f"tools.prompts holds {same[0]!r} and {prompt!r}, which are the same text to this "
                "model: leave out one of them."
            )
        known[ids.tobytes()] = (prompt, ids)
    return np.array([ids for _, ids in known.values()])


def _by_prompts(
    model: Trained, source: Source, records: Batch, images: np.ndarray, ids: np.ndarray
) -> dict[str, object]:
    """How many images are assigned each prompt, and how many of them correctly. ids: those of the
    prompts."""
    prompts = model.experiment.config.tools.prompts
    texts = embedded(model, _TEXT, lambda rows: {_TEXT: ids[rows]}, len(ids))
    given = matching.nearest_texts(images, texts)
    counts = np.bincount(given, minlength=len(prompts)).tolist()
    report: dict[str, object] = {"prompts": dict(zip(prompts, counts, strict=True))}
    if "label" in records and len(prompts) == len(source.spec.classes):
        report["prompt_accuracy"] = float((given == records["label"]).mean())
    judge = model.experiment.spec.judge
    if judge is not None:
        truths = np.stack([judge.shows(records[_X], [p] * len(given)) for p in prompts], 1)
        one = truths.sum(1) == 1  # images of which one prompt is true
        report["prompt_images"] = int(one.sum())
        if one.any():
            report["prompt_accuracy"] = float(truths[one, given[one]].mean())
    return report


def embedded(model: Trained, name: str, read: Callable, count: int) -> np.ndarray:
    """The unit embeddings [count, D] of the values of a field."""

    def function(variables, rows):
        return model.family.embed(variables, model.experiment.prepared(rows), name)

    passes = model.passes(f"embed {name}", function, read, np.arange(count), f"embedding {name}")
    embedded = np.concatenate(list(passes))
    if not np.isfinite(embedded).all():
        raise UserError(
            f"The model's embeddings of {name} are not finite: use another average (eval.weights) "
            "or train again."
        )
    return embedded
