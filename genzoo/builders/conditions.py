"""The section `conditions`: what a model is told besides x and t, and how it enters the network.

Kind and size of a condition come from the field of the data that it is made of; a config says only
the way in, and how often training hides it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import jax
from ml_collections import FrozenConfigDict

from genzoo.core.bounds import AtLeast, Below, OneOf
from genzoo.core.conditions import Condition, Entry, Read, Tokens, field
from genzoo.core.errors import nearest
from genzoo.core.types import Array
from genzoo.data import derived, fields
from genzoo.data.fields import Field

TRANSFORMS: Mapping[str, Callable[[Array], Array] | None] = {
    "none": None,
    "downsample2": derived.downsampled(2),
    "downsample4": derived.downsampled(4),
    "downsample8": derived.downsampled(8),
    "edges": derived.edges,
}
"""What may be made of an image before the network is told it."""
WAYS = ("add", "attend", "concat")
_WAYS_OF: Mapping[str, tuple[str, ...]] = {
    "class": ("add", "attend"),
    "vector": ("add", "attend"),
    "ids": ("attend",),
    "map": ("concat",),
}
"""Kind of entry -> the ways in, the usual one first."""
_KINDS: Mapping[type[Field], str] = {
    fields.Classes: "class",
    fields.Vector: "vector",
    fields.Points: "vector",
    fields.Tokens: "ids",
    fields.Image: "map",
    fields.Signal: "map",
    fields.Latents: "map",
}


@dataclass(frozen=True, kw_only=True)
class ConditionSettings:
    """One condition; its name in the section is that of the field that it is made of, if `of` does
    not say otherwise."""

    of: Annotated[str, "The field that it is made of; empty for the one of its own name."] = ""
    transform: Annotated[
        str, OneOf(TRANSFORMS), "What is made of an image: downsampled by 2, 4 or 8, edges, none."
    ] = "none"
    way: Annotated[
        str,
        OneOf(("", *WAYS)),
        "add (to the features of the time), attend (cross-attention), concat (to the network's "
        "input); empty for what is usual.",
    ] = ""
    dropout: Annotated[
        float, AtLeast(0), Below(1), "Share of the examples trained without it, for guidance."
    ] = 0.0
    together: Annotated[
        str, "A name that conditions share which are to be absent together; empty for none."
    ] = ""
    null: Annotated[
        bool, "Whether absence has params of its own; without, an absent condition adds nothing."
    ] = True


Settings = Mapping[str, ConditionSettings]


def sources(section: Mapping) -> dict[str, str]:
    """Condition -> the field that it is made of, of the section `conditions`."""
    return {name: own.of or name for name, own in section.items()}


def told(
    settings: Settings, known: Mapping[str, Field]
) -> tuple[dict[str, Condition], dict[str, Entry]]:
    """(what a model is told, how it enters the network) of a section without problems. known: the
    fields of the data."""
    conditions, entries = {}, {}
    for name, source in sources(settings).items():
        own = settings[name]
        conditions[name] = Condition(
            read=_read(source, known[source], TRANSFORMS[own.transform]),
            dropout=own.dropout,
            together=own.together,
        )
        entries[name] = _entry(own, known[source])
    return conditions, entries


def _read(name: str, source: Field, transform: Callable[[Array], Array] | None) -> Read:
    if isinstance(source, fields.Tokens):
        return lambda batch, frozen: Tokens(batch[name], source.mask(batch[name]))
    if transform is None:
        return field(name)
    return lambda batch, frozen: transform(batch[name])


def _entry(own: ConditionSettings, source: Field) -> Entry:
    kind = _KINDS[type(source)]
    length = 0
    if kind == "class":
        size = source.count
    elif kind == "ids":
        size, (length,) = source.vocabulary, source.shape
    else:
        size = source.example(1).shape[-1]
        if transform := TRANSFORMS[own.transform]:
            size = jax.eval_shape(transform, source.example(1)).shape[-1]
    way = own.way or _WAYS_OF[kind][0]
    return Entry(kind=kind, size=size, length=length, way=way, null=own.null)


# --- what can be wrong ----------------------------------------------------------------------------


def problems(config: FrozenConfigDict, known: Mapping[str, Field]) -> list[str]:
    """What is wrong with the section `conditions`, and where guidance asks for what it does not
    offer. known: the fields of the data."""
    settings = {name: ConditionSettings(**own) for name, own in config.conditions.items()}
    found = []
    for name, source in sources(settings).items():
        found += _field_problems(name, settings[name], source, known)
    return found or _together_problems(settings) + _guidance_problems(config, settings)


def _field_problems(
    name: str, own: ConditionSettings, source: str, known: Mapping[str, Field]
) -> list[str]:
    where = f"conditions.{name}"
    if source not in known:
        said = f"{where}.of = {source!r}" if own.of else where
        return [f"{said} is no field of the data: {nearest(source, known)}"]
    found = known[source]
    if source == "x" and own.transform == "none":
        return [
            f"{where} is x itself, which the model is to make: give a {where}.transform, such as "
            "'downsample4' or 'edges'."
        ]
    if own.transform != "none" and not isinstance(found, fields.Image):
        return [
            f"{where}.transform = {own.transform!r} is of images, and {source} is {found}: set it "
            "to 'none'."
        ]
    factor = own.transform.removeprefix("downsample")
    if factor.isdecimal() and any(side % int(factor) for side in found.shape[:2]):
        return [
            f"{where}.transform = {own.transform!r} needs sides that {factor} divides, and {source}"
            f" has {found.shape[0]} x {found.shape[1]} pixels."
        ]
    kind = _KINDS[type(found)]
    if own.way and own.way not in _WAYS_OF[kind]:
        offered = " or ".join(map(repr, _WAYS_OF[kind]))
        return [f"{where}.way = {own.way!r} is none for {found}: take {offered}."]
    return []


def _together_problems(settings: Settings) -> list[str]:
    rates: dict[str, dict[str, float]] = {}
    for name, own in settings.items():
        if own.together:
            rates.setdefault(own.together, {})[name] = own.dropout
    return [
        f"conditions {', '.join(rate)} are to be absent together ({coin!r}), and their dropout "
        f"differs ({', '.join(map(str, rate.values()))}): give all the same."
        for coin, rate in rates.items()
        if len(set(rate.values())) > 1
    ]


def _guidance_problems(config: FrozenConfigDict, settings: Settings) -> list[str]:
    sample = config.sample
    if "guidance" not in sample:
        return []
    dropped = [name for name, own in settings.items() if own.dropout]
    found = []
    if sample.guidance_scale != 1 and not (sample.guide or dropped):
        found.append(
            f"sample.guidance_scale = {sample.guidance_scale} needs a condition that training "
            "sometimes hid: give one a dropout (conditions.label.dropout = 0.1), name a weaker "
            "model in sample.guide, or leave it at 1."
        )
    if sample.guidance and sample.guidance_scale != 1:
        found.append(
            "sample.guidance and sample.guidance_scale are both given: leave sample.guidance_scale "
            "at 1, or sample.guidance empty."
        )
    if sample.guidance and sample.guide:
        found.append("sample.guidance has no effect beside sample.guide: leave one of them out.")
    names = [name for name, _ in sample.guidance]
    for name in sorted({name for name in names if names.count(name) > 1}):
        found.append(f"sample.guidance names {name} twice: give it once.")
    found += [
        f"sample.{key} names {name!r}, which is no condition of this model: "
        f"{nearest(name, settings)}"
        for key, given in (("guidance", names), ("negative", sample.negative))
        for name in given
        if name not in settings
    ]
    for name in dict.fromkeys(name for name in names if name in settings):
        if not settings[name].dropout:
            found.append(
                f"sample.guidance leans on {name}, which training never hid: give "
                f"conditions.{name}.dropout above 0 and train, or leave it out."
            )
        coin = settings[name].together
        others = [n for n, own in settings.items() if coin and own.together == coin and n != name]
        if others:
            found.append(
                f"sample.guidance leans on {name} alone, which is only ever absent together with "
                f"{', '.join(others)}: take sample.guidance_scale, which leans on all at once."
            )
    leaned = set(dropped if sample.guidance_scale != 1 else names)
    found += [
        f"sample.negative.{name} has no effect without guidance on it: give it a scale in "
        "sample.guidance."
        for name in sample.negative
        if name in settings and name not in leaned
    ]
    return found
