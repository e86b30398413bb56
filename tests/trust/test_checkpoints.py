"""No checkpoint is lost, and none that was damaged is loaded, whatever happens to the folder."""

import contextlib
import fcntl
import itertools
import json
import logging
import os
import random
import shutil
import threading
import time
import zlib
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import pytest

from genzoo import check
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment
from genzoo.main import main
from genzoo.restart import start_over
from genzoo.train import checkpoint, manifest
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.manifest import MANIFEST
from genzoo.train.sharding import placement
from genzoo.train.state import Faults, TrainState
from genzoo.train.step_folders import StepFolders
from genzoo.workdir import Workdir

MANY = [(0, 60), pytest.param((1, 600), marks=pytest.mark.slow)]  # (seed, number of damages)


@pytest.fixture(scope="module")
def model(run):
    """The config and the abstract state of the run, and the states of its two checkpoints."""
    config = check.check(Workdir(run).config())
    abstract = Experiment(config).abstract_state
    with opened(run) as checkpoints:
        states = {20: jax.device_get(checkpoints.restore(abstract, read_only=True))}
    with tempfile_copy(run) as copy:
        shutil.rmtree(copy / "checkpoints" / "20")
        states[10] = jax.device_get(Workdir(copy).load(config, abstract))
    return SimpleNamespace(config=config, abstract=abstract, states=states)


@contextlib.contextmanager
def tempfile_copy(run):
    copy = run.parent / "copy"
    try:
        yield shutil.copytree(run, copy)
    finally:
        shutil.rmtree(copy)


@contextlib.contextmanager
def opened(workdir, **options):
    checkpoints = Workdir(workdir).checkpoints(keep=2, **options)
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def newest(workdir) -> int | None:
    """The step that a reader would load."""
    with opened(workdir) as checkpoints:
        return checkpoints.newest()


def resumed(workdir, model) -> int | None:
    """The step from which a run would resume, after comparing the state bit for bit."""
    with opened(workdir) as checkpoints:
        state = checkpoints.restore(model.abstract)
    if state is None:
        return None
    chex.assert_trees_all_equal(jax.device_get(state), model.states[int(state.step)])
    return int(state.step)


def chosen(workdir) -> int | None:
    """The step from which a run would resume, as `resumed` but without reading the arrays."""
    with opened(workdir) as checkpoints, contextlib.ExitStack() as held:
        return checkpoints._newest_good(read_only=False, held=held)


