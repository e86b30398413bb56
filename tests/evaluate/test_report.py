"""The report on a run: what it holds, what damage costs, and that nothing in it is markup."""

import base64
import hashlib
import io
import json
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path

import made_up_run
import numpy as np
import pytest
from PIL import Image

from genzoo import build
from genzoo.core.errors import UserError
from genzoo.evaluate.report import charts, images, words
from genzoo.evaluate.report.charts import MINUS, NOTHING, TIMES
from genzoo.evaluate.report.folder import read
from genzoo.evaluate.report.run_page import distinct
from genzoo.evaluate.report.scores import headlines
from genzoo.main import main
from genzoo.modes import report

VOID = {"meta", "link", "img", "input", "rect", "circle", "path", "line", "br"}


class Reader(HTMLParser):
    """The elements and the visible text of a page; fails where they are not nested."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.elements, self.texts, self.sections = [], [], [], {}
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if not {"style", "script"} & set(tags):
            self.texts.append(data)
            for tag, attributes in self.open:
                if tag == "section":
                    name = attributes["id"]
                    self.sections[name] = self.sections.get(name, "") + data

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(folder) -> Reader:
    return Reader(report.write(folder).read_text())


@pytest.fixture
def run(tmp_path):
    return made_up_run.make(tmp_path / "run")


def test_a_page_holds_all_of_a_run(run):
    page = page_of(run)
    assert [*page.sections] == [
        "samples", "expect", "curves", "scores", "pictures", "cost", "setup",
    ]  # fmt: skip
    for said in (
        "ddpm on fashion_mini", f"400 steps of 32 examples in 1 min 40 s on 2{TIMES}NVIDIA H100",
        "from the config ddpm_fashion:laptop", "What differs from ddpm_fashion:laptop",
        "train.steps", "4.03 ± 0.190", "1.23 M",
    ):  # fmt: skip
        assert said in page.text, said
    cost = " ".join(page.sections["cost"].split())
    # 5 steps/s of 1e13 operations on devices that do 2e15, and 80 of 100 seconds.
    for said in ("10 TFLOP", "4 PFLOP", "50 TFLOP/s", "2.5 %", "1 min 20 s, 80.0 %"):
        assert said in cost, said
    shown = page.all("img")
    assert len(shown) == 6 + 3  # grids, and pictures but no single samples
    assert all(image["alt"] and image["src"].startswith("data:image/") for image in shown)
    assert build.FAMILIES["ddpm"].expect[:60] in page.text


def test_distances_stand_beside_their_ends_and_protocol(tmp_path):
    def at(steps, value):
        drawn = {"method": "ddim", "grid": "trailing", "steps": steps, "evaluations": steps,
                 "guidance_scale": 2.0, "weights": "ema", "step": 400, "seed": 0}  # fmt: skip
        protocol = {"n": 2000, "features": "fashion", "version": "1", "hash": "0f2acb8234",
                    "resize": "none", "reference": {"data": "fashion_mini", "n": 10000},
                    "sampling": drawn}  # fmt: skip
        ends = {"floor": {"value": 1.13}, "ceiling": {"value": 853.0}}
        pr = {"precision": 0.766, "recall": 0.884, "floor": {"precision": 0.9, "recall": 0.91},
              "ceiling": {"precision": 0.1, "recall": 0.11}, "protocol": protocol}  # fmt: skip
        return {"fd_fashion": {"value": value, **ends, "protocol": protocol}, "pr_fashion": pr}

    scores = {"distances": [at(5, 58.2), at(50, 43.3)]}
    folder = made_up_run.make(tmp_path / "one", scores=scores)
    made_up_run.picture(folder / "distances.png")
    page = page_of(folder)
    shown = " ".join(page.sections["scores"].split())
    for said in ("fd_fashion58.21.13853", "pr_fashion: recall0.8840.9100.110",
                 "2,000 samples (ema of step 400, seed 0)", "version 1, hash 0f2acb82",
                 "10,000 images of fashion_mini", "ddim on trailing, 5 evaluations, guidance 2",
                 "5050243.3"):  # fmt: skip
        assert said in shown, (said, shown)
    assert "Distances over settings" in page.text
    other = made_up_run.make(tmp_path / "two", scores={"distances": [at(5, 12.0)]})
    report.report(tmp_path, [folder, other])
    both = Reader((tmp_path / "comparison.html").read_text()).text
    assert "fd_fashion58.212" in both and "pr_fashion: recall0.8840.884" in both
    assert "that differ" not in both
    fewer = at(5, 12.0)
    fewer["fd_fashion"]["standard_error"] = 1.5
    fewer["fd_fashion"]["protocol"]["reference"]["n"] = 500
    del fewer["pr_fashion"]
    other = made_up_run.make(tmp_path / "three", scores={"distances": [fewer]})
    report.report(tmp_path, [folder, other])
    both = Reader((tmp_path / "comparison.html").read_text()).text
    assert "fd_fashion58.212 ± 1.5" in both and "fd_fashion: reference n10,000500" in both
    assert "pr_fashion: reference n" not in both  # one run alone has it


def test_measures_of_reconstructions_stand_beside_their_protocol(tmp_path):
    common = {"n": 40, "data": "fashion_mini", "split": "test", "weights": "ema", "step": 400,
              "seed": 0, "inversion": {"grid": "karras", "shift": 4.0}}  # fmt: skip
    rfd = {"value": 80.3, "floor": {"value": 2.3, "n": 40}, "ceiling": {"value": 831.0, "n": 40},
           "protocol": {**common, "features": "fashion", "hash": "0f2acb8234"}}  # fmt: skip
    psnr = {"value": 16.26, "standard_error": 0.05, "protocol": common}
    scores = {"reconstructions": {"psnr@40": psnr, "rfd_fashion@40": rfd}}
    page = page_of(made_up_run.make(tmp_path / "run", scores=scores))
    shown = " ".join(page.sections["scores"].split())
    for said in (f"psnr@4016.3 ± 0.0500{NOTHING}{NOTHING}", "rfd_fashion@4080.32.30831",
                 "the test split of fashion_mini",
                 "40 reconstructions (ema of step 400, seed 0)",
                 "by DDIM inversion (grid karras, shift 4)"):  # fmt: skip
        assert said in shown, (said, shown)


def test_the_accuracy_of_a_classifier_is_its_headline(tmp_path):
    run = made_up_run.make(tmp_path / "run", scores={"loss": {"loss": 0.43, "accuracy": 0.893}})
    first, *_ = headlines(read(run))
    assert (first.term, first.value) == ("Accuracy", "0.893")


def test_every_family_says_what_you_should_see():
    assert [name for name, row in build.FAMILIES.items() if len(row.expect) < 100] == []


def test_a_page_is_written_in_little_time(run):
    report.write(run)  # imports
    start = time.process_time()
    report.write(run)
    assert time.process_time() - start < 2


# --- damage ---------------------------------------------------------------------------------------


DAMAGE = {
    "config.json": (b"{", "config.json cannot be read"),
    "eval.json": (b"[1, 2]", "eval.json cannot be read: it does not hold a section"),
    "run.json": (b"\xff\xfe", "run.json cannot be read"),
    "metrics.jsonl": (b'{"step": 1, "loss": 2}\nno\n{"step": "x"}\n', "lines 2, 3 cannot be read"),
    "samples/training/step_00000126_ema.png": (b"\x89PNG", "step_00000126_ema.png cannot be shown"),
    "samples/reconstruction.png": (b"", "reconstruction.png cannot be shown"),
    "samples/step_00000400/settings.json": (b"{}}", "settings.json cannot be read"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_costs_its_part_and_is_named(run, name):
    content, said = DAMAGE[name]
    (run / name).write_bytes(content)
    page = page_of(run)
    assert said in page.sections["problems"]
    rest = {"samples", "curves", "scores", "pictures", "cost", "setup"} - {
        "eval.json": {"scores"}, "run.json": set()
    }.get(name, set())  # fmt: skip
    assert rest <= page.sections.keys()


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "eval.json", "run.json"])
def test_a_missing_file_costs_its_part(run, name):
    (run / name).unlink()
    page = page_of(run)
    named = name in ("config.json", "metrics.jsonl")
    assert (f"{name} is missing" in page.sections.get("problems", "")) == named
    assert ("curves" in page.sections) == (name != "metrics.jsonl")


def test_a_line_cut_off_by_a_kill_is_not_a_problem(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 410, "lo')
    assert "problems" not in page_of(run).sections


def test_no_value_of_any_kind_stops_a_page(run):
    """Every file with any value in it replaced by something else."""
    random = np.random.default_rng(0)
    others = [
        None,
        True,
        "text",
        -1,
        10**400,
        [],
        [1, "a"],
        {},
        {"value": {}},
        [{"a": 1}, 2],
        1e308,
    ]

    def changed(value):
        if random.random() < 0.15:
            return others[random.integers(len(others))]
        if isinstance(value, dict):
            return {k: changed(v) for k, v in value.items()}
        return [changed(v) for v in value] if isinstance(value, list) else value

    files = ("config.json", "eval.json", "run.json", "samples/step_00000400/settings.json")
    whole = {name: json.loads((run / name).read_text()) for name in files}
    for _ in range(30):
        for name, content in whole.items():
            (run / name).write_text(json.dumps(changed(content)))
        problems = page_of(run).sections.get("problems", "")
        assert "Error:" not in problems, problems


# --- nothing is markup ----------------------------------------------------------------------------


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!--"


def test_nothing_of_a_run_is_markup(tmp_path):
    usual = page_of(made_up_run.make(tmp_path / "usual"))
    config = json.loads(json.dumps(made_up_run.CONFIG))
    config["data"]["name"] = config["family"]["name"] = HOSTILE
    config["sample"][HOSTILE] = [HOSTILE]
    start = {**made_up_run.START, "command": HOSTILE, "config": HOSTILE, "device": HOSTILE,
             "changed": {HOSTILE: [HOSTILE, HOSTILE]}, "versions": {HOSTILE: HOSTILE}}  # fmt: skip
    scores = {HOSTILE: 1.0, "probe": {HOSTILE: HOSTILE}, "protocol": {HOSTILE: HOSTILE},
              "sweep": [{HOSTILE: HOSTILE}]}  # fmt: skip
    run = made_up_run.make(tmp_path / "run", config=config, start=start, scores=scores)
    run = shutil.move(run, tmp_path / "<b onclick=alert(3)>'\"&")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 500, HOSTILE: 1.0, f"{HOSTILE}_q1": 1.0}) + "\n")
    made_up_run.picture(run / "samples" / "<i>&'\".png")
    page = page_of(run)
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in usual.elements}
    assert len(page.all("script")) == 1
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    names = {name for _, attributes in page.elements for name in attributes}
    assert not [name for name in names if name.startswith("on")] and "style" not in names
    assert page.text.count("alert(1)") > 8  # it is shown
    compared = report.report(None, [run, tmp_path / "usual"])["report"]
    both = Reader(Path(compared).read_text())
    assert len(both.all("script")) == 1 and len(both.all("h1")) == 1


def test_the_policy_allows_the_one_script_and_the_one_style_and_nothing_else(run):
    html = report.write(run).read_text()
    (policy,) = (m["content"] for m in Reader(html).all("meta") if "http-equiv" in m)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


# --- pictures -------------------------------------------------------------------------------------


def decoded(picture: images.Picture) -> np.ndarray:
    content = base64.b64decode(picture.source.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)))


def test_an_enlarged_picture_is_stored_at_its_own_size_and_exactly(tmp_path):
    made_up_run.picture(tmp_path / "grid.png", 20, 30, factor=6)
    picture = images.encoded(tmp_path / "grid.png", 100_000)
    assert (picture.width, picture.height, picture.blocks) == (180, 120, True)
    assert not picture.altered
    expected = np.asarray(Image.open(tmp_path / "grid.png"))[::6, ::6]
    np.testing.assert_array_equal(decoded(picture), expected)


def test_a_page_stays_below_3_mb_and_says_what_that_cost(run):
    for number in range(16):
        made_up_run.picture(run / "samples" / f"extra{number}.png", 700, 900, seed=number)
    start = time.process_time()
    path = report.write(run)
    assert time.process_time() - start < 4  # pictures of noise, which is the hardest to encode
    assert path.stat().st_size < 3_000_000
    page = Reader(path.read_text())
    assert "so that this page stays under 3 MB" in page.text
    assert len(page.all("img")) == 9 + 16


@pytest.mark.parametrize("side, said", [(9_000, "9000 x 9000 pixels"), (30_000, "too many pixels")])
def test_a_picture_of_too_many_pixels_is_not_opened(run, side, said):
    Image.new("1", (side, side)).save(run / "samples" / "large.png")
    assert f"large.png cannot be shown: it has {said}" in page_of(run).text


# --- charts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("low, high", [(0, 1), (-3, 7), (0.13, 0.17), (1e-9, 2e-9), (950, 1e6)])
@pytest.mark.parametrize("log", [False, True])
def test_ticks_are_round_and_inside(low, high, log):
    axis = charts.axis(np.linspace(low, high, 50), log=log)
    places = axis.place(np.array(axis.ticks))
    assert 2 <= len(axis.ticks) <= 7 and (places > -1e-6).all() and (places < 1 + 1e-6).all()
    assert len(set(axis.names)) == len(axis.names)
    for tick in axis.ticks:
        digits = f"{tick:.6e}".partition("e")[0].rstrip("0").replace(".", "").lstrip("-")
        assert len(digits) <= 3
    assert (axis.place(np.array([low, high])) >= 0).all()


def test_a_line_goes_through_its_points():
    x, y = np.array([0.0, 5.0, 10.0, 15.0]), np.array([2.0, np.nan, 4.0, 3.0])
    chart = charts.Chart(title="a", lines=[charts.Line("a", x, y)])
    (path,) = re.findall(r' d="([^"]*)"', chart.svg)
    assert [part[0] for part in re.findall(r"[ML][^ML]*", path)] == ["M", "M", "L"]  # a gap
    points = np.array([part.split() for part in re.split("[ML]", path)[1:]], float)
    up = charts.axis(y)
    np.testing.assert_allclose(points[:, 0], [0, 1000 * 2 / 3, 1000], atol=0.1)
    np.testing.assert_allclose(points[:, 1], 1000 * (up.high - y[[0, 2, 3]]) / (up.high - up.low),
                               atol=0.1)  # fmt: skip


def test_smoothing_is_a_centred_mean():
    y = np.random.default_rng(0).normal(size=200)
    y[50:60] = np.nan
    half = 8  # of a window of 0.08 * 200
    smooth = charts.smoothed(y)
    np.testing.assert_allclose(smooth[100], y[100 - half : 100 + half + 1].mean())
    np.testing.assert_allclose(smooth[55], np.nanmean(y[55 - half : 55 + half + 1]))
    np.testing.assert_allclose(smooth[[0, -1]], y[[0, -1]])
    straight = np.arange(200.0)
    np.testing.assert_allclose(charts.smoothed(straight), straight)


def test_thinning_keeps_the_extremes():
    y = np.random.default_rng(0).normal(size=20_000)
    x = np.arange(20_000)
    y[7_777], y[13_131] = 99, -99
    few, values = charts.thinned(x, y)
    assert len(few) <= 502 and {99.0, -99.0} <= set(values)
    np.testing.assert_array_equal(y[few], values)


@pytest.mark.parametrize(
    "value, said",
    [(0.0123, "0.0123"), (1800, "1,800"), (2.5e-6, f"2.50{TIMES}10⁻⁶"), (0, "0"),
     (float("nan"), NOTHING), (-3.14159, f"{MINUS}3.14"), (12345.6, "12,346")],
)  # fmt: skip
def test_numbers_for_reading(value, said):
    assert charts.brief(value) == said


@pytest.mark.parametrize(
    "seconds, said",
    [
        (0.5, "0.5 s"),
        (59.4, "59 s"),
        (95, "1 min 35 s"),
        (3725, "1 h 2 min"),
        (864_000, "10.0 days"),
    ],
)
def test_durations_for_reading(seconds, said):
    assert words.duration(seconds) == said


# --- several runs, and the mode -------------------------------------------------------------------


def test_runs_side_by_side_say_which_protocols_differ(tmp_path):
    one = made_up_run.make(tmp_path / "a" / "run")
    scores = json.loads(json.dumps(made_up_run.SCORES))
    scores["protocol"]["n"] = 100
    config = {**made_up_run.CONFIG, "sample": {"steps": 50, "method": "ddim"}}
    two = made_up_run.make(tmp_path / "b" / "run", scores=scores, config=config)
    made = report.report(tmp_path, [one, two])
    page = Reader((tmp_path / "comparison.html").read_text())
    assert made["files"] == [str(tmp_path / "comparison.html")]
    assert "Protocols of “Scores” that differ" in page.text
    assert "Numbers made by different protocols do not compare." in page.text
    assert "run (2)" in page.text and "sample.steps" in page.sections["setup"]
    assert "sample.method" not in page.sections["setup"]
    assert len(page.all("img")) == 2 * 3  # the grids of the average alone
    names = [r["name"] for r in page.all("input") if r["type"] == "radio"]
    assert names == []


def test_names_are_distinct():
    assert distinct(["a", "a", "b", "a"]) == ["a", "a (2)", "b", "a (3)"]


def test_the_mode(run, capsys, tmp_path):
    assert main([f"--workdir={run}", "--mode=report"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(run / "report.html")
    other = made_up_run.make(tmp_path / "other")
    assert main(["--mode=report", f"--workdirs={run},{other}"]) == 0
    assert (run / "comparison.html").is_file()
    for arguments, said in (
        (["--mode=report"], "--mode=report needs --workdir=DIR"),
        (["--mode=report", f"--workdir={tmp_path / 'none'}"], "holds no run"),
        (["--mode=report", f"--workdirs={run}"], "--workdirs needs 2 to 8 runs"),
        (["--mode=report", f"--workdir={run}", "--config.seed=1"], "takes no --config.seed=1"),
        (["--mode=eval", f"--workdirs={run},{other}"], "takes one --workdir"),
    ):
        assert main(arguments) == 2
        assert said in capsys.readouterr().err


def test_a_page_never_replaces_another_file(run):
    (run / "report.html").write_text("<p>mine</p>")
    with pytest.raises(UserError, match=r"report\.html is in the way of the report: rename it"):
        report.write(run)
    assert report.write_beside(run) == []
    assert (run / "report.html").read_text() == "<p>mine</p>"


def test_single_samples_and_links_are_not_shown_twice(run):
    (run / "samples" / "latest").symlink_to("step_00000400", target_is_directory=True)
    assert len(page_of(run).all("img")) == 9
    assert [each.name for each in read(run).drawn] == ["reconstruction", "grid", "guidance"]
