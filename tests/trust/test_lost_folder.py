"""A folder belongs to one run, which says who it is. A run that loses its folder ends in one
sentence."""

import errno
import fcntl
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from genzoo.core.errors import UserError
from genzoo.main import main
from genzoo.modes import train
from genzoo.train.claim import NAME, Claim

ROOT = Path(__file__).parents[2]
LOST = r"was removed or replaced while the run was writing to it, so the run has stopped"


def test_the_lock_says_host_process_and_since_when(tmp_path):
    with Claim(tmp_path):
        with pytest.raises(UserError, match="Another process is training") as caught:
            Claim(tmp_path)
        owner = rf"process {os.getpid()} on {re.escape(socket.gethostname())}, since"
        assert re.search(rf"{owner} \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC", str(caught.value))
        assert owner.replace("\\", "") in (tmp_path / NAME).read_text()
    Claim(tmp_path).close()
    assert (tmp_path / NAME).read_text().count("process") == 1


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"", "one"),
        (b"\xff\xfe\n", "\N{REPLACEMENT CHARACTER}" * 2),
        (b"\x1b[2Jhost\x07", "[2Jhost"),
        (b"x" * 10**6, "x" * 200),
    ],
)
def test_what_another_process_wrote_is_only_shown(tmp_path, content, shown):
    held = (tmp_path / NAME).open("wb")
    held.write(content)
    held.flush()
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(UserError) as caught:
        Claim(tmp_path)
    assert f"={tmp_path}: {shown}. Wait for it" in str(caught.value)


def test_a_file_system_without_locks_is_named_and_no_other_run_is_blamed(
    tmp_path, monkeypatch, caplog
):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), Claim(tmp_path) as claim:
        claim.check()
    assert "cannot be locked (No locks available)" in caplog.text


def test_a_lock_removed_while_it_is_taken_is_taken_again(tmp_path, monkeypatch):
    take, taken = fcntl.flock, []

    def flock(file, how):
        if not taken:
            os.unlink(tmp_path / NAME)
        taken.append(file)
        take(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with Claim(tmp_path) as claim:
        claim.check()
    assert len(taken) == 2


def removed(folder):
    shutil.rmtree(folder)


def replaced(folder):
    folder.rename(folder.with_name("elsewhere"))
    Claim(folder).close()


def a_file(folder):
    shutil.rmtree(folder)
    folder.write_text("")


@pytest.mark.parametrize("lose", [removed, replaced, a_file])
@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "gone"), ValueError("zarr"), None])
def test_whatever_fails_in_a_lost_folder_is_one_sentence(tmp_path, lose, error):
    folder = tmp_path / "run"
    with pytest.raises(UserError, match=LOST) as caught, Claim(folder) as claim:
        claim.check()
        lose(folder)
        if error:
            raise error
        claim.check()
    assert str(folder) in str(caught.value) and "another --workdir" in str(caught.value)


@pytest.mark.parametrize("error", [ValueError("a fault"), KeyboardInterrupt()])
def test_a_folder_that_is_there_explains_nothing(tmp_path, error):
    with pytest.raises(type(error)), Claim(tmp_path):
        raise error


def test_no_picture_is_drawn_into_the_folder_of_another_run(tmp_path, monkeypatch, capsys):
    """The folder is replaced after step 10 was logged, and pictures of step 10 are due."""
    folder, watched = tmp_path / "run", train.Watch.__call__

    def logged(self, measured):
        if folder.exists() and not (tmp_path / "elsewhere").exists():
            replaced(folder)
        return watched(self, measured)

    monkeypatch.setattr(train.Watch, "__call__", logged)
    changes = ("--config.train.picture_first=10", "--config.train.save_every=20")
    assert main(["--config=toy_mixture:smoke", f"--workdir={folder}", *changes]) == 2
    assert re.search(LOST, capsys.readouterr().err) and os.listdir(folder) == [NAME]


def ends_without(folder: Path, every: int, environment: dict, lose) -> tuple[int, str]:
    """(exit code, standard error without the log of the steps) of a run whose folder is lost."""
    process = subprocess.Popen(
        [sys.executable, "-m", "genzoo.main", "--config=toy_mixture:smoke", f"--workdir={folder}",
         "--config.train.steps=100000", "--config.train.steps_per_call=1",
         f"--config.train.save_every={every}", "--config.train.log_every=20",
         "--config.train.picture_count=0"],
        cwd=ROOT, env=environment, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "step 60/" in line:
            break
    for _ in range(1000):  # the run may write to it meanwhile
        try:
            lose(folder)
            break
        except OSError as error:
            assert error.errno in (errno.ENOTEMPTY, errno.ENOENT), error
        if not folder.exists():
            break
    try:
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    log = re.compile(r"step \d|Compiling|edm:|[\d.e-]+ s per step")
    return process.returncode, "".join(
        line for line in "".join([*seen, rest]).splitlines(True) if not log.match(line)
    )


@pytest.mark.parametrize(("every", "lose"), [(3, removed), (50_000, replaced)])
def test_a_run_whose_folder_vanishes_ends_in_one_sentence(surroundings, tmp_path, every, lose):
    code, text = ends_without(tmp_path / "run", every, surroundings(haste=True), lose)
    assert code == 2 and text.count("\n") == 1 and re.search(LOST, text), text
    if lose is replaced:  # nothing is written to the folder of another run
        assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_folders_that_vanish_within_saves(surroundings, tmp_path, tried):
    for number in range(20):
        every = (1, 2, 3, 5, 10)[number % 5]
        code, text = ends_without(tmp_path / str(number), every, surroundings(haste=True), removed)
        assert code == 2 and text.count("\n") == 1 and re.search(LOST, text), text
        tried("folders that vanish in training", "one sentence")
