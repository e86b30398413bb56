"""The modes that examine a representation, on families whose representation is known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from train.toy import Line

from genzoo import build, check, config
from genzoo.core import streams
from genzoo.core.contract import CodeGrid
from genzoo.core.errors import UserError
from genzoo.data.embedded import open_fashion_mini
from genzoo.evaluate import figures
from genzoo.experiment import Experiment
from genzoo.main import main
from genzoo.modes.encode import encode
from genzoo.modes.interpolate import interpolate, pairs_of
from genzoo.modes.latents import latents
from genzoo.modes.probe import probe
from genzoo.modes.retrieve import retrieve
from genzoo.workdir import Workdir

TEST, TRAIN = open_fashion_mini("test").arrays, open_fashion_mini("train").arrays
CLASSES = open_fashion_mini("test").spec.classes


class Flat(Line):
    """The representation is the image."""

    def encode(self, variables, batch, keys):
        return batch["x"].reshape(len(batch["x"]), -1)

    def decode(self, variables, latent):
        return latent.reshape(-1, 28, 28, 1)


class Halves(Line):
    """Two units: the means of the upper and of the lower half."""

    def encode(self, variables, batch, keys):
        return batch["x"].reshape(-1, 2, 14 * 28).mean(-1)

    def decode(self, variables, latent):
        return jnp.repeat(latent, 14 * 28, axis=1).reshape(-1, 28, 28, 1)


class Noisy(Halves):
    """Its encoder is random."""

    def encode(self, variables, batch, keys):
        return super().encode(variables, batch, keys) + streams.normal(keys, (2,))


class Knowing(Line):
    """Its representation is only the class."""

    def encode(self, variables, batch, keys):
        return jax.nn.one_hot(batch["label"], 10)


class Tokens(Line):
    """Level 0: the brightness of the image, 3 codes. Level 1: that of its halves, 5 codes."""

    code_grids = (CodeGrid(shape=(), size=3), CodeGrid(shape=(2, 1), size=5))

    def codes(self, variables, batch):
        halves = batch["x"].reshape(-1, 2, 14 * 28).mean(-1)
        return self.at(halves.mean(-1), 3), self.at(halves, 5)[..., None]

    def decode_codes(self, variables, codes):
        level = codes[0][:, None] / 2 - 1.0
        return jnp.repeat(level + codes[1][..., 0] / 10, 14 * 28, axis=1).reshape(-1, 28, 28, 1)

    @staticmethod
    def at(values, size):
        return jnp.clip(jnp.floor((values + 1) / 2 * size), 0, size - 1).astype(jnp.int32)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A workdir of a toy family, and its config with changes."""

    def made(family, **changes):
        monkeypatch.setattr(build, "family", lambda config: family)
        raw = config.load("configs/ddpm_fashion.py:smoke")
        raw["eval"] |= {"batch_size": 64, "count": 0, "weights": "raw"}
        changes = {k.replace("_", ".", 1): str(v) for k, v in changes.items()}
        settings = check.check(config.override(raw, changes))
        place = Workdir(tmp_path / "run")
        if not place.config():
            place.claim(settings, {}).close()
            checkpoints = place.checkpoints(keep=1)
            checkpoints.save(Experiment(settings).initial_state())
            checkpoints.close()
        return settings, place.path

    return made


@pytest.fixture
def drawn(monkeypatch):
    """The rows drawn by a mode."""
    seen, real = [], figures.save_rows

    def save(path, rows, **more):
        seen.extend(rows)
        real(path, rows, **more)

    monkeypatch.setattr(figures, "save_rows", save)
    return seen


def floats(images):
    return images.astype(np.float64) / 127.5 - 1


def halves(images):
    return floats(images).reshape(len(images), 2, -1).mean(-1)


def stored(workdir, name):
    return json.loads((workdir / name).read_text())


def archive(workdir):
    with np.load(workdir / "embeddings.npz", allow_pickle=False) as arrays:
        return dict(arrays)


# --- encode ---------------------------------------------------------------------------------------


