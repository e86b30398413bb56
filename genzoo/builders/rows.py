"""Rows of the tables in `build.py`: networks and families."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from genzoo.builders.conditions import TEXT_ENCODER, ConditionSettings
from genzoo.builders.space import LATENT
from genzoo.core.bounds import Setting, settings_of
from genzoo.core.contract import EncodesText, Family
from genzoo.core.latents import Compresses
from genzoo.data.fields import Field, Image
from genzoo.nets.interface import InnerMap
from genzoo.settings import Nothing
from genzoo.systems.latent import FIRST


@dataclass(frozen=True, kw_only=True)
class NetworkRow:
    """A network. settings: a settings class with `problems(shape)`, `size(shape, **arguments)` and
    `build(**arguments)`, whose arguments come from the family. kinds: of data that it accepts."""

    settings: type
    kinds: tuple[type[Field], ...] = (Image,)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Inputs of a family's builder besides the section `family`.

    shape: of one datum. levels: whether the data has 256 levels, as images do. classes: the number
    of classes, if the family learns them, else 0. fields: of the data. conditions: of the config.
    network: builds the network of the config from the arguments that the family supplies. inner:
    (number of a block, the config key that gives it) -> the map after it; None if the network has
    no such maps. sample, eval: the family's own keys in these sections. frozen: models of other
    runs, by name.
    """

    shape: tuple[int, ...]
    levels: bool
    classes: int
    fields: Mapping[str, Field]
    conditions: Mapping[str, ConditionSettings]
    network: Callable
    inner: Callable[[int, str], InnerMap] | None
    sample: object
    eval: object
    frozen: Mapping[str, Family]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A model of another run that a family needs.

    capability: the protocol that it must satisfy. called: its description in messages, such as "a
    tokenizer of the same data".
    role: "frozen" if training uses it unchanged; the config names it in the section `frozen`.
    "start" if training starts from it; the config names it in the section `start` and the family
    `Starts`. "sampling" if only sampling uses it, and only if `sample.NAME` names it, with
    `sample.NAME_weights`.
    same_shape: whether its data must have our shape. same_text: whether its texts must have our
    vocabulary. same_conditions: whether conditions that both models have must be made and enter
    alike. like: the frozen stage with whose config its family, network and conditions must agree.
    needs: dotted keys of its config and the values that they must have. only: at most one key of
    our section `family` and the values with which the model is needed; empty if it always is.
    """

    capability: type
    called: str
    role: Literal["frozen", "start", "sampling"] = "frozen"
    same_shape: bool = True
    same_text: bool = False
    same_conditions: bool = False
    like: str = ""
    needs: Mapping[str, object] = field(default_factory=dict)
    only: Mapping[str, tuple] = field(default_factory=dict)

    def needed(self, family: Mapping) -> bool:
        """Whether a config with this section `family` needs it."""
        return all(family.get(key) in values for key, values in self.only.items())


THROUGH: Mapping[str, Stage] = {
    TEXT_ENCODER: Stage(
        capability=EncodesText,
        called="a text encoder, such as a text_encoder or a contrastive model of texts",
        same_shape=False,
        same_text=True,
    )
}
"""Frozen models that conditions may go through, by the name in `conditions.NAME.through`."""
INSIDE: Mapping[str, Stage] = {
    FIRST: Stage(
        capability=Compresses,
        called="a first stage for the same data, such as a kl_autoencoder, a vae or a vqvae",
    )
}
"""Frozen models that a latent space needs."""


@dataclass(frozen=True, kw_only=True)
class FamilyRow:
    """A family. settings: a settings class with `build(parts) -> Family`, with `size(network,
    parts) -> Size` if the family adds to the size of its network, and with `require_installed()`
    if its training may need a package that other modes do without.

    networks: the networks that it can use; empty for a family without one. sampling, scoring:
    settings classes of its own keys in the sections `sample` and `eval`. Any of the three classes
    may have a method `problems(config)` that lists conflicting settings. stages: models of other
    runs that it needs, by name. instead: a capability that it lacks -> a sentence on what to use
    instead. labelled: whether it always needs labels, and not only when conditioned on them.
    conditional: whether it takes conditions. latent: whether it can model the latents of a first
    stage. kinds: of data that it models. expect: what you should see while it trains, in a sentence
    or three, for the report. room: the title under which a gallery shows its runs. fitted: whether
    it is fitted in one pass, without an optimizer (`Fits`). encodes: the field that it encodes, if
    it can.
    """

    settings: type
    networks: tuple[str, ...] = ()
    sampling: type = Nothing
    scoring: type = Nothing
    stages: Mapping[str, Stage] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    labelled: bool = False
    conditional: bool = False
    latent: bool = False
    kinds: tuple[type[Field], ...] = (Image,)
    expect: str = ""
    room: str = "Other models"
    fitted: bool = False
    encodes: str = "x"

    def of_role(self, role: str) -> Mapping[str, Stage]:
        """Its stages with this role, by name."""
        return {name: stage for name, stage in self.stages.items() if stage.role == role}

    def frozen(self, conditions: Mapping[str, Mapping], space: str) -> Mapping[str, Stage]:
        """The frozen stages of a run, by name: its own, those that its conditions go through, and
        that of a latent space. conditions: the section of a config. space: `space.name`."""
        through = {own.get("through") for own in conditions.values()}
        inside = INSIDE if self.latent and space == LATENT else {}
        through = {name: stage for name, stage in THROUGH.items() if name in through}
        return {**self.of_role("frozen"), **through, **inside}

    @property
    def own_keys(self) -> Mapping[str, Mapping[str, Setting]]:
        """Section -> the keys that this family adds to it."""
        return {"sample": settings_of(self.sampling), "eval": settings_of(self.scoring)}
