"""The gallery: its cards say what the runs hold, its links work, and it overwrites nothing else."""

import json
import os
import re
from html.parser import HTMLParser

import made_up_run
import pytest

from genzoo.build import FAMILIES
from genzoo.core.errors import UserError
from genzoo.evaluate.report.images import encoded
from genzoo.main import main
from genzoo.modes import gallery as module
from genzoo.modes.gallery import gallery

VAE = {**made_up_run.CONFIG, "family": {"name": "vae"}}
DISTANCES = {
    "distances": [{
        "fd_fashion": {
            "value": 29.9, "floor": {"value": 1.13},
            "protocol": {
                "n": 2000, "reference": {"data": "fashion_mini", "n": 10000},
                "sampling": {"method": "ddim", "evaluations": 20.0},
            },
        }
    }]
}  # fmt: skip


class Cards(HTMLParser):
    """The cards of an index: room -> the texts of its cards; and all links and addresses."""

    def __init__(self, page: str):
        super().__init__()
        self.rooms, self.links, self.sources, self.headings = {}, [], [], []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self._inside = tag
        if tag == "section":
            self.rooms[attrs["id"]] = []
        if tag == "li" and attrs.get("class") == "card":
            list(self.rooms.values())[-1].append("")
        self.links += [attrs["href"]] if tag == "a" else []
        self.sources += [attrs["src"]] if "src" in attrs else []

    def handle_data(self, data):
        if self.rooms and (cards := list(self.rooms.values())[-1]) and self._inside != "script":
            cards[-1] = f"{cards[-1]} {' '.join(data.split())}".strip()


@pytest.fixture
def runs(tmp_path):
    return [
        made_up_run.make(tmp_path / "runs" / "a coder", config=VAE, scores={}),
        made_up_run.make(tmp_path / "runs" / "one"),
        made_up_run.make(tmp_path / "runs" / "two", scores=DISTANCES),
    ]


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip


def test_cards_say_what_the_runs_hold(runs, tmp_path):
    made = gallery(runs, tmp_path / "shown")
    assert made["gallery"] == str(tmp_path / "shown" / "index.html") and made["runs"] == 3
    cards = Cards((tmp_path / "shown" / "index.html").read_text())
    assert list(cards.rooms) == ["diffusion-and-flows", "autoencoders"]
    one, two = cards.rooms["diffusion-and-flows"]
    assert "one" in one and "ddpm on fashion_mini" in one
    assert "Bits per dimension 4.03" in one.replace("  ", " ") and "500 examples, test split" in one
    assert "1 min 40 s" in one and "NVIDIA H100" in one and "1.23 M" in one
    assert "FD-fashion" in two and "29.9" in two
    said = "2,000 samples against 10,000 images of fashion_mini; ddim, 20 evaluations; test images"
    assert said in two
    (coder,) = cards.rooms["autoencoders"]
    assert "Not evaluated." in coder and "vae on fashion_mini" in coder
    assert [x for x in cards.links if "#" not in x] == [
        "runs/one.html", "runs/two.html", "runs/a-coder.html"]  # fmt: skip
    assert all(source.startswith("data:") for source in cards.sources) and len(cards.sources) == 3
    # The newest grid, from the average rather than from the params themselves.
    grid = runs[1] / "samples" / "training" / "step_00000400_ema.png"
    assert encoded(grid, 10**6, natural=True).source in cards.sources


def test_every_link_has_its_page_and_leads_back(runs, tmp_path):
    place = tmp_path / "shown"
    gallery(runs, place)
    for page in place.rglob("*.html"):
        text = page.read_text()
        for link in Cards(text).links:
            target = (page.parent / link.partition("#")[0]).resolve() if link[0] != "#" else page
            assert target.is_file(), link
            anchor = link.partition("#")[2]
            assert not anchor or f'id="{anchor}"' in target.read_text(), link
        assert len(text) < 3_000_000
        assert page.name == "index.html" or "../index.html" in Cards(text).links


