"""Rows of the tables in `build.py`: what is known of a data set, a network, a family by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from genzoo.core.bounds import Setting, settings_of
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


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a family's builder is handed beside its own section.

    shape: of one datum. levels: whether the data are on 256 levels, as images are. spatial: the
    names of the fields that are mirrored with an image. network: builds the network of the config
    from what the family supplies. sample, eval: the family's own keys of these sections. frozen:
    first stages and teachers, by name.
    """

    shape: tuple[int, ...]
    levels: bool
    spatial: tuple[str, ...]
    num_classes: int
    network: Callable
    sample: object
    eval: object
    frozen: Mapping[str, Family]


@dataclass(frozen=True, kw_only=True)
class FamilyRow:
    """settings: a settings class with `problems(config)` and `build(parts) -> Family`.

    networks: the networks that it can be made of; none for a family without. sampling, scoring:
    settings classes of its own keys in the sections `sample` and `eval`. first_stages: the names in
    the section `frozen` that it needs, each with the capability that it asks of it. instead:
    capability that it lacks -> a sentence on where to find it. labelled: whether it always learns
    from labels, and not only where family.conditional says so. kinds: of data that it models.
    """

    settings: type
    networks: tuple[str, ...] = ()
    sampling: type = Nothing
    scoring: type = Nothing
    first_stages: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    labelled: bool = False
    kinds: tuple[type[Field], ...] = (Image,)

    @property
    def own_keys(self) -> Mapping[str, Mapping[str, Setting]]:
        """What may stand in other sections because of this family."""
        return {"sample": settings_of(self.sampling), "eval": settings_of(self.scoring)}