def test_encode_writes_every_embedding(run):
    settings, workdir = run(Halves())
    report = encode(settings, workdir)
    arrays = archive(workdir)
    assert report["files"] == [str(workdir / "embeddings.npz")]
    assert report["count"] == 2000 and report["dimensions"] == 2
    assert arrays["embedding"].dtype == np.float32
    np.testing.assert_allclose(arrays["embedding"], halves(TEST["x"]), atol=1e-6)
    np.testing.assert_array_equal(arrays["label"], TEST["label"])
    np.testing.assert_array_equal(arrays["index"], np.arange(2000))


def test_a_random_encoder_gives_an_image_the_same_in_any_batch_and_other_splits_others(run):
    def embeddings(size, split):
        settings, workdir = run(Noisy(), eval_count=7, eval_batch_size=size, eval_split=split)
        encode(settings, workdir)
        return archive(workdir)["embedding"]

    expected = embeddings(7, "test")
    for size in (1, 3, 64):
        np.testing.assert_allclose(embeddings(size, "test"), expected, atol=1e-6)
    noise = expected - halves(TEST["x"][:7])
    other = embeddings(7, "train") - halves(TRAIN["x"][:7])
    assert noise.std() > 0.3 and np.abs(noise - other).min() > 1e-4


def test_encode_reads_a_folder_of_images_of_any_size(run, tmp_path):
    (tmp_path / "images" / "more").mkdir(parents=True)
    Image.fromarray(TEST["x"][3, ..., 0]).save(tmp_path / "images" / "b.png")
    Image.new("RGB", (100, 60), (51, 51, 51)).save(tmp_path / "images" / "more" / "ä.png")
    (tmp_path / "images" / ".hidden.png").write_text("")
    (tmp_path / "images" / "words.txt").write_text("")
    settings, workdir = run(Halves(), tools_folder=tmp_path / "images")
    assert encode(settings, workdir)["count"] == 2
    arrays = archive(workdir)
    assert arrays["file"].tolist() == ["b.png", "more/ä.png"] and "label" not in arrays
    expected = [halves(TEST["x"][3:4])[0], [51 / 127.5 - 1] * 2]
    np.testing.assert_allclose(arrays["embedding"], expected, atol=1e-6)
    (tmp_path / "images" / "a.png").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"a.png cannot be used as an image: not an image in any"):
        encode(settings, workdir)


# --- interpolate ----------------------------------------------------------------------------------