def test_the_same_runs_make_the_same_bytes_and_gone_runs_go(runs, tmp_path):
    place = tmp_path / "shown"
    gallery(runs, place)
    before = content(place)
    stamp = os.stat(place / "index.html").st_mtime_ns
    gallery([*runs, runs[0]], place)
    assert content(place) == before and os.stat(place / "index.html").st_mtime_ns == stamp
    (place / "runs" / "mine.html").write_text("<p>by hand</p>")
    gallery(runs[:2], place)
    assert sorted(p.name for p in (place / "runs").iterdir()) == [
        "a-coder.html", "mine.html", "one.html"]  # fmt: skip
    assert "runs/two.html" not in Cards((place / "index.html").read_text()).links


def test_names_that_collide_are_numbered(tmp_path):
    runs = [made_up_run.make(tmp_path / parent / name)
            for parent, name in (("x", "run"), ("y", "Run"), ("z", "r/n"), ("z", "ü"))]  # fmt: skip
    made = gallery(runs, tmp_path / "shown")
    names = [file.rpartition("/")[2] for file in made["files"][1:]]
    assert names == ["run.html", "Run-2.html", "n.html", "run-3.html"]


@pytest.mark.parametrize("what", ["run", "files", "file", "link"])
def test_nothing_but_a_gallery_is_written_into(runs, tmp_path, what, capsys):
    place = tmp_path / "shown"
    if what == "run":
        made_up_run.make(place)
    elif what == "files":
        place.mkdir()
        (place / "index.html").write_text("my page")
    elif what == "file":
        place.write_text("x")
    else:
        place.symlink_to(tmp_path / "nowhere")
    before = content(tmp_path)
    flag = f"--workdirs={','.join(map(str, runs))}"
    assert main(["--mode=gallery", flag, f"--workdir={place}"]) == 2
    assert "exists and is not a gallery" in capsys.readouterr().err
    assert content(tmp_path) == before


def test_bad_workdirs_are_all_named_and_nothing_is_made(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    flag = f"--workdirs={runs[0]},empty,nowhere"
    assert main(["--mode=gallery", flag]) == 2
    said = capsys.readouterr().err
    assert "empty holds no run" in said and "nowhere holds no run" in said
    assert not (tmp_path / "gallery").exists()
    assert main(["--mode=gallery"]) == 2
    assert "--workdirs needs 1 to" in capsys.readouterr().err
    assert main(["--mode=gallery", f"--workdirs={runs[0]}", "--config.seed=1"]) == 2
    assert main(["--mode=gallery", f"--workdirs={runs[0]}"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["gallery"] == "gallery/index.html"
    assert (tmp_path / "gallery" / "index.html").is_file()


def test_a_failure_leaves_no_half_gallery(runs, tmp_path, monkeypatch):
    place, render = tmp_path / "shown", module.render

    def full(page):
        if page.title == "two":
            raise OSError(28, "No space left on device")
        return render(page)

    monkeypatch.setattr(module, "render", full)
    with pytest.raises(UserError, match=r"shown cannot be written"):
        gallery(runs, place)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs"]
    monkeypatch.undo()
    gallery(runs[:1], place)
    before = (place / "index.html").read_bytes()
    monkeypatch.setattr(module, "render", full)
    with pytest.raises((UserError, OSError)):
        gallery(runs, place)
    assert (place / "index.html").read_bytes() == before  # and all of its links still work
    assert (place / "runs" / "a-coder.html").is_file()


def test_a_run_cannot_add_markup(tmp_path):
    name = "<script>alert(1)</script>"
    run = made_up_run.make(tmp_path / "x", config={**made_up_run.CONFIG, "data": {"name": name}})
    gallery([run], tmp_path / "shown")
    text = (tmp_path / "shown" / "index.html").read_text()
    assert name not in text and len(re.findall("<script", text)) == 1


def test_every_family_has_a_room():
    assert [name for name, row in FAMILIES.items() if row.room == "Other models"] == []
