"""Whether the config of another run agrees with ours, where its arrays take the place of ours."""

from ml_collections import FrozenConfigDict

from genzoo.builders import conditions


def other_data(config: FrozenConfigDict, theirs: FrozenConfigDict) -> list[str]:
    """A sentence for words or columns of the run in `start` that differ from ours, so that arrays
    of the same shape would be those of other words or columns."""
    problems = []
    for key, name in {"words": lambda word: word, "columns": lambda column: column[0]}.items():
        here, there = ([*map(name, one.data[key])] for one in (config, theirs))
        if len(here) == len(there) and here != there:
            at = [a == b for a, b in zip(here, there, strict=True)].index(False)
            problems.append(
                f"start.workdir = {config.start.workdir!r} was trained with other data.{key}: "
                f"number {at} is {there[at]!r} there and {here[at]!r} here. Set data.{key} as in "
                "its config.json, or leave start.workdir empty."
            )
    return problems


def unlike(
    key: str, of: str, ours: FrozenConfigDict, theirs: FrozenConfigDict
) -> list[str]:
    """A sentence if a run cannot take the place of another one, since their params have other
    meanings. key, of: the keys that name it and the other. ours: the config of the other."""
    different = [
        f"another {part}"
        for part in ("family", "network")
        if ours[part].to_dict() != theirs[part].to_dict()
    ]
    if ours.conditions.keys() != theirs.conditions.keys():
        different.append("other conditions")
    if different:
        return [
            f"{key} has {' and '.join(different)} than {of}: name a run that started from it "
            "(start.workdir) with the same settings."
        ]
    return conditions.other_meanings(key, ours, theirs)
