"""The settings of text encoders, which build the family."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated

import numpy as np
from ml_collections import FrozenConfigDict

from genzoo.builders import one_pass
from genzoo.builders.rows import Parts
from genzoo.core import named_arrays
from genzoo.core.bounds import OneOf
from genzoo.core.contract import Family
from genzoo.core.errors import UserError
from genzoo.core.types import Tree
from genzoo.data.fields import Tokens
from genzoo.data.packages import PACKAGES, TOKENIZER, WEIGHTS
from genzoo.data.vocabulary import File
from genzoo.families import text_encoder as family
from genzoo.nets.transformer.text_transformer import (
    TextTransformerSettings,
    WordTableSettings,
    of_bert,
    of_table,
)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Weights in a package of `data.packages`. network, settings: of the network that they belong
    to. converted: their arrays -> params. skipped: see `TextEncoder`."""

    network: str
    settings: object
    converted: Callable[[Mapping[str, np.ndarray]], Tree]
    skipped: tuple[int, ...] = ()


ORIGINS: Mapping[str, Origin] = {
    "minilm": Origin(
        network="text_transformer", settings=TextTransformerSettings(), converted=of_bert
    ),
    # wordllama leaves out the start token, whose id in its file is 1.
    "wordllama": Origin(
        network="word_table", settings=WordTableSettings(), converted=of_table, skipped=(2,)
    ),
}
_FREE = ("dtype",)  # keys of a network that its weights do not determine


@dataclass(frozen=True, kw_only=True)
class TextEncoderSettings:
    """A pretrained text encoder: families/text_encoder.py."""

    source: Annotated[
        str,
        OneOf(("none", *ORIGINS)),
        "Where the weights come from: minilm or wordllama, from the Python packages in "
        "data/packages.py, or none for random ones.",
    ] = "none"

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields besides x that it reads."""
        return (family.TEXT,)

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        problems = one_pass.problems(config, "the weights of a text encoder are taken")
        if self.source == "none":
            return problems
        origin = ORIGINS[self.source]
        if config.network.name != origin.network:
            return [
                *problems,
                f"family.source = {self.source!r} has the network {origin.network!r}, not "
                f"{config.network.name!r}: change one of them.",
            ]
        for key, value in asdict(origin.settings).items():
            if key not in _FREE and config.network[key] != value:
                problems.append(
                    f"network.{key} = {config.network[key]!r} is not that of family.source = "
                    f"{self.source!r}: leave it at {value!r}."
                )
        if config.data.tokenizer in ("words", "bytes"):
            problems.append(self._other_vocabulary(config.data.tokenizer))
        return problems

    def _other_vocabulary(self, given: str) -> str:
        return (
            f"data.tokenizer = {given!r} gives other ids than those of family.source = "
            f"{self.source!r}: set data.tokenizer = {self.source!r}."
        )

    def build(self, parts: Parts) -> Family:
        """Builds the family. Raises UserError if the data has no texts, or texts in another
        vocabulary or with more tokens than the network has positions."""
        text = parts.fields.get(family.TEXT)
        if not isinstance(text, Tokens):
            raise UserError(
                "A text encoder needs texts, but the data has none: use other data, such as shapes."
            )
        network = parts.network(vocabulary=text.vocabulary)
        if network.length and text.shape[0] > network.length:
            raising = ", or raise network.positions" if self.source == "none" else ""
            raise UserError(
                f"data.tokens = {text.shape[0]} is more than network.positions = {network.length}: "
                f"lower it{raising}."
            )
        if self.source == "none":
            return family.TextEncoder(network=network, mask=text.mask)
        tokenizer, origin = text.tokenizer, ORIGINS[self.source]
        expected = PACKAGES[self.source].sha256(TOKENIZER)
        if not isinstance(tokenizer, File) or tokenizer.sha256 != expected:
            given = tokenizer.path if isinstance(tokenizer, File) else "words"
            raise UserError(self._other_vocabulary(given))
        return family.TextEncoder(
            network=network,
            mask=text.mask,
            skipped=origin.skipped,
            pretrained=partial(_read, self.source),
        )


def _read(source: str) -> Tree:
    """The params of a source. Raises a UserError if its package is not installed."""
    file = PACKAGES[source].file(WEIGHTS, f"family.source = {source!r}")
    return ORIGINS[source].converted(named_arrays.read(file))
