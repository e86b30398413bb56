"""`--mode=rerank`: draws several samples for each text and orders them by how well they match it.

The match is the cosine between image and text in the embedding space of another run, the ranker,
such as CLIP (Radford et al. 2021). Ramesh et al. 2021 (section 2.6) rerank 512 samples per caption.
"""

import logging
from pathlib import Path

import numpy as np
from ml_collections import FrozenConfigDict

from genzoo import build
from genzoo.core.contract import Retrieves
from genzoo.core.errors import UserError
from genzoo.data.fields import Image, Tokens
from genzoo.evaluate import figures
from genzoo.evaluate.prompts import PromptAccuracy
from genzoo.experiment import Experiment, require, require_kind, variables_of
from genzoo.modes.across import embedded
from genzoo.modes.encode import Trained
from genzoo.modes.sample import draw, together
from genzoo.requests import Requests
from genzoo.runs import for_sampling, open_run
from genzoo.runtime.agreement import is_first
from genzoo.runtime.stopping import Stop
from genzoo.workdir import Workdir, announced

_X, _TEXT = "x", "text"
_PICTURE = "reranked.png"
_ROWS, _COLUMNS = 8, 12  # of the picture
_log = logging.getLogger("genzoo")


def rerank(config: FrozenConfigDict, workdir: Path, stop: Stop | None = None) -> dict:
    """Draws sample.count samples, sample.repeat in a row for each text, and orders those of each
    text by the run tools.ranker, best first.

    Texts are passed to the ranker as strings and go through its own tokenizer. With a judge of
    texts, as for shapes, the report has the prompt accuracy of all samples and that of the best one
    for each text. Writes `rerank.json` and `samples/reranked.png`, the samples of the first texts
    from best to worst.
    """
    experiment, place = Experiment(config, stop or Stop()), Workdir(workdir)
    require(experiment.family, config.family.name, "sample", "rerank")
    require_kind(experiment, (Image,), "rerank", "compares images with texts")
    _check(experiment)
    place.check_writable()
    state = place.load(config, experiment.abstract_state)
    variables = variables_of(state, config.sample.weights)
    family, variables = for_sampling(experiment, variables)
    requests = Requests(experiment=experiment, family=family)
    requests.check()
    ranker = _ranker(experiment)
    count, repeat = config.sample.count, config.sample.repeat
    texts = requests.texts(requests.rows(np.arange(0, count, repeat)))
    ids = _ids(ranker, texts)  # before anything is drawn
    images, _ = together(list(draw(requests, variables, {}, count)))
    of_images = embedded(ranker, _X, lambda rows: {_X: images[rows]}, count)
    of_texts = embedded(ranker, _TEXT, lambda rows: {_TEXT: ids[rows]}, len(ids))
    scores = ranked_scores(of_images, of_texts, repeat)
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, 1)
    samples = order + np.arange(0, count, repeat)[:, None]  # their indices among all
    report = {
        "ranker": config.tools.ranker,
        "step": int(state.step),
        "count": count,
        "repeat": repeat,
        "score_best": float(ranked[:, 0].mean()),
        "score_all": float(scores.mean()),
    }
    if judge := experiment.spec.judge:
        best, every = PromptAccuracy(judge), PromptAccuracy(judge)
        best.add(images[samples[:, 0]], texts)
        every.add(images, np.repeat(texts, repeat).tolist())
        report["prompt_accuracy"] = {"best": best.report(), "all": every.report()}
    report["texts"] = [
        {"text": text, "samples": own.tolist(), "scores": [round(float(s), 4) for s in values]}
        for text, own, values in zip(texts, samples, ranked, strict=True)
    ]
    picture = place.samples / _PICTURE
    if is_first():
        figures.save_rows(
            picture,
            [
                figures.Row(
                    images=images[own[:_COLUMNS]],
                    heading=text,
                    captions=[f"{score:.3f}" for score in values[:_COLUMNS]],
                )
                for text, own, values in zip(texts[:_ROWS], samples, ranked, strict=False)
            ],
            title="samples of each text, best first",
        )
    place.write("rerank.json", report)
    gain = report["score_best"] - report["score_all"]
    _log.info("The cosine of the best of %d samples is %.3f above the mean.", repeat, gain)
    return report | {"files": announced([picture, place.path / "rerank.json"])}


def ranked_scores(images: np.ndarray, texts: np.ndarray, repeat: int) -> np.ndarray:
    """The cosine of each image with its text, [N / repeat, repeat]. images: unit vectors [N, D],
    `repeat` in a row for each text. texts: unit vectors [N / repeat, D]."""
    grouped = images.reshape(len(texts), repeat, -1)
    return np.einsum("tnd,td->tn", grouped, texts)


def _check(experiment: Experiment) -> None:
    """Raises UserError if there is nothing to rank, or no ranker."""
    config, problems = experiment.config, []
    requests = Requests(experiment=experiment, family=experiment.family)
    if not any(isinstance(kind, Tokens) for kind in requests.fields.values()):
        problems.append(
            f"--mode=rerank needs a model that is conditioned on texts, which this "
            f"{config.family.name} of {config.data.name} is not: use --mode=sample."
        )
    if config.sample.repeat < 2:
        problems.append(
            "sample.repeat = 1 leaves nothing to order: give the number of samples of each text, "
            "such as 8."
        )
    elif config.sample.count % config.sample.repeat:
        problems.append(
            f"sample.count = {config.sample.count} is not a multiple of sample.repeat = "
            f"{config.sample.repeat}: change one of them."
        )
    if not config.tools.ranker:
        problems.append(
            "tools.ranker must be given: the workdir of a run that embeds images and texts, such "
            "as clip_shapes."
        )
    if problems:
        raise UserError(*problems)


def _ranker(ours: Experiment) -> Trained:
    """The ranker. Raises UserError if it does not fit."""
    tools, workdir = ours.config.tools, Path(ours.config.tools.ranker)
    mesh = build.section(ours.config, "mesh")
    keys = dict(key="tools.ranker", weights_key="tools.ranker_weights")
    opened = open_run(workdir, tools.ranker_weights, mesh, **keys)
    theirs = Experiment(opened.config, ours.stop)
    here = f"tools.ranker = {tools.ranker!r}"
    if not isinstance(opened.family, Retrieves):
        raise UserError(
            f"{here} holds a {opened.config.family.name}, which does not compare images with "
            "texts: name a run such as clip_shapes."
        )
    if theirs.shape != ours.shape:
        raise UserError(
            f"{here} compares images of shape {theirs.shape}, but this run draws images of shape "
            f"{ours.shape}: name a run on images of that shape."
        )
    return Trained(
        experiment=theirs, place=Workdir(workdir), step=0, variables=opened.variables
    )


def _ids(ranker: Trained, texts: list[str]) -> np.ndarray:
    """The texts as the ranker's ids [T, L]. Raises UserError for a text that it cannot read."""
    if "" in texts:
        raise UserError(
            "sample.conditions.text leaves some samples without a text to be compared with: give "
            "one for every sample."
        )
    field, key = ranker.experiment.spec.fields[_TEXT], "A text for tools.ranker,"
    known = {text: field.parse(text, key) for text in dict.fromkeys(texts)}
    return np.stack([known[text] for text in texts])
