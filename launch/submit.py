"""Fills in a template of this folder and submits it with its tool, kubectl or sky.

    python launch/submit.py launch/skypilot.yaml BUCKET=gs://my-runs NODES=2 --dry-run

The settings of a template are lines in its first comment, `# NAME=default   meaning`; the default
`?` marks a required one. A document with the line `# only: tpu` is kept only if KIND is tpu. The
result is parsed before it is submitted; with --dry-run it is printed together with the command.
"""

import argparse
import difflib
import math
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_HEAD = re.compile(r"\A(?:#.*\n|\n)*")
_SETTING = re.compile(r"^# ([A-Z][A-Z0-9_]*)=(\S*)(?:\s+(.*))?$", re.M)
_ONLY = re.compile(r"^# only: (\S+)$", re.M)
_PLACE = re.compile(r"\$\{([^}]*)\}")


def defaults(text: str) -> dict[str, str]:
    """The settings of a template with their defaults."""
    return {match[1]: match[2] for match in _SETTING.finditer(_HEAD.match(text)[0])}


def filled(text: str, given: dict[str, str]) -> str:
    """The template with its settings filled in. Raises ValueError if one is unknown or wrong."""
    known = defaults(text)
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0)[0]
            raise ValueError(f"{name} is not a setting of this file: did you mean {near}? The "
                             f"settings are {', '.join(known)}.")  # fmt: skip
        if "\n" in value:
            raise ValueError(f"{name} must be one line.")
    values = known | given
    if missing := [name for name, value in values.items() if value == "?"]:
        raise ValueError(f"give these settings as NAME=value: {', '.join(missing)}.")
    kinds = _ONLY.findall(text)
    if kinds and values["KIND"] not in kinds:
        raise ValueError(f"KIND={values['KIND']} must be one of {', '.join(kinds)}.")
    documents = re.split(r"^---\n", _HEAD.sub("", text).removeprefix("---\n"), flags=re.M)
    kept = [
        document for document in documents
        if not (only := _ONLY.search(document)) or only[1] == values["KIND"]
    ]  # fmt: skip

    def value(match: re.Match) -> str:
        if match[1] not in values:
            raise ValueError(f"{match[0]} is used in the file, but its first comment has no line "
                             f"for it: add # {match[1]}=default.")  # fmt: skip
        return values[match[1]]

    return "---\n".join(_PLACE.sub(value, document) for document in kept)


def check(text: str) -> list[dict]:
    """The documents of a filled-in template. Raises ValueError if it is not YAML or lacks a
    required key."""
    try:
        import yaml
    except ImportError:
        raise ValueError("PyYAML is needed: pip install pyyaml.") from None
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise ValueError(f"with these values the file is not valid YAML: {error}") from None
    for document in documents:
        needed = ("kind", "metadata") if "apiVersion" in document else ("name", "resources", "run")
        if missing := [key for key in needed if not document.get(key)]:
            raise ValueError(f"with these values {', '.join(missing)} is missing.")
        if document.get("kind") == "JobSet":
            _check_slice(document["spec"]["replicatedJobs"][0]["template"]["spec"])
    return documents


def _check_slice(job: dict) -> None:
    pod = job["template"]["spec"]
    if "cloud.google.com/gke-tpu-topology" not in pod["nodeSelector"]:
        return
    topology = str(pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"])
    if not re.fullmatch(r"\d+(x\d+)+", topology):
        raise ValueError(f"TOPOLOGY={topology} must have the form 4x4 or 2x2x4.")
    chips = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    if math.prod(map(int, topology.split("x"))) != job["completions"] * chips:
        # The pods would wait forever for a slice that does not exist.
        raise ValueError(f"TOPOLOGY={topology} is not HOSTS={job['completions']} machines of "
                         f"CHIPS={chips} chips.")  # fmt: skip


def command(documents: list[dict], file: str) -> list[str]:
    """The command that submits the file."""
    if "apiVersion" in documents[0]:
        return ["kubectl", "apply", "-f", file]
    return ["sky", "jobs", "launch", "--yes", file]


def submit(path: Path, given: dict[str, str], dry_run: bool) -> int:
    """Fills in and checks a template, then submits or prints it; returns the exit code."""
    text = filled(path.read_text(), given)
    documents = check(text)
    if dry_run:
        print(text.strip())
        print(f"# would run: {shlex.join(command(documents, 'FILE'))}")
        return 0
    with tempfile.NamedTemporaryFile("w", prefix="genzoo-", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        line = command(documents, file.name)
        try:
            # From the root, because SkyPilot copies the folder that it is started in.
            return subprocess.run(line, cwd=ROOT, check=False).returncode
        except FileNotFoundError:
            raise ValueError(f"{line[0]} is not installed here.") from None


def main(argv: list[str]) -> int:
    """Parses the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python launch/submit.py", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("file", type=Path, help="launch/gke_jobset.yaml or launch/skypilot.yaml")
    parser.add_argument("values", nargs="*", metavar="NAME=value")
    parser.add_argument("--dry-run", action="store_true", help="print the file, submit nothing")
    settings = parser.parse_intermixed_args(argv)
    try:
        if not settings.file.is_file():
            raise ValueError(f"there is no {settings.file}.")
        if wrong := [value for value in settings.values if "=" not in value]:
            raise ValueError(f"{wrong[0]}: give settings as NAME=value.")
        given = dict(value.split("=", 1) for value in settings.values)
        return submit(settings.file, given, settings.dry_run)
    except ValueError as error:
        print(f"launch/submit.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