def test_paths_go_from_image_to_image(run, drawn):
    settings, workdir = run(Flat())
    interpolate(settings, workdir)
    assert [row.label for row in drawn] == ["linear", "spherical"] * 4
    described = stored(workdir, "interpolate.json")["pairs"]
    for number, row in enumerate(drawn):
        pair = described[number // 2]
        ends = [int(pair[key].split()[1]) for key in ("first", "second")]
        assert TEST["label"][ends[0]] != TEST["label"][ends[1]]
        first, second = TEST["x"][ends]
        # With an identity decoder, the ends of the path equal the originals beside them.
        for place, expected in ((0, first), (1, first), (-2, second), (-1, second)):
            np.testing.assert_array_equal(row.images[place], expected)
        assert len(row.images) == 13
    middle = (floats(TEST["x"][ends[0]]) + floats(TEST["x"][ends[1]])) / 2
    np.testing.assert_allclose(floats(drawn[-2].images[6]), middle, atol=0.51 / 127.5)
    a, b = (floats(TEST["x"][end]).ravel() for end in ends)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert np.cos(np.radians(pair["angle_degrees"])) == pytest.approx(cosine, rel=1e-5)
    assert pair["distance"] == pytest.approx(np.linalg.norm(a - b), rel=1e-5)
    # The midpoint on the sphere is (u + v) / |u + v| times the mean of the norms.
    u, v = a / np.linalg.norm(a), b / np.linalg.norm(b)
    length = (np.linalg.norm(a) + np.linalg.norm(b)) / 2 / np.linalg.norm(u + v)
    expected = np.clip(length * (u + v), -1, 1).reshape(28, 28, 1)
    np.testing.assert_allclose(floats(drawn[-1].images[6]), expected, atol=0.52 / 127.5)
    assert (workdir / "samples" / "interpolation.png").is_file()


def test_paths_between_two_files(run, drawn, tmp_path):
    for name, index in (("one.png", 0), ("two.png", 9)):
        Image.fromarray(TEST["x"][index, ..., 0]).save(tmp_path / name)
    settings, workdir = run(
        Halves(), tools_first=tmp_path / "one.png", tools_second=tmp_path / "two.png"
    )
    assert interpolate(settings, workdir)["pairs"] == [("one.png", "two.png")]
    assert len(drawn) == 2
    np.testing.assert_array_equal(drawn[0].images[0], TEST["x"][0])
    means = floats(drawn[0].images[1:-1])[:, [0, -1], 5, 0]
    a, b = halves(TEST["x"][[0, 9]])
    times = np.linspace(0, 1, 11)[:, None]
    np.testing.assert_allclose(means, (1 - times) * a + times * b, atol=0.51 / 127.5)


def test_pairs_are_of_different_classes_where_there_are_any():
    index = np.array([5, 6, 7, 8, 9])
    assert pairs_of(index, None, 4) == [(5, 6), (7, 8)]
    assert pairs_of(index, np.array([1, 1, 1, 1, 1]), 4) == [(5, 6), (7, 8)]
    assert pairs_of(index, np.array([1, 1, 2, 2, 1]), 4) == [(5, 7), (6, 8)]
    assert pairs_of(index, np.array([1, 1, 2, 2, 1]), 1) == [(5, 7)]
    assert pairs_of(index[:1], None, 4) == []


# --- retrieve -------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_are_those_of_brute_force(run, drawn, metric):
    settings, workdir = run(Flat(), tools_metric=metric, tools_neighbours=5)
    report = retrieve(settings, workdir)
    queries, candidates = floats(TEST["x"][:8]), floats(TRAIN["x"])
    queries, candidates = queries.reshape(8, -1), candidates.reshape(len(candidates), -1)
    if metric == "cosine":
        queries, candidates = (
            x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, candidates)
        )
    right = []
    for number, query in enumerate(stored(workdir, "retrieve.json")["queries"]):
        distance = np.linalg.norm(candidates - queries[number], axis=1)
        if metric == "cosine":
            distance = distance**2 / 2
        order = np.argsort(distance, kind="stable")[:5]
        assert query["indices"] == order.tolist() and query["index"] == number
        np.testing.assert_allclose(query["distances"], distance[order], rtol=1e-4)
        assert query["labels"] == TRAIN["label"][order].tolist()
        right.append(np.mean(TRAIN["label"][order] == TEST["label"][number]))
        expected = np.concatenate([TEST["x"][number][None], TRAIN["x"][order]])
        np.testing.assert_array_equal(drawn[number].images, expected)
        wrong = np.flatnonzero(TRAIN["label"][order] != TEST["label"][number]) + 1
        assert drawn[number].marked == set(wrong)
    assert report["precision"] == pytest.approx(np.mean(right))


def test_a_training_image_is_not_its_own_neighbour_and_a_file_finds_itself(run, tmp_path):
    settings, workdir = run(Flat(), eval_split="train", tools_neighbours=1)
    retrieve(settings, workdir)
    for number, query in enumerate(stored(workdir, "retrieve.json")["queries"]):
        assert query["indices"][0] != number and query["distances"][0] > 1
    Image.fromarray(TRAIN["x"][321, ..., 0]).save(tmp_path / "query.png")
    settings, workdir = run(Flat(), tools_first=tmp_path / "query.png", tools_neighbours=2)
    assert "precision" not in retrieve(settings, workdir)
    (query,) = stored(workdir, "retrieve.json")["queries"]
    assert query["file"] == "query.png" and query["indices"][0] == 321
    assert query["distances"][0] == pytest.approx(0, abs=1e-5)


def test_an_example_is_found_by_its_number(run):
    settings, workdir = run(Flat(), eval_split="train", tools_first="321", tools_neighbours=2)
    retrieve(settings, workdir)
    (query,) = stored(workdir, "retrieve.json")["queries"]
    x = floats(TRAIN["x"]).reshape(len(TRAIN["x"]), -1)
    distance = np.linalg.norm(x - x[321], axis=1)
    assert query["index"] == 321
    assert query["indices"] == np.argsort(distance)[1:3].tolist()


