"""The page of one run, and the page of several side by side: sections in the order of reading."""

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from genzoo.core.version import VERSION
from genzoo.evaluate.report import account, curves, images, scores, setup, words
from genzoo.evaluate.report.charts import NOTHING, brief
from genzoo.evaluate.report.folder import Drawn, Folder, number, section
from genzoo.evaluate.report.images import Picture
from genzoo.evaluate.report.parts import (
    Charts,
    Fact,
    Facts,
    Frame,
    Page,
    Plate,
    Plates,
    Prose,
    Row,
    Section,
    Slides,
    Table,
)

BUDGET = 2_300_000
"""Bytes of pictures on a page, as data URIs; with all else a page stays under 3 MB."""
_MOST_PICTURES = 40


@dataclass(frozen=True, kw_only=True)
class About:
    """What the program knows of a family. expect: what you should see. samples: whether it samples,
    and not only reconstructs. defaults: dotted key -> the default of a setting."""

    expect: str = ""
    samples: bool = True
    defaults: Mapping[str, object] = field(default_factory=dict)


def run_page(folder: Folder, about: About, up: str = "") -> Page:
    """The report on a run. up: a link to the index of the gallery that the page is part of, which
    makes a page without the time of its making: the same run has the same page; "" if none."""
    problems = list(folder.problems)
    pictures, altered = _album([folder], BUDGET, problems)
    cost = account.of(folder)
    sections = [
        _safely(problems, "Samples", lambda: _samples(folder, about, pictures)),
        Section("expect", "What you should see", [Prose([about.expect])] if about.expect else []),
        _safely(problems, "Curves", lambda: curves.curves_section(folder)),
        _safely(problems, "Evaluation", lambda: scores.scores_section(folder)),
        _safely(problems, "Pictures", lambda: _plates(folder, pictures)),
        _safely(problems, "Cost", lambda: account.cost_section(folder, cost)),
        _safely(problems, "Setup", lambda: setup.setup_section(folder, about.defaults)),
    ]
    return Page(
        title=folder.name,
        kicker=_kicker(folder),
        summary=_summary(folder, cost),
        figures=_figures(folder, cost),
        sections=[each for each in sections if each.blocks],
        problems=problems,
        colophon=_colophon(altered, dated=not up),
        up=up,
    )


def comparison_page(folders: Sequence[Folder], abouts: Sequence[About]) -> Page:
    """Several runs side by side."""
    problems = [f"{folder.name}: {p}" for folder in folders for p in folder.problems]
    names = distinct([folder.name for folder in folders])
    for folder in folders:
        folder.grids = _last_grids(folder)
    pictures, altered = _album(folders, BUDGET, problems, grids_only=True)
    shows = [
        Slides(name, frames, "", folder.total, name)
        for folder, name in zip(folders, names, strict=True)
        if (frames := _frames(folder, pictures))
    ]
    expected = dict.fromkeys(
        (folder.family, about.expect)
        for folder, about in zip(folders, abouts, strict=True)
        if about.expect
    )
    expects = [Facts([Fact(family, expect) for family, expect in expected])] if expected else []
    sections = [
        Section("runs", "The runs", [_run_table(folders, names)]),
        Section("samples", "Samples", shows),
        Section("expect", "What you should see", expects),
        _safely(problems, "Curves", lambda: _curves(folders, names)),
        _safely(
            problems, "Evaluation",
            lambda: Section("scores", "Evaluation", scores.compared(folders, names)),
        ),
        _safely(
            problems, "Setup", lambda: Section("setup", "Setup", setup.compared(folders, names))
        ),
    ]  # fmt: skip
    return Page(
        title=", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0],
        kicker=f"Comparison of {len(folders)} runs",
        summary="",
        figures=(),
        sections=[each for each in sections if each.blocks],
        problems=problems,
        colophon=_colophon(altered),
    )


def distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where several are the same."""
    made: list[str] = []
    for name in names:
        count = sum(made_name.partition(" (")[0] == name for made_name in made)
        made.append(f"{name} ({count + 1})" if count else name)
    return made


def _safely(problems: list[str], title: str, made: Callable[[], Section]) -> Section:
    """A section, or an empty one if something in it could not be understood: files that a person
    or a program has changed cost their section and not the page."""
    try:
        return made()
    except Exception as error:  # whatever it is, the reader wants the other sections
        problems.append(f"{title}: left out, because of {type(error).__name__}: {error}.")
        return Section(title.lower(), title)


# --- pictures -------------------------------------------------------------------------------------


def _album(
    folders: Sequence[Folder], budget: int, problems: list[str], grids_only: bool = False
) -> tuple[dict, bool]:
    """(the pictures of the page by path, whether pixels were lost)."""
    paths = [grid.path for folder in folders for grid in folder.grids]
    drawn = [each for folder in folders for each in folder.drawn if not grids_only]
    if len(drawn) > _MOST_PICTURES:
        problems.append(f"{len(drawn) - _MOST_PICTURES} older pictures are not shown.")
    paths += [each.path for each in drawn[:_MOST_PICTURES]]
    pictures, missing = images.within(paths, budget)
    problems += missing
    return pictures, any(picture.altered for picture in pictures.values())


def _frames(folder: Folder, pictures: Mapping) -> list[Frame]:
    return [
        Frame(
            grid.step, grid.weights, pictures[grid.path],
            f"Sample grid at step {grid.step:,}, weights {grid.weights}",
        )
        for grid in folder.grids
        if grid.path in pictures
    ]  # fmt: skip


def _last_grids(folder: Folder) -> list:
    """The grids of the best weights alone: those of an average, if there is one."""
    weights = {grid.weights for grid in folder.grids}
    best = sorted(weights - {"raw"}) or sorted(weights)
    return [grid for grid in folder.grids if grid.weights == best[0]] if best else []


def _samples(folder: Folder, about: About, pictures: Mapping) -> Section:
    what = "Samples" if about.samples else "Reconstructions"
    frames = _frames(folder, pictures)
    if not frames:
        return Section("samples", what)
    caption = (
        "The same noise at every step." if about.samples else "The same test images at every step."
    )
    if any(frame.series != "raw" for frame in frames):
        caption += " An average of the weights (ema) lags behind the weights themselves (raw)."
    return Section(
        "samples", f"{what} over training", [Slides(what, frames, caption, folder.total)]
    )


def _plates(folder: Folder, pictures: Mapping) -> Section:
    blocks: list = []
    curves_of = curves.schedules(folder.schedules)
    shown = [
        _plate(each, pictures[each.path])
        for each in folder.drawn
        if each.path in pictures and not (each.name == "schedule" and curves_of)
    ]
    if curves_of:
        blocks.append(Charts(curves_of))
    if shown:
        blocks.append(Plates(shown))
    return Section("pictures", "Pictures", blocks)


_MEASURED = {
    "evaluations": "NFE", "prompt_accuracy": "accuracy", "psnr": "PSNR", "outlines": "outlines",
}  # fmt: skip
"""What --mode=sample measures of its samples -> its name in their caption."""


def _plate(drawn: Drawn, picture: Picture) -> Plate:
    title, caption = words.PICTURES.get(drawn.name, (words.capital(words.titled(drawn.name)), ""))
    if drawn.settings:
        varied = words.VARIED.get(drawn.name, ())
        sample = {k: v for k, v in section(drawn.settings, "sample").items() if k not in varied}
        told = [f"step {words.shown(drawn.settings.get('step'))}"]
        told += [f"{k.replace('_', ' ')} {words.plain(sample[k])}" for k in words.SETTINGS
                 if k in sample and sample[k] not in ((), [], "", None, 1.0)]  # fmt: skip
        for key, name in _MEASURED.items():
            if key in drawn.settings and drawn.name == "grid":
                told.append(f"{name} {words.shown(drawn.settings[key])}")
        caption = f"{caption} {words.capital(', '.join(told))}."
    return Plate(picture, title, caption.strip(), f"{title}: {caption}".strip(": "))


# --- words ----------------------------------------------------------------------------------------


def _kicker(folder: Folder) -> str:
    parts = [folder.family, folder.dataset and f"on {folder.dataset}"]
    return " ".join(filter(None, parts)) or "A run"


def _summary(folder: Folder, cost: account.Cost) -> str:
    batch = section(folder.config, "train").get("batch_size")
    steps = f"{folder.step:,} of {folder.total:,}" if folder.step < folder.total else (
        f"{folder.step:,}"
    )  # fmt: skip
    size = f" of {batch:,} examples" if isinstance(batch, int) else ""
    parts = [f"{steps} steps{size}"]
    if math.isfinite(cost.seconds):
        parts.append(f"in {words.duration(cost.seconds)}")
    if where := account.device(folder):
        parts.append(f"on {where}")
    begun = setup.named_config(folder)
    return " ".join(parts) + (f", from the config {begun}." if begun else ".")


def _figures(folder: Folder, cost: account.Cost) -> list[Fact]:
    facts = [Fact("Steps", f"{folder.step:,}")]
    losses = [number(line.get("loss")) for line in folder.lines]
    if known := [loss for loss in losses if math.isfinite(loss)]:
        tail = known[-max(1, len(known) // 12) :]
        facts.append(Fact("Loss", brief(sum(tail) / len(tail))))
    facts += scores.headlines(folder)[:1]
    if math.isfinite(cost.parameters):
        facts.append(Fact("Parameters", words.scaled(cost.parameters, "").strip()))
    if math.isfinite(cost.seconds):
        facts.append(Fact("Time", words.duration(cost.seconds)))
    return facts


def _colophon(altered: bool, dated: bool = True) -> str:
    now = words.moment(datetime.datetime.now(datetime.UTC).isoformat())
    said = (
        " Large pictures are compressed or smaller here than in samples/, so that this page stays "
        "under 3 MB." if altered else ""
    )  # fmt: skip
    return f"Made by genzoo {VERSION}{f' on {now}' if dated else ''}.{said}"


# --- comparison -----------------------------------------------------------------------------------


def _run_table(folders: Sequence[Folder], names: Sequence[str]) -> Table:
    shown = [_figures(folder, account.of(folder)) for folder in folders]
    terms = dict.fromkeys(fact.term for facts in shown for fact in facts)
    figures = [
        {fact.term: fact.value for fact in (*facts, *scores.headlines(folder))}
        for facts, folder in zip(shown, folders, strict=True)
    ]
    rows = [
        Row(("Family", *(folder.family or NOTHING for folder in folders))),
        Row(("Data", *(folder.dataset or NOTHING for folder in folders))),
    ]
    rows += [
        Row((term, *(each.get(term, NOTHING) for each in figures)))
        for term in terms
    ]
    rows.append(Row(("Device", *(account.device(folder) or NOTHING for folder in folders))))
    return Table("", ("", *names), rows)


def _curves(folders: Sequence[Folder], names: Sequence[str]) -> Section:
    charts = curves.compared(folders, names)
    lead = ""
    if len({folder.family for folder in folders}) > 1:
        lead = "Losses of different families measure different things; only their shapes compare."
    return Section("curves", "Curves", [Charts(charts)] if charts else [], lead)
