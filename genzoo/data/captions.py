"""Captions as tokens, with a warning of those that are cut."""

import logging
from collections.abc import Sequence

import numpy as np

from genzoo.core.errors import UserError
from genzoo.data.fields import Tokens

_log = logging.getLogger("genzoo")


def ids(captions: Sequence[str], field: Tokens, source: str, split: str) -> np.ndarray:
    """The ids of N captions, int32 [N, L], cut after L tokens. source, split: for messages.

    Warns if captions are cut; that may be wanted, since many text encoders read the beginning only.
    Raises UserError if nothing tells the captions of the training split apart once they are cut.
    """
    (most,) = field.shape
    whole = {caption: field.tokenizer.encode(caption) for caption in dict.fromkeys(captions)}
    rows = {
        caption: field.take(tokens if len(tokens) <= most else caption)
        for caption, tokens in whole.items()
    }
    if cut := sum(len(whole[caption]) > most for caption in captions):
        longest = max(map(len, whole.values()))
        left = {row.tobytes() for row in rows.values()}
        if split == "train" and len(left) == 1 < len(set(map(tuple, whole.values()))):
            raise UserError(
                f"data.tokens = {most} cuts the captions of {source} so short that all are the "
                f"same: raise it to {longest}, the length of the longest."
            )
        _log.warning(
            "%d of the %d captions of the %s split of %s have more than data.tokens = %d tokens "
            "and are cut there; the longest has %d. Set data.tokens to that, unless their "
            "beginnings say enough.", cut, len(captions), split, source, most, longest,
        )  # fmt: skip
    return np.array([rows[caption] for caption in captions], field.dtype).reshape(-1, most)