# --- latents --------------------------------------------------------------------------------------


def test_traversals_move_one_unit_and_the_plane_is_drawn(run, drawn):
    settings, workdir = run(Halves())
    latents(settings, workdir)
    codes = halves(TEST["x"])
    units = stored(workdir, "latents.json")["units"]
    np.testing.assert_allclose(units["mean"], codes.mean(0), atol=1e-6)
    np.testing.assert_allclose(units["deviation"], codes.std(0), rtol=1e-5)
    assert units["traversed"] == np.argsort(-codes.std(0)).tolist()
    np.testing.assert_allclose(
        [units["plane"]["low"], units["plane"]["high"]],
        np.quantile(codes, (0.005, 0.995), axis=0), rtol=1e-4,
    )  # fmt: skip
    for row, unit in zip(drawn, units["traversed"], strict=True):
        assert row.label == f"unit {unit}\nsd {codes.std(0)[unit]:.3g}"
        shown = floats(row.images)[:, [0, -1], 5, 0]
        expected = np.tile(codes[0], (14, 1))
        expected[1:, unit] = codes.mean(0)[unit] + np.linspace(-3, 3, 13) * codes.std(0)[unit]
        np.testing.assert_allclose(shown, np.clip(expected, -1, 1), atol=0.51 / 127.5)
    assert (workdir / "samples" / "latent_plane.png").is_file()


def test_the_plane_shows_the_decoded_grid_with_the_second_unit_upwards(run, monkeypatch):
    seen = []
    monkeypatch.setattr(figures, "save_plane", lambda *args: seen.extend(args))
    latents(*run(Halves(), eval_count=100))
    _, points, labels, classes, manifold, box = seen
    np.testing.assert_allclose(points, halves(TEST["x"][:100]), atol=1e-6)
    np.testing.assert_array_equal(labels, TEST["label"][:100])
    assert classes == CLASSES and manifold.shape == (20, 20, 28, 28, 1)
    steps = (np.arange(20) + 0.5) / 20
    upper = box[0, 0] + steps * (box[1, 0] - box[0, 0])
    lower = box[0, 1] + steps * (box[1, 1] - box[0, 1])
    np.testing.assert_allclose(floats(manifold[7, :, 0, 5, 0]), upper, atol=0.51 / 127.5)
    np.testing.assert_allclose(floats(manifold[:, 7, -1, 5, 0]), lower, atol=0.51 / 127.5)


