"""The section `conditions`: inputs of a model besides x and t, and how they enter the network.

The kind and size of a condition follow from the field of the data that it is made from. A config
sets only how it enters and how often training drops it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import jax
import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from genzoo.core.bounds import NOT_ONE, AtLeast, Below, Between, Limit, OneOf
from genzoo.core.conditions import (
    WAYS,
    Condition,
    Entry,
    Frozen,
    Read,
    Tokens,
    field,
    level_of,
)
from genzoo.core.contract import EncodesText, Family, Variables
from genzoo.core.errors import UserError, nearest
from genzoo.core.types import Array, Batch
from genzoo.data import derived, fields
from genzoo.data.fields import Field

TEXT_ENCODER = "text_encoder"
"""The name of the frozen text encoder in `Variables.frozen` and in a config."""
CONTROL = "control"
"""The way in of a hint, through a branch of its own."""
FACTORS: Mapping[str, int] = {"downsample2": 2, "downsample4": 4, "downsample8": 8}
"""Transform -> the factor by which its result is smaller than the image; 1 for all others."""
TRANSFORMS: Mapping[str, Callable[[Array], Array] | None] = {
    "none": None,
    **{name: derived.downsampled(by) for name, by in FACTORS.items()},
    "blur1": derived.blurred(1),
    "blur2": derived.blurred(2),
    "blur4": derived.blurred(4),
    "grey": derived.grey,
    "mask": derived.masked,
    "edges": derived.edges,
    "outline": derived.outline,
}
"""Transforms of an image before it becomes a condition."""
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
    """One condition. It is made from the field of the same name, unless `of` names another."""

    of: Annotated[str, "The field that it is made from; empty for the one of the same name."] = ""
    transform: Annotated[
        str,
        OneOf(TRANSFORMS),
        "What is made of an image: a copy downsampled by 2, 4 or 8 or blurred by 1, 2 or 4 pixels, "
        "grey, mask (a hole in the middle), edges, outline, or none.",
    ] = "none"
    way: Annotated[
        str,
        OneOf(("", "add", "attend", "concat", CONTROL)),
        "add (to the time embedding), attend (cross-attention), concat (to the network's input), "
        "control (through a branch of a controlnet); empty for the default of its kind.",
    ] = ""
    dropout: Annotated[
        float,
        AtLeast(0),
        Below(1),
        NOT_ONE,
        "Fraction of examples trained without it, for guidance.",
    ] = 0.0
    together: Annotated[
        str, "A name shared by conditions that are dropped together; empty to drop it on its own."
    ] = ""
    null: Annotated[
        bool, "Whether absence has a learned embedding; if not, an absent condition adds nothing."
    ] = True
    through: Annotated[
        str,
        OneOf(("", TEXT_ENCODER)),
        "text_encoder for the features of a text from the frozen model frozen.text_encoder; empty "
        "for an embedding of its own.",
    ] = ""
    noise: Annotated[
        float,
        Between(0, 1),
        "Largest level of noise that training adds to a map, and tells the network, so that "
        "imperfect maps can be given (conditioning augmentation); 0 for none.",
    ] = 0.0
    layers: Annotated[
        int,
        AtLeast(0),
        Limit(100),
        "Layers of a transformer that encodes the tokens of a text, trained along with the model; "
        "0 for none.",
    ] = 0


Settings = Mapping[str, ConditionSettings]
_MEANING = ("of", "transform", "way", "null", "through", "layers")
"""The keys on which the meaning of a condition depends, and not only its part in training."""


def sources(section: Mapping) -> dict[str, str]:
    """Condition -> the field that it is made from. section: `conditions` of a config."""
    return {name: own.of or name for name, own in section.items()}


def conditions_and_entries(
    settings: Settings, known: Mapping[str, Field], frozen: Mapping[str, Family]
) -> tuple[dict[str, Condition], dict[str, Entry]]:
    """(the conditions, how each enters the network) of a section without problems. known: the
    fields of the data. frozen: the frozen models by name. Raises UserError if texts are too long
    for the frozen text encoder."""
    conditions, entries = {}, {}
    for name, source in sources(settings).items():
        own, field = settings[name], known[source]
        read, blank = _read(source, field, TRANSFORMS[own.transform]), None
        entry = _entry(own, field)
        if own.through:
            encoder = frozen[own.through]
            read, blank = _encoded(own.through, encoder, source, field, name)
            entry = replace(entry, kind="tokens", size=encoder.text_width)
        conditions[name] = Condition(
            read=read, dropout=own.dropout, together=own.together, blank=blank, noise=own.noise
        )
        entries[name] = entry
        if own.noise:
            entries[level_of(name)] = Entry(kind="scalar", null=False)
    return conditions, entries


def _read(name: str, source: Field, transform: Callable[[Array], Array] | None) -> Read:
    if isinstance(source, fields.Tokens):
        return lambda batch, frozen: Tokens(batch[name], source.mask(batch[name]))
    if transform is None:
        return field(name)
    return lambda batch, frozen: transform(batch[name])


def _encoded(
    stage: str, encoder: EncodesText, source: str, text: fields.Tokens, name: str
) -> tuple[Read, Read]:
    """(`read` and `blank` of a condition: the features of a text by a frozen encoder, and zeros of
    the same shape)."""
    longest = encoder.text_length
    if longest and text.shape[0] > longest:
        raise UserError(
            f"conditions.{name} has texts of up to {text.shape[0]} tokens, but frozen.{stage} "
            f"takes at most {longest}: lower data.tokens, or name another run."
        )

    def read(batch: Batch, frozen: Frozen) -> Tokens:
        ids, variables = batch[source], Variables(**frozen[stage])
        mask = text.mask(ids)
        features = encoder.text_features(variables, ids, mask)
        return Tokens(jax.lax.stop_gradient(features), mask)

    def blank(batch: Batch, frozen: Frozen) -> Tokens:
        del frozen
        ids = batch[source]
        return Tokens(jnp.zeros((*ids.shape, encoder.text_width)), text.mask(ids))

    return read, blank


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
    way = own.way or WAYS[kind][0]
    return Entry(kind=kind, size=size, length=length, way=way, null=own.null, layers=own.layers)


def factor(own: ConditionSettings) -> int:
    """The factor by which a condition is smaller than the image that it is made from."""
    return FACTORS.get(own.transform, 1)


# --- checks ---------------------------------------------------------------------------------------


def problems(config: FrozenConfigDict, known: Mapping[str, Field]) -> list[str]:
    """Problems of the section `conditions`, and of guidance that it does not support. known: the
    fields of the data."""
    settings = {name: ConditionSettings(**own) for name, own in config.conditions.items()}
    problems = []
    for name, source in sources(settings).items():
        problems += _field_problems(name, settings[name], source, known)
    return problems or _together_problems(settings) + _guidance_problems(config, settings)


def _field_problems(
    name: str, own: ConditionSettings, source: str, known: Mapping[str, Field]
) -> list[str]:
    where = f"conditions.{name}"
    if source not in known:
        key = f"{where}.of = {source!r}" if own.of else where
        numbers = " Numeric columns form the field properties." if "properties" in known else ""
        return [f"{key} is not a field of the data: {nearest(source, known)}{numbers}"]
    field = known[source]
    if source == "x" and own.transform == "none":
        return [
            f"{where} is x itself, which the model generates: set {where}.transform, for instance "
            "to 'downsample4' or 'edges'."
        ]
    if own.transform != "none" and not isinstance(field, fields.Image):
        return [
            f"{where}.transform = {own.transform!r} applies to images, but {source} is "
            f"{_a(field)}: set it to 'none'."
        ]
    if any(side % factor(own) for side in field.shape[:2]):
        return [
            f"{where}.transform = {own.transform!r} needs sides divisible by {factor(own)}, but "
            f"{source} has {field.shape[0]} x {field.shape[1]} pixels: choose a smaller factor, or "
            "another size."
        ]
    if own.transform == "grey" and field.shape[-1] == 1:
        return [
            f"{where}.transform = 'grey' needs a colour image, but {source} is grey already: "
            "choose another transform."
        ]
    kind = _KINDS[type(field)]
    if own.way == CONTROL and not own.null:
        return [
            f"{where}.null = False has no effect with {where}.way = {CONTROL!r}, since an absent "
            "hint adds nothing: leave it out."
        ]
    if own.way and own.way not in WAYS[kind]:
        offered = " or ".join(map(repr, WAYS[kind]))
        return [f"{where}.way = {own.way!r} is not possible for {_a(field)}: use {offered}."]
    if own.through and kind != "ids":
        return [
            f"{where}.through = {own.through!r} is for texts, but {source} is {_a(field)}: leave "
            "it empty."
        ]
    if own.noise and (kind != "map" or own.way == CONTROL):
        return [
            f"{where}.noise = {own.noise} is for maps that are concatenated to the input: leave it "
            "at 0."
        ]
    if own.noise and level_of(name) in known:
        return [
            f"{where}.noise tells its level as {level_of(name)}, but the data have a field of that "
            "name: call the condition by another name, and set its `of`."
        ]
    if own.layers and kind != "ids":
        return [
            f"{where}.layers = {own.layers} is for texts, but {source} is {_a(field)}: leave it at "
            "0."
        ]
    return []


def encoder_mismatches(
    key: str, ours: FrozenConfigDict, theirs: FrozenConfigDict
) -> list[str]:
    """A sentence for each condition that two models take through different text encoders, so that
    theirs cannot be given ours. key: the one that names the run of `theirs`."""

    def encoder(config: FrozenConfigDict, name: str) -> object:
        through = config.conditions[name].through
        if not through:
            return None
        whole = config.frozen[through].config
        return [whole[part].to_dict() for part in ("family", "network")]

    return [
        f"{key} was trained with conditions.{name} through another text encoder than this model: "
        "name a run with the same frozen.text_encoder, or none in both."
        for name in ours.conditions
        if name in theirs.conditions and encoder(ours, name) != encoder(theirs, name)
    ]


def other_meanings(key: str, ours: FrozenConfigDict, theirs: FrozenConfigDict) -> list[str]:
    """A sentence for each condition that two models have, but make or take in differently. key: the
    one that names the run of `theirs`."""
    both = [name for name in ours.conditions if name in theirs.conditions]
    problems = []
    for name in both:
        here, there = (ConditionSettings(**each.conditions[name]) for each in (ours, theirs))
        unlike = [k for k in _MEANING if getattr(here, k) != getattr(there, k)]
        problems += [
            f"conditions.{name}.{k} = {getattr(here, k)!r}, but the run in {key} has "
            f"{getattr(there, k)!r}: use the same."
            for k in unlike
        ]
    return problems or encoder_mismatches(key, ours, theirs)


def _a(field: Field) -> str:
    """The word for a value, without its size, which may not be known yet."""
    return f"{'an' if field.singular[0] in 'aeiou' else 'a'} {field.singular}"


def _together_problems(settings: Settings) -> list[str]:
    rates: dict[str, dict[str, float]] = {}
    for name, own in settings.items():
        if own.together:
            rates.setdefault(own.together, {})[name] = own.dropout
    return [
        f"conditions {', '.join(dropouts)} are dropped together ({group!r}), but their dropout "
        f"differs ({', '.join(map(str, dropouts.values()))}): give them all the same."
        for group, dropouts in rates.items()
        if len(set(dropouts.values())) > 1
    ]


def _guidance_problems(config: FrozenConfigDict, settings: Settings) -> list[str]:
    sample = config.sample
    if "guidance" not in sample:
        return []
    guessed = sample.get("control_guess", False)
    dropped = [
        name for name, own in settings.items() if own.dropout or (guessed and own.way == CONTROL)
    ]
    problems = []
    if sample.guidance_scale != 1 and not (sample.guide or dropped):
        problems.append(
            f"sample.guidance_scale = {sample.guidance_scale} needs a condition that training "
            "sometimes drops: give one a dropout (conditions.label.dropout = 0.1), name a weaker "
            "model in sample.guide, or leave it at 1."
        )
    if sample.guidance and sample.guidance_scale != 1:
        problems.append(
            "sample.guidance and sample.guidance_scale are both set: leave sample.guidance_scale "
            "at 1, or sample.guidance empty."
        )
    if sample.guidance and sample.guide:
        problems.append("sample.guidance has no effect with sample.guide: leave one of them out.")
    if sample.negative and sample.guide:
        problems.append("sample.negative has no effect with sample.guide: leave one of them out.")
    names = [name for name, _ in sample.guidance]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"sample.guidance names {name} twice: name it once.")
    problems += [
        f"sample.{key} names {name!r}, which is not a condition of this model: "
        f"{nearest(name, settings)}"
        for key, given in (("guidance", names), ("negative", sample.negative))
        for name in given
        if name not in settings
    ]
    for name in dict.fromkeys(name for name in names if name in settings):
        if name not in dropped:
            problems.append(
                f"sample.guidance names {name}, which training never drops: train with "
                f"conditions.{name}.dropout above 0, or leave it out."
            )
        group = settings[name].together
        others = [n for n, own in settings.items() if group and own.together == group and n != name]
        if others:
            problems.append(
                f"sample.guidance names {name} alone, which is only dropped together with "
                f"{', '.join(others)}: use sample.guidance_scale, which applies to all at once."
            )
    guided = set(dropped if sample.guidance_scale != 1 else names)
    problems += [
        f"sample.negative.{name} has no effect without guidance on {name}: give it a scale in "
        "sample.guidance."
        for name in ([] if sample.guide else sample.negative)
        if name in settings and name not in guided
    ]
    return problems
