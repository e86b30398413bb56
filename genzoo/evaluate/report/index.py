"""The index of a gallery: one card for each run, by the room that its family belongs to."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from genzoo.core.version import VERSION
from genzoo.evaluate.report import account, images, scores, words
from genzoo.evaluate.report.folder import Folder
from genzoo.evaluate.report.images import Picture
from genzoo.evaluate.report.parts import Card, Fact, Index, Room

BUDGET = 2_300_000
"""Bytes of pictures on the index, as data URIs; with all else it stays under 3 MB."""
_MOST_BYTES = 120_000  # of one picture: a few large ones must not make the index slow


def index(folders: Sequence[Folder], rooms: Sequence[str], links: Sequence[str]) -> Index:
    """The index of runs. rooms: the title of each run's room; rooms appear in the order of first
    mention. links: to each run's page, relative to the index."""
    pictures = _album(folders)
    cards: dict[str, list[Card]] = {}
    for folder, room, link in zip(folders, rooms, links, strict=True):
        cards.setdefault(room, []).append(_card(folder, link, pictures.get(folder.path)))
    several = len(folders) > 1
    return Index(
        title="Gallery",
        kicker="genzoo",
        summary=f"{len(folders)} {'runs' if several else 'run'}. Numbers with different "
        "protocols cannot be compared; each card links to the report on its run.",
        rooms=[Room(_anchor(title), title, made) for title, made in cards.items()],
        colophon=f"Made by genzoo {VERSION}.",
    )


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _card(folder: Folder, link: str, found: tuple[Picture, str] | None) -> Card:
    cost, facts = account.of(folder), []
    if math.isfinite(cost.seconds):
        where = account.device(folder)
        facts.append(Fact("Time", words.duration(cost.seconds) + (f", {where}" if where else "")))
    if math.isfinite(cost.parameters):
        facts.append(Fact("Parameters", words.scaled(cost.parameters, "").strip()))
    done = folder.step >= folder.total
    steps = f"{folder.step:,}" + ("" if done else f" of {folder.total:,}")
    facts.append(Fact("Steps", steps))
    kind = " ".join(filter(None, [folder.family, folder.dataset and f"on {folder.dataset}"]))
    picture, alt = found or (None, "")
    return Card(
        title=folder.name,
        about=kind or "A run",
        link=link,
        score=next(iter(scores.headlines(folder)), None),
        facts=facts,
        picture=picture,
        alt=alt,
    )


def _album(folders: Sequence[Folder]) -> Mapping[Path, tuple[Picture, str]]:
    """Workdir -> (the picture of its card, what it shows), for runs that have one."""
    share = min(_MOST_BYTES, BUDGET // max(1, len(folders)))
    album = {}
    for folder in folders:
        for path, shows in _candidates(folder):
            try:
                picture = images.encoded(path, share, natural=True)
            except images.Damaged:
                continue
            album[folder.path] = picture, f"{folder.name}: {shows}"
            break
    return album


def _candidates(folder: Folder) -> Iterator[tuple[Path, str]]:
    """The pictures of a run, the most telling first: the newest grid of training, from an average
    of the weights if there is one, then grids of samples, then others."""
    for grid in sorted(folder.grids, key=lambda g: (-g.step, g.weights == "raw", g.weights)):
        yield grid.path, f"grid at step {grid.step:,}, weights {grid.weights}"
    for drawn in sorted(folder.drawn, key=lambda each: each.name != "grid"):
        title, _ = words.PICTURES.get(drawn.name, (words.titled(drawn.name), ""))
        yield drawn.path, title