def test_codes_are_counted_and_decoded_one_by_one(run, monkeypatch):
    seen = []
    real = figures.save_codebook
    monkeypatch.setattr(
        figures, "save_codebook", lambda path, levels: (seen.extend(levels), real(path, levels))
    )
    settings, workdir = run(Tokens(), eval_count=300)
    latents(settings, workdir)
    bright = halves(TEST["x"][:300])
    expected = [
        np.bincount(np.floor((bright.mean(1) + 1) / 2 * 3).astype(int), minlength=3),
        np.bincount(np.floor((bright.ravel() + 1) / 2 * 5).astype(int), minlength=5),
    ]
    commonest = [counts.argmax() for counts in expected]
    for number, level in enumerate(stored(workdir, "latents.json")["levels"]):
        counts = expected[number]
        assert level["counts"] == counts.tolist() and level["size"] == len(counts)
        assert level["in_use"] == (counts > 0).sum()
        shares = counts[counts > 0] / counts.sum()
        assert level["perplexity"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
        order = [code for code in np.argsort(-counts, kind="stable") if counts[code]]
        for code, image in zip(order, floats(seen[number].images), strict=True):
            both = [code if level == number else commonest[level] for level in (0, 1)]
            value = np.clip(both[0] / 2 - 1 + both[1] / 10, -1, 1)
            np.testing.assert_allclose(image, value, atol=0.51 / 127.5)
    assert (workdir / "samples" / "codebook.png").is_file()
    assert not (workdir / "samples" / "traversals.png").exists()


# --- probe ----------------------------------------------------------------------------------------


def test_a_representation_that_knows_the_classes_is_told_apart_from_pixels(run):
    settings, workdir = run(Knowing(), tools_probe_examples=300, eval_count=100)
    report = probe(settings, workdir)
    assert report.pop("files") == [str(workdir / "probe.json")]
    assert report == stored(workdir, "probe.json")
    assert report["train_examples"] == 300 and report["test_examples"] == 100
    for key in ("linear_accuracy", "neighbour_accuracy", "linear_train_accuracy"):
        assert report["embedding"][key] == 1.0
    assert report["embedding"]["dimensions"] == 10 and report["pixels"]["dimensions"] == 784
    rows = np.arange(300) * 10000 // 300
    x, truth = floats(TRAIN["x"][rows]).reshape(300, -1), TEST["label"][:100]
    guessed = []
    for query in floats(TEST["x"][:100]).reshape(100, -1):
        near = TRAIN["label"][rows][np.argsort(np.linalg.norm(x - query, axis=1))[:20]].tolist()
        guessed.append(max(near, key=lambda label: (near.count(label), -near.index(label))))
    assert report["pixels"]["neighbour_accuracy"] == pytest.approx(np.mean(guessed == truth))
    assert 0.6 < report["pixels"]["linear_accuracy"] < 0.95
    assert max(report[part]["largest_slope"] for part in ("embedding", "pixels")) < 1e-4


def test_two_examples_are_named_by_number(run):
    settings, workdir = run(Flat(), tools_first="3", tools_second="5")
    pairs = interpolate(settings, workdir)["pairs"]
    plain = [[name.split(" (")[0] for name in pair] for pair in pairs]
    assert plain == [["example 3", "example 5"]]


# --- errors ---------------------------------------------------------------------------------------


def test_bad_input_ends_in_a_sentence(run, tmp_path, capsys):
    _, workdir = run(Flat())

    def refused(mode, message, *more):
        assert main([f"--workdir={workdir}", f"--mode={mode}", *more]) == 2
        assert message in capsys.readouterr().err

    none, plain = tmp_path / "none.png", tmp_path / "plain.png"
    plain.write_text("words")
    refused("retrieve", "tools.first = ", f"--config.tools.first={none}")
    refused("retrieve", "plain.png' cannot be used as an image", f"--config.tools.first={plain}")
    refused("interpolate", "tools.second is missing", f"--config.tools.first={plain}")
    refused("retrieve", "must be from 0 to", "--config.tools.first=200000")
    both = ("--config.tools.first=3", f"--config.tools.second={plain}")
    refused("interpolate", "must both be files, or both be numbers", *both)
    numbers = ("--config.tools.first=3", "--config.tools.second=2000")
    refused("interpolate", "must be from 0 to", *numbers)
    refused("interpolate", "needs two examples", "--config.eval.count=1")
    refused("latents", "needs at least 2 examples", "--config.eval.count=1")
    refused("encode", "there is no such folder", f"--config.tools.folder={none}")
    (tmp_path / "empty").mkdir()
    refused("encode", "holds no images", f"--config.tools.folder={tmp_path}/empty")
    refused("probe", "is the training set of the probe", "--config.eval.split=train")
    refused("retrieve", "tools.metric = 'taxi' is unknown", "--config.tools.metric=taxi")
    refused("retrieve", "tools.neighbours = 0 must be", "--config.tools.neighbours=0")


@pytest.mark.parametrize("mode", ["interpolate", "encode", "retrieve", "latents", "probe"])
def test_a_family_that_cannot_run_a_mode_is_named(run, capsys, mode):
    _, workdir = run(Line())
    assert main([f"--workdir={workdir}", f"--mode={mode}"]) == 2
    assert "needs a family that can encode; ddpm can:" in capsys.readouterr().err


def test_a_probe_needs_classes(run, tmp_path):
    for index in range(4):
        Image.fromarray(TEST["x"][index, ..., 0]).save(tmp_path / f"{index}.png")
    settings, workdir = run(
        Flat(), data_name=f"folder:{tmp_path}", data_size=28, data_channels=1, data_labels=False
    )
    with pytest.raises(UserError, match="needs classes"):
        probe(settings, workdir)
