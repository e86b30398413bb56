"""`--mode=latents`: draws a latent space: traversals of its units, its plane, its codebook."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ml_collections import FrozenConfigDict

from genzoo import build
from genzoo.core.contract import CodeGrid, Decodes, Encodes, Tokenizes, Variables
from genzoo.core.errors import UserError
from genzoo.core.types import Batch, Images
from genzoo.data.source import Source
from genzoo.evaluate import figures
from genzoo.math.quantisation import perplexity
from genzoo.modes.encode import Embedded, Trained, chosen, trained
from genzoo.runtime.agreement import is_first
from genzoo.runtime.stopping import Stop
from genzoo.workdir import announced

_UNITS = 10  # number of units traversed, those of largest variance
_DEVIATIONS = np.linspace(-3, 3, 13)
_MAX_UNITS = 4096  # with more, a single unit means little
_MAX_LISTED = 256  # with more units, their means and deviations are not reported
_SIDE = 20  # side of the grid over a plane of codes
_CENTRAL = (0.005, 0.995)  # quantiles of the codes that bound the grid
_CODES = 64  # number of codes decoded of each level
_log = logging.getLogger("genzoo")


def latents(config: FrozenConfigDict, workdir: Path, stop: Stop | None = None) -> dict:
    """Draws the latent space of eval.split and writes its figures into `latents.json`.

    The pictures are `samples/traversals.png` of the units of largest variance,
    `samples/latent_plane.png` if there are two units, and `samples/codebook.png` for a family that
    tokenizes.
    """
    tokenizes = isinstance(build.family(config), Tokenizes)
    needed = () if tokenizes else ("encode", "decode")
    model = trained(config, workdir, "latents", *needed, stop=stop)
    source = model.experiment.open(config.eval.split)
    indices = chosen(config, source)
    if len(indices) < 2:
        raise UserError(
            f"--mode=latents needs at least 2 examples, but eval.split = {config.eval.split!r} "
            f"with eval.count = {config.eval.count} gives {len(indices)}: raise eval.count."
        )
    report = {"split": config.eval.split, "step": model.step, "examples": len(indices)}
    if isinstance(model.family, Encodes) and isinstance(model.family, Decodes):
        report["units"] = _units(model, source, indices)
    if tokenizes:
        report["levels"] = _codebook(model, source, indices)
    model.place.write("latents.json", report)
    shown = {k: v for k, v in report.items() if k not in ("units", "levels")}
    units, drawn = report.get("units", {}), {}
    drawn["traversals.png"], drawn["latent_plane.png"] = "traversed" in units, "plane" in units
    drawn["codebook.png"] = tokenizes
    made = [model.place.samples / name for name, was_drawn in drawn.items() if was_drawn]
    return shown | {"files": announced([*made, model.place.path / "latents.json"])}


# --- units ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Codes:
    """Statistics of the codes of many examples.

    mean, deviation: [D], of each unit. first: [D], the code of the first example. points, labels:
    all codes [N, 2] and their labels [N], if there are two units and labels; else None.
    """

    mean: np.ndarray
    deviation: np.ndarray
    first: np.ndarray
    points: np.ndarray | None
    labels: np.ndarray | None


def summed_up(passes: Iterable[Embedded]) -> Codes:
    """The statistics of the codes in one pass, without keeping all codes in memory."""
    count, kept, labels = 0, [], []
    for batch in passes:
        codes = batch.embedding.astype(np.float64)
        if not count:
            first = codes[0]
            total, squares = np.zeros_like(first), np.zeros_like(first)
        count += len(codes)
        total += (codes - first).sum(0)  # relative to one code, which avoids cancellation
        squares += np.square(codes - first).sum(0)
        if codes.shape[1] == 2:
            kept.append(batch.embedding)
            labels.append(batch.label)
    shift = total / count
    return Codes(
        mean=first + shift,
        deviation=np.sqrt(np.maximum(squares / count - np.square(shift), 0)),
        first=first,
        points=np.concatenate(kept) if kept else None,
        labels=np.concatenate(labels) if kept and labels[0] is not None else None,
    )


def traversed(codes: Codes) -> tuple[np.ndarray, np.ndarray]:
    """(units [U], codes [U, T, D]): the units of largest variance, each varied from -3 to 3
    standard deviations around its mean while the others keep the values of the first example."""
    order = np.argsort(-codes.deviation, kind="stable")[:_UNITS]
    points = np.tile(codes.first, (len(order), len(_DEVIATIONS), 1))
    for row, unit in enumerate(order):
        points[row, :, unit] = codes.mean[unit] + _DEVIATIONS * codes.deviation[unit]
    return order, points


def _units(model: Trained, source: Source, indices: np.ndarray) -> dict:
    config = model.experiment.config
    codes = summed_up(model.embeddings(source, config.eval.split, indices))
    size = len(codes.mean)
    report: dict = {"dimensions": size}
    if size <= _MAX_LISTED:
        report |= {"mean": codes.mean.tolist(), "deviation": codes.deviation.tolist()}
    if size > _MAX_UNITS:
        report["traversals"] = (
            f"No traversals were drawn: a code has {size} units, more than {_MAX_UNITS}, and a "
            "single one changes almost nothing."
        )
        _log.info(report["traversals"])
    else:
        report["traversed"] = _traversals(model, codes)
    if codes.points is not None:
        report["plane"] = _plane(model, codes, source.spec.classes)
    return report


def _traversals(model: Trained, codes: Codes) -> list[int]:
    units, points = traversed(codes)
    size = points.shape[-1]
    drawn = model.decoded(np.concatenate([codes.first[None], points.reshape(-1, size)]))
    start, moved = drawn[:1], drawn[1:].reshape(*points.shape[:2], *drawn.shape[1:])
    rows = [
        figures.Row(
            images=np.concatenate([start, images]),
            label=f"unit {unit}\nsd {codes.deviation[unit]:.3g}",
        )
        for unit, images in zip(units, moved, strict=True)
    ]
    if is_first():
        figures.save_rows(
            model.place.samples / "traversals.png",
            rows,
            columns=("example", *(f"{d:+g}" if d else "mean" for d in _DEVIATIONS)),
            apart=(1,),
            title="one unit at a time, in standard deviations (sd) around its mean",
        )
    return units.tolist()


def _plane(model: Trained, codes: Codes, classes: tuple[str, ...]) -> dict:
    box = np.quantile(codes.points, _CENTRAL, axis=0)
    # The codes at the centres of the pictures.
    across, up = (low + (high - low) * (np.arange(_SIDE) + 0.5) / _SIDE for low, high in box.T)
    grid = np.stack(np.meshgrid(across, up), axis=-1)
    drawn = model.decoded(grid.reshape(-1, 2))
    if is_first():
        figures.save_plane(
            model.place.samples / "latent_plane.png",
            codes.points,
            codes.labels,
            classes,
            drawn.reshape(_SIDE, _SIDE, *drawn.shape[1:]),
            box,
        )
    return {"low": box[0].tolist(), "high": box[1].tolist()}


# --- codes ----------------------------------------------------------------------------------------


def _codebook(model: Trained, source: Source, indices: np.ndarray) -> list[dict]:
    grids = model.family.code_grids
    counts = [np.zeros(grid.size, np.int64) for grid in grids]

    def tokens(variables: Variables, rows: Batch) -> tuple:
        return model.family.codes(variables, model.experiment.prepared(rows))

    for codes in model.passes("codes", tokens, source.read, indices, "reading codes"):
        for level, grid_codes in enumerate(codes):
            counts[level] += np.bincount(grid_codes.ravel(), minlength=grids[level].size)
    levels, report = [], []
    for level, (grid, used) in enumerate(zip(grids, counts, strict=True)):
        numbers = {
            "shape": list(grid.shape),
            "size": grid.size,
            "in_use": int((used > 0).sum()),
            "perplexity": float(perplexity(used / used.sum())),
        }
        report.append({**numbers, "counts": used.tolist()})
        title = (
            f"level {level}: {numbers['in_use']} of {grid.size} codes in use, "
            f"perplexity {numbers['perplexity']:.1f}"
        )
        images = _single_codes(model, grids, counts, level)
        levels.append(figures.Level(title=title, counts=used, images=images))
    if is_first():
        figures.save_codebook(model.place.samples / "codebook.png", levels)
    return report


def _single_codes(
    model: Trained, grids: tuple[CodeGrid, ...], counts: list[np.ndarray], level: int
) -> np.ndarray:
    """Images decoded from the most used codes of a level, each repeated over the whole grid, with
    the other levels at their most frequent code."""
    order = np.argsort(-counts[level], kind="stable")[:_CODES]
    order = order[counts[level][order] > 0]

    def read(at: np.ndarray) -> dict[str, np.ndarray]:
        fill = [np.full(len(at), used.argmax()) for used in counts]
        fill[level] = order[at]
        return {
            f"level_{i}": np.broadcast_to(
                code.reshape(-1, *(1 for _ in grid.shape)), (len(at), *grid.shape)
            ).astype(np.int32)
            for i, (code, grid) in enumerate(zip(fill, grids, strict=True))
        }

    def drawn(variables: Variables, rows: Batch) -> Images:
        codes = tuple(rows[f"level_{i}"] for i in range(len(grids)))
        return model.family.decode_codes(variables, codes)

    return model.images("decode_codes", drawn, read, len(order), "decoding codes")
