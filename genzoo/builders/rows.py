"""Rows of the tables in `build.py`: what is known of a data set, a network, a family by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ml_collections import FrozenConfigDict

from genzoo.config import Section, keys_of
from genzoo.core.contract import Family
from genzoo.data.fields import Field, Image
from genzoo.data.source import Source, Spec
from genzoo.settings import Nothing


@dataclass(frozen=True, kw_only=True)
class DataRow:
    """A data set known by name: (split, dir) -> source, and its spec before it is opened."""

    open: Callable[..., Source]
    spec: Spec


@dataclass(frozen=True, kw_only=True)
class NetworkRow:
    """settings: a settings class with `problems(shape)` and `build(**given)`, where the family
    knows what is to be given. kinds: of data that it takes."""

    settings: type
    kinds: tuple[type[Field], ...] = (Image,)

    @property
    def keys(self) -> Section:
        """What may stand in the section `network`."""
        return keys_of(self.settings)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a family's builder is handed beside its own section.

    shape: of one datum. levels: whether the data are on 256 levels, as images are. network: builds
    the network of the config from what the family supplies. sample, eval: the family's own keys of
    these sections. frozen: first stages and teachers, by name.
    """

    shape: tuple[int, ...]
    levels: bool
    num_classes: int
    network: Callable
    sample: object
    eval: object
    frozen: Mapping[str, Family]


@dataclass(frozen=True, kw_only=True)
class FamilyRow:
    """build(parts=, **section) -> Family; problems(config) looks across sections.

    networks: the networks that it can be made of; none for a family without. sampling, scoring:
    its own keys of the sections `sample` and `eval`. first_stages: the names in the section
    `frozen` that it needs, each with the capability that it asks of it. instead: capability that it
    lacks -> a sentence on where to find it. labelled: whether it always learns from labels, and not
    only where family.conditional says so. kinds: of data that it models.
    """

    networks: tuple[str, ...]
    build: Callable[..., Family] = None
    problems: Callable[[FrozenConfigDict], list[str]] = None
    settings: type | None = None
    sampling: type = Nothing
    scoring: type = Nothing
    first_stages: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    labelled: bool = False
    kinds: tuple[type[Field], ...] = (Image,)

    @property
    def keys(self) -> Section:
        """What may stand in the section `family`."""
        return keys_of(self.settings or self.build, given=("parts",))

    @property
    def own_keys(self) -> Mapping[str, Section]:
        """What may stand in other sections because of this family."""
        return {"sample": keys_of(self.sampling), "eval": keys_of(self.scoring)}
