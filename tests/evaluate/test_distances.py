"""Distances in the features of the shipped networks: their accuracy, order, protocol, sweeps."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import genzoo
from genzoo import check, config
from genzoo.core.errors import UserError
from genzoo.data import scenes, shapes
from genzoo.data.embedded import open_fashion_mini
from genzoo.evaluate import distances, sweeps
from genzoo.evaluate.distances import METRICS, Data, Distance, FeatureSet, parsed, problems
from genzoo.evaluate.features import own
from genzoo.experiment import Experiment
from genzoo.main import main
from genzoo.math.neighbourhoods import neighbourhoods
from genzoo.modes import rulers
from genzoo.modes.compare import compare


@cache
def images(split: str, start: int, stop: int) -> np.ndarray:
    return open_fashion_mini(split).read(np.arange(start, stop))["x"]


@cache
def network():
    return own.open_own("fashion")


def features(*batches: np.ndarray, keep: bool = True) -> FeatureSet:
    found = FeatureSet(keep=keep)
    for batch in batches:
        found.add(*network().outputs(batch))
    return found


@pytest.mark.parametrize(("name", "side", "channels", "classes"), [
    ("fashion", 28, 1, 10), ("digits", 28, 1, 10), ("shapes", 32, 3, 48),
])  # fmt: skip
def test_the_shipped_networks_hold_what_their_table_says(name, side, channels, classes):
    found = own.open_own(name)
    assert (found.sides, found.channels) == ((side, side), channels)
    assert (found.dimensions, found.classes, len(found.names)) == (64, classes, classes)
    assert (Path(own.__file__).parent / "weights" / f"{name}.safetensors").stat().st_size < 2e6


@pytest.mark.parametrize(("name", "opened"), [
    ("fashion", open_fashion_mini), ("shapes", shapes.open_kinds),
])  # fmt: skip
def test_the_network_classifies_test_images_as_its_docstring_says(name, opened):
    records = opened("test").read(np.arange(500))
    right = own.open_own(name).outputs(records["x"])[1].argmax(-1) == records["label"]
    table = own.__doc__.splitlines()
    (row,) = (line for line in table if line.startswith(f"| {name}"))
    stated = float(row.split("|")[-2])
    assert abs(right.mean() - stated) < 3 * np.sqrt(stated * (1 - stated) / 500)


def test_features_do_not_depend_on_the_batch():
    whole, parts = network().features(images("test", 0, 300)), []
    for start, stop in ((0, 1), (1, 270), (270, 300)):
        parts.append(network().features(images("test", start, stop)))
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-5)


def test_distances_are_in_the_order_of_the_damage():
    train = features(images("train", 0, 1000))
    test = images("test", 0, 600)
    blurred = np.stack([
        np.asarray(Image.fromarray(x[..., 0]).filter(ImageFilter.GaussianBlur(1)))[..., None]
        for x in test
    ])  # fmt: skip
    noise = np.random.default_rng(0).integers(0, 256, test.shape, dtype=np.uint8)
    data = Data(train=train, test=features(test))
    sets = [features(test), features(blurred), features(noise)]
    fd, kid, score = (
        [METRICS[name].measure(one, data)["value"] for one in sets] for name in ("fd", "kid", "is")
    )
    assert fd[0] < fd[1] < fd[2] and fd[2] > 20 * fd[0]
    assert kid[0] < kid[1] < kid[2]
    good, bad = (METRICS["pr"].measure(one, data) for one in (sets[0], sets[2]))
    # The precision of noise can be high: one ball around an odd training image may contain it all.
    assert good["precision"] > 0.6 and good["recall"] > 0.6 and bad["recall"] < 0.2
    good, bad = (METRICS["dc"].measure(one, data) for one in (sets[0], sets[2]))
    assert good["density"] > 0.6 and good["coverage"] > 0.5 and bad["coverage"] < 0.2
    assert score[0] > 2 * score[2]


def test_one_class_alone_has_precision_and_no_recall():
    labels = open_fashion_mini("test").read(np.arange(2000))["label"]
    trousers = images("test", 0, 2000)[labels == 1]
    data = Data(train=features(images("train", 0, 1000)), test=features(images("test", 0, 500)))
    found = METRICS["pr"].measure(features(trousers), data)
    assert found["precision"] > 0.6 and found["recall"] < 0.3


def test_copies_of_training_images_are_seen_and_test_images_are_none():
    train = images("train", 0, 1000)
    data = Data(train=features(train), test=features(images("test", 0, 500)))
    measure = METRICS["copies"].measure
    assert measure(features(train[:100]), data)["share"] == 1
    assert measure(features(images("test", 500, 1000)), data)["share"] < 0.04
    half = np.concatenate([train[:100], images("test", 500, 600)])
    assert measure(features(half), data)["share"] == pytest.approx(0.5, abs=0.03)


def test_scenes_that_show_other_objects_are_further_away():
    index = np.arange(600)
    train, test = (shapes.open_shapes(split).read(index)["x"] for split in ("train", "test"))
    of = scenes.generate("train", 600 + index)
    one_shape = scenes.render(replace(of, shape=np.zeros_like(of.shape)), 32)
    one_colour = scenes.render(replace(of, colour=np.zeros_like(of.colour)), 32)
    noise = np.random.default_rng(0).integers(0, 256, test.shape, dtype=np.uint8)
    judge = own.open_own("shapes")
    sets = []
    for x in (train, scenes.render(of, 32), one_shape, one_colour, noise):
        sets.append(FeatureSet(keep=True))
        sets[-1].add(*judge.outputs(x))
    data = Data(train=sets[0], test=sets[1])
    same, shape, colour, far = (METRICS["fd"].measure(one, data)["value"] for one in sets[1:])
    assert 5 * same < min(shape, colour) and 5 * same < far


def test_accuracy_counts_the_classes_that_were_asked_for():
    found, logits = FeatureSet(keep=True), np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 3]]
    for part in (slice(0, 2), slice(2, 5)):
        found.add(logits[part], 7 * logits[part], np.array([0, 1, 2, 0, 3])[part])
    measured = METRICS["accuracy"].measure(found, None)
    assert measured == {"value": 0.8, "standard_error": pytest.approx(np.sqrt(0.8 * 0.2 / 5))}


def test_the_floor_of_accuracy_is_of_the_runs_own_data():
    changes = {"data.name": "shapes_kinds", "eval.distances": "accuracy_shapes",
               "eval.samples": "40"}  # fmt: skip
    raw = config.override(config.load("configs/ddpm_fashion_cond.py:smoke"), changes)
    ruler = rulers.rulers_of(Experiment(check.check(raw)))["shapes"]
    one = Distance("accuracy", "shapes")
    assert ruler.ends(one)["floor"]["value"] > 0.9 > ruler.ends(one)["ceiling"]["value"]
    assert ruler.protocol(one, 40)["test"] == {"data": "shapes_kinds", "n": 40}
    assert ruler.protocol(Distance("is", "shapes"), 40)["test"]["data"] == "shapes"


def test_precision_and_density_share_their_neighbourhoods(monkeypatch):
    calls = []

    def counted(*sets):
        calls.append(sets)
        return neighbourhoods(*sets)

    monkeypatch.setattr(distances, "neighbourhoods", counted)
    train, one = features(images("train", 0, 100)), features(images("test", 0, 50))
    data = Data(train=train, test=one)
    both = [METRICS[name].measure(one, data) for name in ("pr", "dc", "pr")]
    assert len(calls) == 1 and both[0] == both[2]
    one.add(*network().outputs(images("test", 50, 100)))
    again = METRICS["pr"].measure(one, data)
    assert len(calls) == 2 and len(calls[1][1]) == 100 and again != both[0]


def test_without_features_only_moments_are_kept():
    kept, moments = (features(images("test", 0, 200), images("test", 200, 300), keep=keep)
                     for keep in (True, False))  # fmt: skip
    np.testing.assert_allclose(moments.moments.mean, kept.features.mean(0), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError):
        _ = moments.features


def test_names_of_distances():
    assert parsed("fd_fashion, kid_own:runs/a_b") == [
        Distance("fd", "fashion"), Distance("kid", "own:runs/a_b"),
    ]  # fmt: skip
    assert problems("fd_fashion,kid_digits,fd_own:runs/x") == []
    assert parsed("fid") == [Distance("fd", "inception")] and str(parsed("fid")[0]) == "fid"
    assert "'fid' is no metric" in problems("fid_fashion")[0]
    assert "did you mean 'fashion'" in problems("fd_fashon")[0]


def test_a_run_that_encodes_is_a_feature_network(tmp_path):
    assert main(["--config=pca_fashion:smoke", f"--workdir={tmp_path}/pca"]) == 0
    found = rulers.of_run(tmp_path / "pca")
    shown = images("test", 0, 50)
    run = genzoo.open(tmp_path / "pca")
    np.testing.assert_allclose(found.features(shown), run.encode(shown), rtol=1e-4, atol=1e-4)
    assert found.name == "own:pca" and found.sides == (28, 28) and len(found.hash) == 64


# --- a run ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def few_training_images():
    with pytest.MonkeyPatch.context() as patch:
        few = rulers.Standard(data="fashion_mini", reference=300)
        patch.setitem(rulers.STANDARDS, "fashion", few)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("distances") / "run"
    assert main(["--config=ddpm_fashion_cond:smoke", f"--workdir={workdir}",
                 "--config.train.picture_count=0"]) == 0  # fmt: skip
    return workdir


def evaluated(run: Path, *arguments: str) -> dict:
    common = ["--config.eval.losses=False", "--config.eval.samples=24",
              "--config.eval.distances=fd_fashion,kid_fashion", "--config.sample.batch_size=24"]
    assert main(["--mode=eval", f"--workdir={run}", *common, *arguments]) == 0
    return json.loads((run / "eval.json").read_text())["distances"]


def test_a_number_never_stands_alone(run):
    (measured,) = evaluated(run)
    assert list(measured) == ["fd_fashion@24", "kid_fashion@24"]
    one = measured["fd_fashion@24"]
    assert 0 < one["floor"]["value"] < one["value"] and one["ceiling"]["value"] > 0
    assert one["singular"]
    protocol = one["protocol"]
    assert protocol["n"] == 24 and protocol["split"] == "train" and protocol["resize"] == "none"
    assert (protocol["features"], protocol["hash"]) == ("fashion", network().hash)
    assert protocol["reference"]["n"] == 300 and protocol["reference"]["checksum"]
    drawn = protocol["sampling"]
    usual = {"method", "grid", "steps", "guidance_scale", "weights", "seed", "step", "clip",
             "evaluations", "seconds"}  # fmt: skip
    assert drawn.keys() == usual
    changed = {"guidance_low": 0.25, "shift": 2.0, "conditions": {"label": 1}}
    (other,) = evaluated(run, "--config.sample.guidance_low=0.25", "--config.sample.shift=2.0",
                         "--config.sample.conditions.label=1")  # fmt: skip
    drawn = other["fd_fashion@24"]["protocol"]["sampling"]
    assert drawn.keys() == usual | changed.keys()
    assert {key: drawn[key] for key in changed} == changed


def test_guidance_is_not_swept_where_it_has_no_effect(tmp_path, capsys):
    assert main(["--config=ddpm_fashion:smoke", f"--workdir={tmp_path}",
                 "--config.train.picture_count=0", "--config.train.steps=2"]) == 0  # fmt: skip
    swept = ["--config.eval.distances=fd_fashion", "--config.eval.guidance=(1.0,2.0)"]
    mode = ["--mode=eval", f"--workdir={tmp_path}", "--config.eval.losses=False"]
    assert main([*mode, *swept]) == 2
    assert "eval.guidance needs a condition that training" in capsys.readouterr().err


def test_too_few_samples_are_refused_before_any_is_drawn(run, capsys):
    for name, least in (("pr", 6), ("dc", 6), ("is", 10)):
        named = f"--config.eval.distances={name}_fashion"
        mode = ["--mode=eval", f"--workdir={run}", "--config.eval.losses=False", named]
        assert main([*mode, f"--config.eval.samples={least - 1}"]) == 2
        assert f"{name}_fashion takes at least {least}." in capsys.readouterr().err
        assert main([*mode, f"--config.eval.samples={least}"]) == 0


def test_a_sweep_gives_the_numbers_of_its_settings(run):
    swept = evaluated(run, "--config.eval.steps=(2,4)", "--config.eval.guidance=(1.0,3.0)")
    assert len(swept) == 4
    (alone,) = evaluated(run, "--config.sample.steps=4", "--config.sample.guidance_scale=3.0")
    for name in alone:
        last = swept[-1][name]
        assert last["value"] == pytest.approx(alone[name]["value"], rel=1e-3)
        drawn = last["protocol"]["sampling"]
        assert (drawn["steps"], drawn["guidance_scale"]) == (4, 3.0)
        assert drawn["evaluations"] == alone[name]["protocol"]["sampling"]["evaluations"] == 4
    values = [one["fd_fashion@24"]["value"] for one in swept]
    assert len(set(values)) == 4


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("guide") / "run"
    noisy = ["--config.family.noisy=True", "--config.family.process=ddpm_cosine"]
    assert main(["--config=classifier_fashion:smoke", f"--workdir={workdir}", *noisy,
                 "--config.eval.weights=raw"]) == 0  # fmt: skip
    return workdir


def steered(guide: Path) -> list[str]:
    return ["--config.sample.guidance_scale=0.0", f"--config.sample.classifier={guide}"]


def test_classes_of_samples_are_judged_by_the_guide_and_by_another(run, guide, capsys):
    both = f"--config.eval.distances=accuracy_fashion,accuracy_own:{guide},fd_fashion"
    swept = evaluated(run, *steered(guide), both, "--config.eval.classifier_scale=(0.0,50.0)")
    by_fashion, by_guide, distance = swept[1].values()
    assert len(swept) == 2 and distance["value"] != swept[0]["fd_fashion@24"]["value"]
    drawn = distance["protocol"]["sampling"]
    assert drawn["classifier_scale"] == 50 and "reference" not in by_fashion["protocol"]
    assert by_guide["protocol"]["hash"] == drawn["classifier_hash"]

    def features_of(x: np.ndarray, labels: np.ndarray) -> FeatureSet:
        found = FeatureSet(keep=True)
        found.add(*network().outputs(x), labels)
        return found

    def share(one: FeatureSet) -> float:
        return float((one.logits.argmax(-1) == one.labels).mean())

    assert main(["--mode=sample", f"--workdir={run}", *steered(guide), "--config.sample.count=24",
                 "--config.sample.classifier_scale=50.0", "--config.sample.batch_size=24",
                 "--config.sample.npz=True"]) == 0  # fmt: skip
    samples = np.load(run / "samples" / "latest" / "samples.npz")
    alone = features_of(samples["x"], samples["label"])
    assert by_fashion["value"] == pytest.approx(share(alone), abs=0.05)
    train = Data(train=features(images("train", 0, 300)), test=alone)
    close = pytest.approx(METRICS["fd"].measure(alone, train)["value"], rel=1e-3)
    assert distance["value"] == close
    records = open_fashion_mini("test").read(np.arange(24))
    true = features_of(records["x"], records["label"])
    assert by_fashion["floor"]["value"] == share(true) > 0.7

    def refused(words: str, *changes: str) -> None:
        mode = ["--mode=eval", f"--workdir={run}", "--config.eval.losses=False"]
        capsys.readouterr()
        assert main([*mode, *changes]) == 2
        assert words in capsys.readouterr().err

    digits = "--config.eval.distances=accuracy_digits"
    refused("the classes of digits are not those of fashion_mini", digits)
    plain = "--config.eval.distances=accuracy_fashion"
    refused("needs a class of every sample", plain, "--config.sample.conditions.label=none",
            "--config.eval.samples=24")  # fmt: skip
    swept = "--config.eval.classifier_scale=(1.0,2.0)"
    refused("no effect without sample.classifier", plain, swept)
    refused("one of them at a time", plain, swept, "--config.eval.guidance=(1.0,)")
    distances = "--config.eval.distances=fd_fashion"
    scales = "--config.eval.guidance=(1.0,2.0)"
    refused("both set", distances, scales, "--config.sample.guidance=(('label',2.0),)")


def test_in_training_samples_are_steered_and_a_guide_is_missed_at_once(guide, tmp_path, capsys):
    steps = ["--config=ddpm_fashion_cond:smoke", *steered(guide),
             "--config.sample.classifier_scale=50.0", "--config.train.picture_count=0",
             "--config.train.evaluate_every=20"]  # fmt: skip
    counts = ["--config.eval.samples=24", "--config.sample.batch_size=24",
              "--config.eval.distances=accuracy_fashion"]  # fmt: skip
    trained = tmp_path / "trained"
    assert main([*steps, f"--workdir={trained}", *counts]) == 0
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert main(["--mode=eval", f"--workdir={trained}", "--config.eval.losses=False"]) == 0
    (measured,) = json.loads((trained / "eval.json").read_text())["distances"]
    name = "accuracy_fashion@24"
    assert lines[-1][name] == pytest.approx(measured[name]["value"], abs=0.05)
    assert lines[-1][name] > measured[name]["ceiling"]["value"]
    capsys.readouterr()
    missing = f"--config.sample.classifier={tmp_path}/none"
    assert main([*steps, f"--workdir={tmp_path}/other", *counts, missing]) == 2
    assert "sample.classifier = " in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_distances_in_training_are_those_of_the_evaluation(tmp_path):
    common = ["--config.eval.distances=fd_fashion,pr_fashion", "--config.eval.samples=24",
              "--config.sample.batch_size=24"]  # fmt: skip
    often = ["--config.train.picture_count=0", "--config.train.evaluate_every=10"]
    assert main(["--config=ddpm_fashion:smoke", f"--workdir={tmp_path}", *common, *often]) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "fd_fashion@24" in line] == [10, 20]
    evaluation = ["--mode=eval", f"--workdir={tmp_path}", "--config.eval.losses=False"]
    assert main([*evaluation, *common]) == 0
    (measured,) = json.loads((tmp_path / "eval.json").read_text())["distances"]
    last = lines[-1]
    assert last["fd_fashion@24"] == pytest.approx(measured["fd_fashion@24"]["value"], rel=1e-3)
    assert last["pr_fashion@24_recall"] == measured["pr_fashion@24"]["recall"]
    assert lines[1]["fd_fashion@24"] != last["fd_fashion@24"]


def test_pictures_are_named_only_if_they_are_drawn(run, capsys):
    place = run / "distances.png", run / "nearest.png"
    for path in place:
        path.unlink(missing_ok=True)
    capsys.readouterr()
    evaluated(run, "--config.eval.distances=pr_fashion", "--config.eval.steps=(2,3)")
    assert not any(path.exists() for path in place)
    assert "distances.png" not in capsys.readouterr().out
    evaluated(run, "--config.eval.distances=copies_fashion,copies_digits,fd_fashion",
              "--config.eval.steps=(2,3)")  # fmt: skip
    assert all(path.exists() for path in place)
    assert Image.open(place[1]).height > 4 * 80  # two rows for each network


def test_a_sweep_draws_a_line_for_every_scale(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(sweeps, "save", lambda figure, path: figures.append(figure))
    points = [sweeps.Point(n, scale, n * scale) for n in (4, 8) for scale in range(1, 13)]
    sweeps.save_sweep(tmp_path / "any.png", "fd", points, 0.5)
    (axes,) = figures[0].axes
    drawn = [line.lines[0].get_ydata().tolist() for line in axes.containers]
    assert drawn == [[4.0 * scale, 8.0 * scale] for scale in range(1, 13)]
    assert len({text.get_text() for text in axes.get_legend().get_texts()}) == 13


def test_steps_of_a_sweep_are_checked_as_those_of_the_run_are(run, capsys):
    mode = ["--mode=eval", f"--workdir={run}", "--config.eval.losses=False",
            "--config.eval.distances=fd_fashion"]  # fmt: skip
    capsys.readouterr()
    assert main([*mode, "--config.sample.method=ddim", "--config.sample.grid=uniform",
                 "--config.eval.steps=(1,2)"]) == 2  # fmt: skip
    assert "eval.steps = 1 with sample.grid = 'uniform'" in capsys.readouterr().err
    ended = ["--config.sample.last_sigma=0.5", "--config.sample.grid=trailing",
             "--config.sample.method=ddim"]  # fmt: skip
    swept = evaluated(run, *ended, "--config.eval.steps=(4,8)")
    (alone,) = evaluated(run, *ended, "--config.sample.steps=4")
    one, other = (each["fd_fashion@24"] for each in (swept[0], alone))
    assert one["value"] == pytest.approx(other["value"], rel=1e-3)
    counts = [each["protocol"]["sampling"]["evaluations"] for each in (one, other)]
    assert counts[0] == counts[1]


def test_stored_statistics_take_the_place_of_the_data(run, tmp_path, capsys):
    (alone,) = evaluated(run, "--config.eval.distances=fd_fashion")
    alone = alone["fd_fashion@24"]
    common = ["--config.eval.distances=fd_fashion", "--config.eval.samples=24"]
    made = ["--mode=stats", "--config=ddpm_fashion_cond:smoke", f"--workdir={tmp_path}", *common]
    capsys.readouterr()
    assert main(made) == 0
    printed = json.loads(capsys.readouterr().out)["distances"]["fd_fashion@24"]
    assert printed["floor"] == alone["floor"] and printed["ceiling"] == alone["ceiling"]
    file = tmp_path / "statistics_fashion.npz"
    given = f"--config.eval.reference={file}"
    (with_file,) = evaluated(run, "--config.eval.distances=fd_fashion", given)
    with_file = with_file["fd_fashion@24"]
    assert with_file["value"] == pytest.approx(alone["value"], rel=1e-9)
    assert len(with_file["protocol"]["reference"]["hash"]) == 64
    assert with_file["protocol"]["reference"]["data"] == "fashion_mini"

    def refused(words: str, *changes: str) -> None:
        mode = ["--mode=eval", f"--workdir={run}", "--config.eval.losses=False"]
        assert main([*mode, *common, given, *changes]) == 2
        assert words in capsys.readouterr().err

    refused("suffice for fd alone", "--config.eval.distances=kid_fashion")
    with np.load(file) as stored:
        arrays = dict(stored)
    wrong = arrays["about"].tobytes().replace(b'"fashion"', b'"digits"')
    np.savez(file, **{**arrays, "about": np.frombuffer(wrong, np.uint8)})
    refused("was made with features = 'digits', not 'fashion'")
    np.savez(file, **{**arrays, "mean": arrays["mean"][:3]})
    refused("do not fit together")
    np.savez(file, **{name: arrays[name] for name in ("mean", "count")})
    refused("has no about")
    file.write_bytes(file.read_bytes()[:100])
    refused("cannot be read as named arrays")
    file.unlink()
    refused("there is no such file")


def test_runs_are_compared_only_under_one_protocol(run, tmp_path):
    evaluated(run)
    report = json.loads((run / "eval.json").read_text())
    other = tmp_path / "other"
    other.mkdir()

    def write(content) -> None:
        (other / "eval.json").write_text(json.dumps(content))

    write(report)
    table = compare([run, other])["distances"]
    assert list(table) == ["fd_fashion@24", "kid_fashion@24"]
    report["distances"][0]["fd_fashion@24"]["protocol"]["sampling"]["steps"] = 99
    write(report)
    compare([run, other])  # how the samples were drawn may differ
    report["distances"][0]["fd_fashion@24"]["protocol"]["hash"] = "0"
    write(report)
    with pytest.raises(UserError, match=r"fd_fashion@24 was measured with hash = "):
        compare([run, other])
    for wrong in ({}, {"distances": []}, {"distances": [{"fd_fashion@24": {"value": 1.0}}]}):
        write(wrong)
        with pytest.raises(UserError, match="mode=eval"):
            compare([run, other])
    with pytest.raises(UserError, match="two or more"):
        compare([run])


@pytest.mark.parametrize(("config", "arguments", "words"), [
    ("ddpm_fashion:smoke", ("distances=fd_fashon",), "did you mean 'fashion'"),
    ("ddpm_fashion:smoke", ("samples=50",), "without eval.distances"),
    ("ddpm_fashion:smoke", ("losses=False",), "leaves nothing to evaluate"),
    ("ddpm_fashion:smoke", ("seed=0", "train.evaluate_every=10"), "measures eval.distances"),
    ("ddpm_fashion:smoke", ("distances=fd_fashion", "train.evaluate_every=7"), "a multiple of"),
    ("ddpm_cifar:smoke", ("distances=fd_fashion",), "fashion takes grey images"),
    ("ddpm_fashion:smoke", ("distances=fid",), "genzoo does not ship them"),
    ("ddpm_fashion:smoke", ("distances=fd_own:nowhere",), "holds no run"),
    ("classifier_fashion:smoke", ("distances=fd_fashion",), "eval.distances needs a family"),
    ("ddpm_fashion:smoke", ("distances=accuracy_fashion",), "needs class-conditional samples"),
    ("ddpm_fashion:smoke", ("classifier_scale=(1.0,)",), "without eval.distances"),
    ("ddpm_fashion:smoke", ("reconstructions=psnrr",), "did you mean 'psnr'"),
    ("classifier_fashion:smoke", ("reconstructions=psnr",), "eval.reconstructions needs a family"),
    ("vae_fashion:smoke", ("distances=fd_fashion", "steps=(2,3)"), "has no solver"),
])  # fmt: skip
def test_what_cannot_be_measured_is_said(config, arguments, words, tmp_path, capsys):
    given = [
        f"--config.{one}" if one.startswith("train.") else f"--config.eval.{one}"
        for one in arguments
    ]
    code = main(["--mode=eval", f"--config={config}", f"--workdir={tmp_path}", *given])
    assert code == 2 and words in capsys.readouterr().err
