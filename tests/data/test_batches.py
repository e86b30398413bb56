"""Batches: rows, resuming, padding, errors and clean endings."""

import itertools
import subprocess
import sys
import threading
from dataclasses import dataclass

import numpy as np
import pytest

from genzoo.core.errors import UserError
from genzoo.data.batches import eval_batches, fits_in_memory, train_batches
from genzoo.data.fields import Classes, Image
from genzoo.data.source import ArraySource, Spec

FIELDS = {"x": Image(shape=(2, 2, 1)), "label": Classes(names=("a", "b"))}
SPEC = Spec(fields=FIELDS)


def numbered(count, labels=True):
    image = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2)
    arrays = {"x": image} | ({"label": np.arange(count, dtype=np.int32)} if labels else {})
    spec = Spec(fields={name: FIELDS[name] for name in arrays})
    return ArraySource(name="numbered", spec=spec, arrays=arrays)


def take(count, source, **options):
    batches = train_batches(source, **options)
    try:
        return [batch["label"] for batch in itertools.islice(batches, count)]
    finally:
        batches.close()


@dataclass
class Lazy:
    """A source that is not in memory and can fail at one record."""

    inner: ArraySource
    breaks_at: int = -1
    name: str = "lazy"
    spec: Spec = SPEC

    def __len__(self):
        return len(self.inner)

    def read(self, indices):
        if self.breaks_at in indices:
            raise UserError("record gone")
        return self.inner.read(indices)


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_each_epoch_holds_every_record_once(threads):
    stream = np.concatenate(take(10, numbered(20), seed=1, batch_size=6, threads=threads))
    for epoch in range(3):
        np.testing.assert_array_equal(np.sort(stream[epoch * 20 : epoch * 20 + 20]), np.arange(20))


@pytest.mark.parametrize("source", [numbered(20), Lazy(numbered(20))], ids=["memory", "lazy"])
def test_resuming_at_a_step_equals_going_straight(source):
    straight = take(9, source, seed=1, batch_size=6)
    resumed = take(4, source, seed=1, batch_size=6, start_step=5)
    np.testing.assert_array_equal(straight[5:], resumed)


def test_rows_of_processes_make_up_the_global_batch():
    whole = take(5, numbered(20), seed=2, batch_size=6)
    shares = [[0, 1], [2, 3, 4, 5]]
    parts = [take(5, numbered(20), seed=2, batch_size=6, rows=rows) for rows in shares]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))


def test_records_are_uint8_and_images_go_with_labels():
    batches = train_batches(numbered(20), seed=0, batch_size=4)
    batch = next(batches)
    batches.close()
    assert batch["x"].dtype == np.uint8 and batch["x"].shape == (4, 2, 2, 1)
    assert batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["x"][:, 0, 0, 0], batch["label"])


def test_an_error_of_the_reader_is_raised_in_the_consumer():
    source = Lazy(numbered(20), breaks_at=7)
    with pytest.raises(UserError, match="record gone"):
        take(20, source, seed=0, batch_size=4)


def test_closing_ends_the_threads():
    batches = train_batches(Lazy(numbered(20)), seed=0, batch_size=4, threads=3)
    next(batches)
    started = [t for t in threading.enumerate() if t.name.startswith("grain")]
    batches.close()
    for thread in started:
        thread.join(5)
    assert started and not any(thread.is_alive() for thread in started)


def test_a_program_that_never_closes_ends_all_the_same():
    program = (
        "import numpy as np\n"
        "from genzoo.data.batches import train_batches\n"
        "from genzoo.data.embedded import open_fashion_mini\n"
        "batches = train_batches(open_fashion_mini('test'), seed=0, batch_size=8)\n"
        "print(next(batches)['x'].shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True)
    assert done.returncode == 0 and b"(8, 28, 28, 1)" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "total, count, batch", [(10, None, 4), (10, 10, 5), (10, 7, 4), (3, 99, 8)]
)
def test_evaluation_covers_every_example_once(total, count, batch):
    batches = list(eval_batches(numbered(total), batch_size=batch, count=count))
    covered = min(total, count or total)
    index = np.concatenate([b["index"] for b in batches])
    mask = np.concatenate([b["mask"] for b in batches])
    assert len(batches) == -(-covered // batch)
    assert index.dtype == np.int32 and mask.dtype == np.float32
    np.testing.assert_array_equal(index[mask == 1], np.arange(covered))
    np.testing.assert_array_equal(index[mask == 0], covered - 1)  # padding repeats the last
    np.testing.assert_array_equal(mask, np.arange(len(mask)) < covered)
    for b in batches:
        np.testing.assert_array_equal(b["x"][:, 0, 0, 0], b["index"])
        assert b["x"].shape == (batch, 2, 2, 1)


def test_rows_of_evaluation_make_up_the_whole():
    whole = list(eval_batches(numbered(10), batch_size=4))
    parts = [list(eval_batches(numbered(10), batch_size=4, rows=r)) for r in [[0, 1, 2], [3]]]
    for batch, left, right in zip(whole, *parts, strict=True):
        for name, values in batch.items():
            np.testing.assert_array_equal(values, np.concatenate([left[name], right[name]]))


def test_without_labels_there_is_no_label():
    assert "label" not in next(eval_batches(numbered(3, labels=False), batch_size=2))


def test_what_is_in_memory_is_known():
    assert fits_in_memory(numbered(3)) and not fits_in_memory(Lazy(numbered(3)))


def test_impossible_requests_are_refused_at_once():
    with pytest.raises(UserError, match="no examples"):
        train_batches(numbered(0), seed=0, batch_size=4)
    with pytest.raises(UserError, match="batch size is 0"):
        eval_batches(numbered(3), batch_size=0)
    with pytest.raises(ValueError, match="do not lie in a batch of 4"):
        train_batches(numbered(3), seed=0, batch_size=4, rows=[2, 9])
