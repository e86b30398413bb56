"""What a config check says of a section, for tests of its settings."""

from dataclasses import fields

from genzoo.config import Checker
from genzoo.core.bounds import settings_of, unmentioned


def section_problems(settings: object, where: str, *context: object) -> list[str]:
    """The sentences about an instance of a settings class, were its values those of the section
    `where`. context: what its own `problems` is given."""
    kind, checker = type(settings), Checker()
    values = {field.name: getattr(settings, field.name) for field in fields(kind)}
    resolved = checker.section(values, settings_of(kind), where)
    across = kind(**resolved).problems(*context) if checker.usable else []
    return checker.problems + unmentioned(across, checker.wrong)
