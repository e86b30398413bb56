"""Prepares a TensorFlow Datasets set in array_record, the format that genzoo reads.

    python -m genzoo.data.prepare_tfds cifar10 --data_dir=DIR [--archive=cifar-10-binary.tar.gz]

Preparing needs TensorFlow (`pip install "genzoo[tfds-prepare]"`); reading afterwards does not.
"""

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from genzoo.core.errors import UserError
from genzoo.core.files import expanded
from genzoo.data.tfds_folder import check_name


def prepare(name: str, data_dir: str, archive: str = "", examples: int | None = None) -> Path:
    """Writes the set below `data_dir` and returns its folder.

    archive: a file that would otherwise be downloaded, recognised by its SHA-256. examples: the
    most examples per split. Raises UserError if TensorFlow is missing or the archive is unknown.
    """
    check_name(name)
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise UserError(
            'Preparing needs TensorFlow: pip install "genzoo[tfds-prepare]". You can also copy a '
            "set that was prepared elsewhere, since reading needs no TensorFlow."
        ) from error
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(f"TFDS knows no data set {name!r}: check the spelling.") from error
    with tempfile.TemporaryDirectory() as manual:
        if archive:
            _link(builder, expanded(archive), Path(manual))
        config = tfds.download.DownloadConfig(
            manual_dir=manual if archive else None,
            try_download_gcs=False,
            force_checksums_validation=True,  # of every address, by those that TFDS lists
            max_examples_per_split=examples,
        )
        builder.download_and_prepare(download_config=config)
    return Path(builder.data_path)


def _link(builder: Any, archive: Path, manual: Path) -> None:
    """Links the archive into the folder where TFDS looks for it, under its registered name."""
    if not archive.is_file():
        raise UserError(f"There is no file {archive} (--archive).")
    with archive.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    known = {info.checksum: info.filename for info in builder.url_infos.values()}
    if checksum not in known or not known[checksum]:
        names = ", ".join(sorted(filter(None, known.values()))) or "nothing by name"
        raise UserError(
            f"{archive} has SHA-256 {checksum}, unlike any archive of {builder.name}: TFDS expects "
            f"{names}, exactly as published."
        )
    (manual / known[checksum]).symlink_to(archive.resolve())


def main() -> int:
    """Runs `prepare` from the command line; returns exit code 2 after a UserError."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("name", help="the name in TFDS, such as cifar10")
    parser.add_argument("--data_dir", required=True, help="the folder to prepare it in")
    parser.add_argument("--archive", default="", help="a local copy of the archive to download")
    parser.add_argument("--examples", type=int, help="the most examples per split, for a trial")
    arguments = parser.parse_args()
    try:
        folder = prepare(
            arguments.name, arguments.data_dir, arguments.archive, arguments.examples
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Prepared in {folder}; use --config.data.dir={arguments.data_dir}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
