"""Rows of the tables in `build.py`: what is known of a data set, a network, a family by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from genzoo.builders.conditions import ConditionSettings
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

    shape: of one datum. levels: whether the data are on 256 levels, as images are. classes: of the
    data, where the family learns them. fields: of the data. conditions: what the model is told.
    network: builds the network of the config from what the family supplies. sample, eval: the
    family's own keys of these sections. frozen: models of other runs, by name.
    """

    shape: tuple[int, ...]
    levels: bool
    classes: int
    fields: Mapping[str, Field]
    conditions: Mapping[str, ConditionSettings]
    network: Callable
    sample: object
    eval: object
    frozen: Mapping[str, Family]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a family needs of another run.

    capability: the protocol that the model there must satisfy. called: what it must be, in words.
    role: "frozen" if training uses it as it is: section `frozen`, under its own name. "start" if
    training starts from it: section `start`; the family `Starts`. "sampling" if sampling alone asks
    it, where it is named: `sample.NAME`, with `sample.NAME_weights`. same_shape: whether it is
    handed examples of our own shape. needs: dotted keys of its config and the values they must
    have.
    """

    capability: type
    called: str
    role: Literal["frozen", "start", "sampling"] = "frozen"
    same_shape: bool = True
    needs: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FamilyRow:
    """settings: a settings class with `build(parts) -> Family`.

    networks: the networks that it can be made of; none for a family without. sampling, scoring:
    settings classes of its own keys in the sections `sample` and `eval`. Each of the three says in
    `problems(config)` what does not fit together, where there is something to say. stages: what it
    needs of other runs, by name. instead: capability that it lacks -> a sentence on where to find
    it. labelled: whether it always learns from labels, and not only where it is told them. told:
    whether it takes conditions. kinds: of data that it models.
    """

    settings: type
    networks: tuple[str, ...] = ()
    sampling: type = Nothing
    scoring: type = Nothing
    stages: Mapping[str, Stage] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    labelled: bool = False
    told: bool = False
    kinds: tuple[type[Field], ...] = (Image,)

    def of_role(self, role: str) -> Mapping[str, Stage]:
        """Those of its stages that have this role, by name."""
        return {name: stage for name, stage in self.stages.items() if stage.role == role}

    @property
    def own_keys(self) -> Mapping[str, Mapping[str, Setting]]:
        """What may stand in other sections because of this family."""
        return {"sample": settings_of(self.sampling), "eval": settings_of(self.scoring)}