def contents(folder) -> dict:
    """What is in a folder, by name: the bytes of files, the targets of links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path.relative_to(folder).as_posix()] = os.readlink(path)
        elif path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def payload(folder) -> list:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)


def flip(path, at: float) -> None:
    content = bytearray(path.read_bytes())
    bit = int(at * 8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


# --- the manifest ---------------------------------------------------------------------------------


def edited(change, sealed=False):
    """A damage that changes the content of the manifest; sealed: and makes its checksum right."""

    def damage(folder):
        about = json.loads((folder / MANIFEST).read_text())
        change(about)
        if sealed:
            about["checksum"] = manifest._own_checksum(about)
        (folder / MANIFEST).write_text(json.dumps(about))

    return damage


def written(content):
    """A damage that replaces the manifest, and one bit of the state, which would not be noticed."""

    def damage(folder):
        (folder / MANIFEST).write_bytes(content if isinstance(content, bytes) else content.encode())
        flip(max(payload(folder), key=lambda path: path.stat().st_size), 0.5)

    return damage


def a_folder(folder):
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).mkdir()


def a_dangling_link(folder):
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).symlink_to("nowhere")


def a_fifo(folder):
    (folder / MANIFEST).unlink()
    os.mkfifo(folder / MANIFEST)


def without(*names):
    def change(about):
        for name in names:
            del about["files"][name]

    return change


def first(about):
    return next(iter(about["files"]))


MANIFESTS = {
    "removed": lambda folder: (folder / MANIFEST).unlink(),
    "a folder": a_folder,
    "a dangling link": a_dangling_link,
    "a FIFO": a_fifo,
    **{
        repr(content[:20]): written(content)
        for content in (
            "", "{", "{}", "[]", "null", "3", "true", '"text"', "NaN", "Infinity", "[" * 100_000,
            '{"a":' * 5000, '{"a": 1e999}', '{"a": [1, 2], "a": [1, 2]}', b"\xff\xfe{}", b"\0" * 50,
            '{"run.json": 3}', '{"run.json": ["a", 1]}', '{"run.json": [1]}',
            '{"run.json": [1.0, 2]}', '{"run.json": [true, 1]}', '{"run.json": {"a": 1}}',
            '{"../../run.json": [1, 2]}', '{"/etc/passwd": [1, 2]}', '{"format": 1}',
            '{"format": 1, "step": 20, "files": {}}', '{"format": 1, "step": 20, "files": [1]}',
            '{"format": 1, "step": 20, "files": {}, "checksum": 7}',
            '{"format": [], "step": {}, "files": {"a": null}, "checksum": null}',
        )
    },
    "no file, sealed": edited(lambda about: about["files"].clear(), True),
    "no run.json, sealed": edited(without("run.json"), True),
    "no metadata, sealed": edited(without("state/_METADATA"), True),
    "no arrays, sealed": edited(without("state/manifest.ocdbt"), True),
    "one unlisted, sealed": edited(lambda about: about["files"].pop(first(about)), True),
    "one unlisted": edited(lambda about: about["files"].pop(first(about))),
    "another step": edited(lambda about: about.update(step=10)),
    "another step, sealed": edited(lambda about: about.update(step=10), True),
    "no step, sealed": edited(lambda about: about.update(step=[None]), True),
    "another size, sealed": edited(lambda about: about["files"].update({first(about): [1, "a"]}),
                                   True),
    "another type, sealed": edited(lambda about: about["files"].update({first(about): [1, 2]}),
                                   True),
    "another format": edited(lambda about: about.update(format=2)),
}  # fmt: skip


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_spoilt_manifest_is_damage(workdir, model, tried, name):
    folder = workdir / "checkpoints"
    MANIFESTS[name](folder / "20")
    before = contents(folder)
    assert newest(workdir) == 10 and contents(folder) == before  # who reads changes nothing
    damaged = contents(folder / "20")
    step = resumed(workdir, model) if name in ("removed", "'{}'") else chosen(workdir)
    assert step == 10
    assert contents(folder / "damaged-20") == damaged and not (folder / "20").exists()
    tried("manifests", "set aside, the one before is loaded")


def test_a_manifest_of_a_newer_version_is_named_and_nothing_is_touched(workdir, model):
    edited(lambda about: about.update(format=2), True)(workdir / "checkpoints" / "20")
    before = contents(workdir)
    for read in (newest, lambda place: resumed(place, model)):
        with pytest.raises(UserError, match=r"20 was written by a newer version of genzoo"):
            read(workdir)
    assert contents(workdir) == before


# --- the files ------------------------------------------------------------------------------------


def damage_of(kind: str, path, at: float) -> None:
    if kind == "flip":
        flip(path, at)
    elif kind == "truncate":
        os.truncate(path, int(at * path.stat().st_size))
    elif kind == "append":
        path.write_bytes(path.read_bytes() + b"\0")
    elif kind == "zero":
        path.write_bytes(b"\0" * path.stat().st_size)
    else:
        path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("nowhere")
    elif kind == "fifo":
        os.mkfifo(path)


KINDS = ("flip", "truncate", "append", "zero", "remove", "folder", "link", "fifo")


@pytest.mark.parametrize("many", MANY)
def test_damage_of_any_file_is_noticed(workdir, tried, many):
    seed, number = many
    generator, whole = random.Random(seed), workdir / "checkpoints" / "20"
    kept = shutil.copytree(whole, workdir / "kept")
    names = [path.relative_to(kept) for path in [*payload(kept), kept / MANIFEST]]
    for name, kind in itertools.islice(itertools.cycle(itertools.product(names, KINDS)), number):
        damage_of(kind, whole / name, generator.random())
        assert newest(workdir) == 10, (name, kind)
        if (whole / name).is_dir():
            (whole / name).rmdir()
        else:
            (whole / name).unlink(missing_ok=True)
        shutil.copy2(kept / name, whole / name)
    assert newest(workdir) == 20
    tried("files of a checkpoint", "the one before is loaded", number)


def test_a_file_of_another_checkpoint_is_noticed(workdir):
    """The library would read the array metadata of a process that never was."""
    folder = workdir / "checkpoints"
    name = "state/array_metadatas/process_0"
    shutil.copy2(folder / "10" / name, folder / "20" / "state/array_metadatas/process_1")
    assert newest(workdir) == 10
    (folder / "20" / "state/array_metadatas/process_1").unlink()
    (folder / "20" / "state" / ".nfs0001").write_text("belongs to the file system")
    assert newest(workdir) == 20


# --- when none is good ----------------------------------------------------------------------------


def spoil_both(workdir, damage):
    for step in ("10", "20"):
        damage(workdir / "checkpoints" / step)


@pytest.mark.parametrize("name", ["removed", "'{}'", "'['"])
def test_without_a_good_one_a_run_stops_every_time(workdir, model, name):
    damage = MANIFESTS["removed"] if name == "removed" else written(name.strip("'"))
    spoil_both(workdir, damage)
    before = contents(workdir)
    for read in (newest, newest, lambda place: resumed(place, model), newest):
        with pytest.raises(UserError, match=r"is good: 20 \(.*10 \(.*config.train.restart=True"):
            read(workdir)
    assert contents(workdir) == before and Workdir(workdir).begun


def test_what_was_set_aside_before_also_stops_a_run(workdir, model):
    folder = workdir / "checkpoints"
    for step in ("10", "20"):
        (folder / step).rename(folder / f"damaged-{step}")
    for _ in range(2):
        with pytest.raises(UserError, match=r"damaged-10 \(set aside before\)"):
            resumed(workdir, model)


def test_starting_over_loses_nothing_and_happens_once(workdir, model, caplog):
    spoil_both(workdir, MANIFESTS["removed"])
    before = contents(workdir)
    with opened(workdir) as checkpoints:
        start_over(workdir, checkpoints)
        moved = contents(workdir / "before-restart")
        moved[".lock"] = before[".lock"]
        assert moved == before
        assert checkpoints.restore(model.abstract) is None
        start_over(workdir, checkpoints)  # a killed start, repeated
        shutil.copytree(workdir / "before-restart" / "checkpoints", workdir / "checkpoints")
        start_over(workdir, checkpoints)
    assert contents(workdir / "before-restart-2" / "checkpoints")


def test_starting_over_does_nothing_to_a_good_run(workdir, caplog):
    MANIFESTS["removed"](workdir / "checkpoints" / "20")
    before = contents(workdir)
    with opened(workdir) as checkpoints, caplog.at_level(logging.INFO, logger="genzoo"):
        start_over(workdir, checkpoints)
    assert "train.restart has no effect: the checkpoint of step 10 is good" in caplog.text
    assert contents(workdir) == before


def test_the_command_stops_twice_and_then_starts_over(workdir, capsys):
    spoil_both(workdir, written("{}"))
    before = contents(workdir)
    command = [f"--workdir={workdir}", "--config.train.steps=30"]
    for _ in range(2):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "No checkpoint in" in error and "--config.train.restart=True" in error
        assert "Traceback" not in error
        now = contents(workdir)
        assert all(now[n] == before[n] for n in before if n not in ("config.json", ".lock"))
    assert main([*command, "--config.train.restart=True"]) == 0
    assert contents(workdir / "before-restart")["metrics.jsonl"] == before["metrics.jsonl"]
    assert newest(workdir) == 30 and "restart" not in (workdir / "config.json").read_text()
    assert main([*command, "--config.train.restart=True"]) == 0  # resumes: step 30 is done
    assert not (workdir / "before-restart-2").exists()


# --- strange entries ------------------------------------------------------------------------------


def a_copy(folder):
    shutil.copytree(folder / "20", folder / "999")


def a_link_to_a_step(folder):
    (folder / "30").symlink_to("20", target_is_directory=True)


def named(name, kind):
    def make(folder):
        path = folder / name
        if kind == "file":
            path.write_text("{}")
        elif kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to("nowhere")
        elif kind == "circle":
            path.symlink_to(path.name)
        else:
            os.mkfifo(path)

    return make


STRANGE = {
    "999 is a copy of 20": a_copy,
    "30 is a link to 20": a_link_to_a_step,
    **{
        f"{name!r}, {kind}": named(name, kind)
        for name, kind in itertools.product(
            ("²", "30", "020", "٣٠", "-5", " 30", "30 ", "1e3", "99999999999", "0x10", "30.tmp",
             "30.orbax-checkpoint-tmp-1", "a\nb", b"\xff\xfe".decode(errors="surrogateescape"),
             ".DS_Store", "unfinished-30", "unfinished-", "removed-7", "damaged-7", "latest"),
            ("file", "folder", "link", "circle", "fifo"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("kinds", ["file", "folder", "link", "circle", "fifo", "20"])
def test_whatever_else_lies_there_is_ignored_or_set_aside(tmp_path, tried, kinds):
    checkpoints = Checkpoints(directory=tmp_path / "kept")
    for step in (10, 20):
        checkpoints.save(small(step))
    checkpoints.close()
    for index, (name, make) in enumerate(STRANGE.items()):
        if not name.endswith(kinds):
            continue
        folder = shutil.copytree(tmp_path / "kept", tmp_path / str(index))
        make(folder)
        before = contents(folder)
        there = Checkpoints(directory=folder)
        assert there.newest() == 20 and contents(folder) == before, name
        assert int(there.restore(small_abstract()).step) == 20 and there.steps() == [20, 10], name
        there.save(small(30))
        there.close()
        assert there.steps() == [30, 20] and there.newest() == 30, name
        after = [content for content in contents(folder).values() if isinstance(content, bytes)]
        pruned = [content for path, content in before.items() if not path.startswith("10/")]
        assert all(content in after for content in pruned if isinstance(content, bytes)), name
        tried("strange entries", "ignored or set aside")


def later(state, step):
    return jax.tree.map(jnp.copy, state).__class__(**{**vars(state), "step": jnp.int32(step)})


def test_a_copy_under_another_name_is_named(workdir, model, caplog):
    folder = workdir / "checkpoints"
    (folder / "20").rename(folder / "999")
    with caplog.at_level(logging.WARNING, logger="genzoo"):
        assert resumed(workdir, model) == 10
    assert "Checkpoint 999: it holds step 20: rename it to 20" in caplog.text
    assert (folder / "damaged-999" / MANIFEST).is_file()


def test_a_checkpoint_on_another_disk_is_read_and_not_removed(workdir, model):
    elsewhere = (workdir / "checkpoints" / "10").rename(workdir / "elsewhere")
    (workdir / "checkpoints" / "10").symlink_to(elsewhere, target_is_directory=True)
    shutil.rmtree(workdir / "checkpoints" / "20")
    assert resumed(workdir, model) == 10
    with opened(workdir) as checkpoints:
        state = checkpoints.restore(model.abstract)
        for step in (20, 30, 40):
            checkpoints.save(later(state, step))
        checkpoints.wait()
        assert checkpoints.steps() == [40, 30, 10]
    assert (elsewhere / MANIFEST).is_file()


@pytest.mark.parametrize("kind", ["file", "fifo"])
def test_a_folder_of_checkpoints_that_is_none_is_named(workdir, kind):
    (workdir / "checkpoints").rename(workdir / "away")
    named("checkpoints", kind)(workdir)
    for read in (newest, lambda place: Workdir(place).check_writable()):
        with pytest.raises(UserError, match=r"checkpoints is (not a folder|in the way)"):
            read(workdir)


# --- older manifests ------------------------------------------------------------------------------


def of_old(folder) -> None:
    """Rewrites the manifest as it was before format 1."""
    entries = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, zlib.crc32(path.read_bytes())]
        for path in payload(folder)
    }
    (folder / MANIFEST).write_text(json.dumps(entries, indent=1))


def test_checkpoints_of_before_format_1_are_still_read(workdir, model):
    for step in ("10", "20"):
        of_old(workdir / "checkpoints" / step)
    assert resumed(workdir, model) == 20
    shutil.copytree(workdir / "checkpoints" / "20", workdir / "checkpoints" / "999")
    assert newest(workdir) == 20
    flip(payload(workdir / "checkpoints" / "20")[-1], 0.3)
    assert resumed(workdir, model) == 10
    entries = json.loads((workdir / "checkpoints" / "10" / MANIFEST).read_text())
    for name in entries:  # none may be missing, although this form has no checksum of its own
        rest = {key: entry for key, entry in entries.items() if key != name}
        (workdir / "checkpoints" / "10" / MANIFEST).write_text(json.dumps(rest))
        with pytest.raises(UserError, match="is good"):
            newest(workdir)


# --- saving ---------------------------------------------------------------------------------------


def small(step: int) -> TrainState:
    value = jnp.full((50, 50), step, jnp.float32)
    return TrainState(
        step=jnp.int32(step), params={"w": value}, stats={}, opt_state={}, averages={},
        faults=Faults.none(),
    )  # fmt: skip


def small_abstract() -> TrainState:
    state = small(0)
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
        state, placement().state(state),
    )  # fmt: skip


def test_a_save_is_complete_before_the_next_begins(tmp_path, monkeypatch):
    """So a kill at any moment loses at most one interval and the time of one save."""
    begun, write = [], checkpoint.write_manifest

    def begin(self, step, arrays):
        for before in begun:
            assert manifest.damage(self.path(before), arrays) is None
        begun.append(step)
        return StepFolders.begin(self, step, arrays)

    class Watched(StepFolders):
        pass

    Watched.begin = begin
    monkeypatch.setattr(checkpoint, "StepFolders", Watched)
    monkeypatch.setattr(checkpoint, "write_manifest",
                        lambda *given: (time.sleep(0.05), write(*given)))  # fmt: skip
    checkpoints = Checkpoints(directory=tmp_path, keep=9)
    for step in range(1, 6):
        checkpoints.save(small(step))
    checkpoints.close()
    assert begun == [1, 2, 3, 4, 5] == checkpoints.steps()[::-1]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", ["arrays", "manifest", "name", "pruning"])
def test_a_kill_anywhere_in_a_save_costs_no_other_checkpoint(tmp_path, monkeypatch, at):
    """The process ends at this point: nothing after it happens."""
    checkpoints = Checkpoints(directory=tmp_path, keep=1)
    checkpoints.save(small(1))
    checkpoints.wait()

    def killed(*given, **options):
        raise Killed

    if at == "arrays":
        place = StepFolders(tmp_path).begin(2, "state")
        (place / "state.orbax-checkpoint-tmp" / "d").mkdir(parents=True)
        (place / "run.json").write_text("{")
    else:
        broken = {"manifest": (checkpoint, "write_manifest"), "name": (StepFolders, "finish"),
                  "pruning": (shutil, "rmtree")}[at]  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(*broken, killed)
            checkpoints.save(small(2))
            with contextlib.suppress(UserError):
                checkpoints.wait()
    checkpoints.close()
    resumed = Checkpoints(directory=tmp_path, keep=1)
    state = resumed.restore(small_abstract())
    expected = 2 if at == "pruning" else 1
    chex.assert_trees_all_equal(state, small(expected))
    for step in (2, 3):
        resumed.save(small(step))
    resumed.close()
    left = {"manifest": {"unfinished-2-2"}, "name": {"unfinished-2-2"}}.get(at, set())
    assert set(os.listdir(tmp_path)) == {"3"} | left  # what may hold a state stays


def test_the_library_gives_arrays_their_name_only_when_they_are_complete(tmp_path, monkeypatch):
    """By this an interrupted save that cannot hold a state is told from one that may."""
    names, rename = [], os.rename
    checkpoints = Checkpoints(directory=tmp_path)

    def renamed(source, target, **options):
        names.append((os.path.basename(source), os.path.basename(target)))
        rename(source, target, **options)

    monkeypatch.setattr(os, "rename", renamed)
    checkpoints.save(small(1))
    checkpoints.close()
    assert any(s.startswith("state.") and t == "state" for s, t in names)


# --- reading while a run saves --------------------------------------------------------------------


@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize(
    ("saves", "readers"), [(8, 2), pytest.param(80, 10, marks=pytest.mark.slow)]
)
def test_readers_of_a_running_run_get_a_good_state_every_time(
    tmp_path, monkeypatch, tried, locks, saves, readers
):
    """With `keep=1` every save removes what a reader may be reading."""
    if not locks:

        def none(file, kind):
            raise OSError(37, "No locks available")

        monkeypatch.setattr(fcntl, "flock", none)
    writer, abstract = Checkpoints(directory=tmp_path, keep=1), small_abstract()
    writer.save(small(1))
    writer.wait()
    ended, wrong, read = threading.Event(), [], []

    def reading():
        try:
            while not ended.is_set():
                reader = Checkpoints(directory=tmp_path)
                state = reader.restore(abstract, read_only=True)
                reader.close()
                read.append(int(state.step))
                assert (state.params["w"] == state.step).all()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=reading) for _ in range(readers)]
    for thread in threads:
        thread.start()
    for step in range(2, saves + 2):
        writer.save(small(step))
        writer.wait()
    ended.set()
    for thread in threads:
        thread.join()
    writer.close()
    if wrong:
        raise wrong[0]
    assert len(set(read)) > 2
    tried("loads while a run saves", "a good state", len(read))


def test_a_checkpoint_that_is_read_is_removed_later(tmp_path):
    checkpoints, folders = Checkpoints(directory=tmp_path, keep=1), StepFolders(tmp_path)
    checkpoints.save(small(1))
    checkpoints.wait()
    with folders.held(1) as here:
        assert here
        checkpoints.save(small(2))
        checkpoints.wait()
        assert checkpoints.steps() == [2, 1]
    with folders.held(7) as here:
        assert not here
    checkpoints.save(small(3))
    checkpoints.close()
    assert checkpoints.steps() == [3]


def test_what_is_removed_while_it_is_read_gives_way_to_the_newer_one(tmp_path, monkeypatch):
    """As on a file system without locks; the reason must not be that the arrays are others."""
    checkpoints = Checkpoints(directory=tmp_path, keep=2)
    checkpoints.save(small(1))
    checkpoints.wait()
    reader, load = Checkpoints(directory=tmp_path), Checkpoints._load

    def overtaken(self, step, *given):
        if step == 1:
            checkpoints.save(small(2))
            checkpoints.wait()
            shutil.rmtree(tmp_path / "1")
        return load(self, step, *given)

    monkeypatch.setattr(Checkpoints, "_load", overtaken)
    assert int(reader.restore(small_abstract(), read_only=True).step) == 2
    reader.close()
    checkpoints.close()


def test_a_listing_that_misses_both_the_old_and_the_new_one_is_not_believed(tmp_path, monkeypatch):
    checkpoints, names = Checkpoints(directory=tmp_path), StepFolders._names
    checkpoints.save(small(1))
    checkpoints.close()
    listings = iter([["removed-1"]])
    monkeypatch.setattr(StepFolders, "_names", lambda self: next(listings, None) or names(self))
    assert checkpoints.newest() == 1
