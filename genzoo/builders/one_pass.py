"""What the configs of families that are fitted in one pass over the data must leave out."""

from ml_collections import FrozenConfigDict


def problems(config: FrozenConfigDict, fitted: str) -> list[str]:
    """Settings of training that have no meaning. fitted: the model and its verb, as in "PCA is
    computed"."""
    problems = []
    if config.train.averages:
        problems.append(
            f"train.averages: {fitted} without steps to average over; set it to {{}}."
        )
    if config.train.steps != 1:
        problems.append(f"train.steps = {config.train.steps}: {fitted} in one pass; set it to 1.")
    return problems
