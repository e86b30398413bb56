"""Constraints on settings: which values they accept, and their messages for others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import pytest
from checked import section_problems

from genzoo.core import bounds
from genzoo.core.bounds import (
    Above,
    AtLeast,
    AtMost,
    Below,
    Between,
    Each,
    Entries,
    OneOf,
    Setting,
    ZeroOr,
)

TABLE = {"linear": 1, "cosine": 2}


@pytest.mark.parametrize(
    ("constraint", "good", "bad", "ending"),
    [
        (AtLeast(2), (2, 3), 1, "a.b = 1 must be at least 2."),
        (AtMost(2), (2, -3), 2.5, "a.b = 2.5 must be at most 2."),
        (Above(0), (0.1,), 0.0, "a.b = 0.0 must be above 0."),
        (Below(1), (0.9,), 1, "a.b = 1 must be below 1."),
        (Between(0, 1), (0, 0.5, 1), -1, "a.b = -1 must be between 0 and 1."),
        (Between(0, 1, "off", "DDPM"), (1,), 2, "must be between 0 (off) and 1 (DDPM)."),
        (ZeroOr("greedy", Between(1, 2)), (0, 1, 2), 3, "must be 0 (greedy) or between 1 and 2."),
        (OneOf(TABLE), ("linear",), "cosin", "a.b = 'cosin' is unknown: did you mean 'cosine'?"),
        (OneOf(TABLE), ("cosine",), "x", "a.b = 'x' is unknown: known are: cosine, linear."),
        (OneOf(("", "add")), ("",), "x", "a.b = 'x' is unknown: known are: add."),
        (OneOf((1, 3)), (1, 3), 2, "a.b = 2 must be 1 or 3."),
        (Entries(1), ((1,), (1, 2)), (), "a.b = () must be a tuple with at least 1 entry."),
        (Entries(1, 2), ((1,), (1, 2)), (1, 2, 3), "must be a tuple with 1 to 2 entries."),
        (Each(AtLeast(1)), ((), (1, 2)), (1, 0), "a.b[1] = 0 must be at least 1."),
    ],
    ids=str,
)
def test_each_constraint_has_its_sentence(constraint, good, bad, ending):
    for value in good:
        assert constraint.problems("a.b", value) == []
    (problem,) = constraint.problems("a.b", bad)
    assert problem.endswith(ending)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_are_finite(value):
    (problem,) = Setting(type=float, default=0.0).problems("a.b", value)
    assert problem == f"a.b = {value} must be a finite number."


def test_both_ends_of_a_range_are_in_one_sentence():
    rate = Setting(type=float, default=0.0, constraints=(AtLeast(0), Below(1)))
    assert rate.problems("a.b", 0.0) == rate.problems("a.b", 0.99) == []
    for value in (1.0, -0.5):
        assert rate.problems("a.b", value) == [f"a.b = {value} must be at least 0 and below 1."]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Settings of which others have several."""

    size: int = 1


@dataclass(frozen=True, kw_only=True)
class Toy:
    """Settings with a rule across two keys."""

    needed: int
    width: Annotated[int, AtLeast(1), "Channels."] = 12
    heads: Annotated[int, AtLeast(1), Below(100), "Attention heads."] = 3
    names: Annotated[Mapping[str, Part], "By name."] = field(default_factory=dict)

    def problems(self, of: str) -> list[str]:
        """Whether the heads divide the width."""
        wrong = self.width % self.heads
        return [f"net.heads = {self.heads} does not divide net.width of {of}."] * bool(wrong)


def test_fields_are_read_with_type_default_bounds_and_sentence():
    settings = bounds.settings_of(Toy)
    assert list(settings) == ["needed", "width", "heads", "names"]
    assert settings["needed"].default is bounds.REQUIRED and settings["needed"].type is int
    assert settings["heads"] == Setting(
        type=int, default=3, constraints=(AtLeast(1), Below(100)), about="Attention heads."
    )
    assert settings["names"].default == {} and settings["names"].type == Mapping[str, Part]


def test_a_value_out_of_bounds_neither_breaks_nor_hides_other_rules():
    assert section_problems(Toy(needed=1), "net", "toys") == []
    assert section_problems(Toy(needed=1, heads=5), "net", "toys") == [
        "net.heads = 5 does not divide net.width of toys."
    ]
    # With 0 the rule would divide by zero; with the default it would report a value never given.
    assert section_problems(Toy(needed=1, heads=0, width=7), "net", "toys") == [
        "net.heads = 0 must be at least 1 and below 100."
    ]


def test_sentences_about_keys_that_are_known_to_be_wrong_are_left_out():
    sentences = ["a.b = 1 is x.", "a.bc = 1 is x.", "take a smaller a.b.", "a.b[2] is x.", "xa.b"]
    assert bounds.unmentioned(sentences, ["a.b"]) == ["a.bc = 1 is x.", "xa.b"]
    assert bounds.unmentioned(sentences, []) == sentences


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Keys of which each method uses some."""

    method: str = "ddim"
    steps: int = 10
    eta: float = 0.0
    churn: float = 0.0


def test_a_key_without_effect_is_named_with_the_methods_that_use_it():
    uses = {"ddim": {"eta"}, "edm": {"churn"}, "ve": {"churn"}}
    assert bounds.ignored(Sampling(eta=1.0, steps=5), "sample", "method", uses) == []
    assert bounds.ignored(Sampling(method="heun"), "sample", "method", uses) == []
    (problem,) = bounds.ignored(Sampling(churn=2.0, eta=1.0), "sample", "method", uses)
    assert problem == (
        "sample.churn = 2.0 has no effect with sample.method = 'ddim': leave it at 0.0, or "
        "choose a method that uses it ('edm', 've')."
    )
