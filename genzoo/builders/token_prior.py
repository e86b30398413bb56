"""The settings of the prior over codes, which build the family."""

from dataclasses import dataclass
from typing import Annotated

from genzoo.builders.conditions import conditions_and_entries
from genzoo.builders.rows import Parts
from genzoo.core.bounds import Above, AtLeast, AtMost, Between, Limit, ZeroOr
from genzoo.core.contract import Family
from genzoo.families import token_prior as prior_family
from genzoo.math.tokens import Truncation


@dataclass(frozen=True, kw_only=True)
class TokenSampling:
    """The keys of `sample` for a prior over codes."""

    temperature: Annotated[
        float, ZeroOr("greedy", Between(0.01, 100)), "Divides the logits of the codes."
    ] = 1.0
    top_k: Annotated[
        int, AtLeast(0), Limit(1_000_000), "Number of most probable codes kept; 0 for all."
    ] = 0
    top_p: Annotated[
        float,
        Above(0),
        AtMost(1),
        Between(1e-6, 1),
        "Probability mass of the codes kept; 1 for all.",
    ] = 1.0


@dataclass(frozen=True, kw_only=True)
class TokenPriorSettings:
    """A transformer over the codes of a frozen tokenizer: families/token_prior.py."""

    def build(self, parts: Parts) -> Family:
        """Builds the family."""
        tokenizer = parts.frozen[prior_family.TOKENIZER]
        conditions, entries = conditions_and_entries(
            parts.conditions, parts.fields, parts.frozen
        )
        sample = parts.sample
        return prior_family.TokenPrior(
            network=parts.network(
                vocabularies=tuple(grid.size for grid in tokenizer.code_grids),
                lengths=prior_family.lengths_of(tokenizer),
                entries=entries,
            ),
            tokenizer=tokenizer,
            truncate=Truncation(
                temperature=sample.temperature, top_k=sample.top_k, top_p=sample.top_p
            ),
            conditions=conditions,
        )
