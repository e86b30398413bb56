"""The parts of a page: sections, and the blocks in them. The template draws each by its kind."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from genzoo.evaluate.report.charts import Chart
from genzoo.evaluate.report.images import Picture


@dataclass(frozen=True)
class Fact:
    """A term and its value. note: a remark after it."""

    term: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """A list of facts. title: above it."""

    facts: Sequence[Fact]
    title: str = ""
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Prose:
    """Paragraphs. quiet: in small letters."""

    paragraphs: Sequence[str]
    quiet: bool = False
    kind: ClassVar[str] = "prose"


@dataclass(frozen=True)
class Command:
    """A command line. label: what it did."""

    label: str
    text: str
    kind: ClassVar[str] = "command"


@dataclass(frozen=True)
class Charts:
    """Charts side by side."""

    charts: Sequence[Chart]
    kind: ClassVar[str] = "charts"


@dataclass(frozen=True)
class Frame:
    """A picture of a slide show. step: its place on the slider. series: which of several shows."""

    step: int
    series: str
    picture: Picture
    alt: str


@dataclass(frozen=True)
class Slides:
    """Pictures over the steps of training, with a slider. name: for readers who do not see them.
    caption, title: below and above them. total: the steps of the whole run; 0 if unknown."""

    name: str
    frames: Sequence[Frame]
    caption: str = ""
    total: int = 0
    title: str = ""
    kind: ClassVar[str] = "slides"

    @property
    def steps(self) -> list[int]:
        """The steps that have a picture, ascending."""
        return sorted({frame.step for frame in self.frames})

    @property
    def series(self) -> list[str]:
        """The names of the series; averages come before the params themselves."""
        return sorted({frame.series for frame in self.frames}, key=lambda s: (s == "raw", s))


@dataclass(frozen=True)
class Plate:
    """A picture with a caption."""

    picture: Picture
    title: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Plates:
    """Pictures, each with its caption."""

    plates: Sequence[Plate]
    kind: ClassVar[str] = "plates"


@dataclass(frozen=True)
class Row:
    """A row of a table: its cells. depth: of indentation. marked: whether its values differ where
    they should not."""

    cells: Sequence[str]
    depth: int = 0
    marked: bool = False


@dataclass(frozen=True)
class Table:
    """A table. head: the names of the columns. text: the columns that hold no numbers."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Row]
    text: frozenset[int] = frozenset((0,))
    note: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Share:
    """A part of a whole. left, width: of its bar, in per cent."""

    name: str
    value: str
    left: float
    width: float
    rank: int


@dataclass(frozen=True)
class Shares:
    """The parts of a whole, as one bar with its numbers."""

    caption: str
    shares: Sequence[Share]
    kind: ClassVar[str] = "shares"


@dataclass(frozen=True)
class Pair:
    """Blocks beside other blocks, where there is room."""

    first: Sequence[object]
    second: Sequence[object]
    kind: ClassVar[str] = "pair"


@dataclass(frozen=True)
class Folded:
    """Blocks that the reader opens. label: what is inside."""

    label: str
    blocks: Sequence[object]
    kind: ClassVar[str] = "folded"


@dataclass(frozen=True)
class Section:
    """A section of a page. name: its anchor. lead: a quiet sentence below its title."""

    name: str
    title: str
    blocks: Sequence[object] = field(default=())
    lead: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page. title: of the run. kicker: above it. summary: a sentence below it. figures: the few
    numbers that matter. problems: what is missing or damaged. colophon: how the page was made. up:
    a link to the index of which this is a page; "" if there is none."""

    title: str
    kicker: str
    summary: str
    figures: Sequence[Fact]
    sections: Sequence[Section]
    problems: Sequence[str] = ()
    colophon: str = ""
    up: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A run in the index of a gallery. about: family and data. link: to its page, relative to the
    index. score: the one number that matters, with its protocol as the note; None if there is none.
    facts: duration, parameters and the like. picture, alt: None and "" if it has none."""

    title: str
    about: str
    link: str
    score: Fact | None = None
    facts: Sequence[Fact] = ()
    picture: Picture | None = None
    alt: str = ""


@dataclass(frozen=True)
class Room:
    """Cards of runs of one kind. name: its anchor."""

    name: str
    title: str
    cards: Sequence[Card]


@dataclass(frozen=True, kw_only=True)
class Index:
    """The index of a gallery. kicker: above the title; summary: below it."""

    title: str
    kicker: str
    summary: str
    rooms: Sequence[Room]
    colophon: str = ""
