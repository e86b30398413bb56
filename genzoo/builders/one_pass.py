"""Checks of the configs of families that are fitted in one pass over the data."""

from ml_collections import FrozenConfigDict


def problems(config: FrozenConfigDict, fitted: str) -> list[str]:
    """Settings of training that have no meaning for them. fitted: the start of a sentence, such as
    "PCA is computed"."""
    problems = []
    if config.train.averages:
        problems.append(
            f"train.averages: {fitted} without steps to average over; set it to {{}}."
        )
    if config.train.steps != 1:
        problems.append(f"train.steps = {config.train.steps}: {fitted} in one pass; set it to 1.")
    return problems
