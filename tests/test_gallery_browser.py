"""The gallery in a real browser: it loads nothing, fits its window, and needs no mouse."""

from pathlib import Path

import browser
import made_up_run
import pytest

from genzoo.modes.gallery import gallery

pytestmark = browser.NEEDED


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    hostile = {
        **made_up_run.CONFIG, "family": {"name": "vae"},
        "data": {"name": "</style><script>document.title='x'</script>" + "y" * 90},
    }  # fmt: skip
    runs = [
        made_up_run.make(folder / "one"), made_up_run.make(folder / "two", scores={}),
        made_up_run.make(folder / "three", config=hostile),
    ]  # fmt: skip
    return Path(gallery(runs, folder / "gallery")["gallery"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width, columns", [(390, 1), (1280, 3)])
def test_it_loads_nothing_and_fits(page, index, scheme, width, columns):
    page.prefer(scheme)
    page.resize(width, mobile=width < 500)
    page.open(index)
    assert page.requests() == [index.as_uri()] and page.complaints() == []
    assert page.value("document.documentElement.scrollWidth") == width
    assert page.value("document.title") != "x"
    assert page.value("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    tops = (
        "getComputedStyle(document.querySelector('.cards')).gridTemplateColumns.split(' ').length"
    )
    assert page.value(tops) == columns
    shade = page.value("getComputedStyle(document.documentElement).backgroundColor")
    assert (int(shade.split("(")[1].split(",")[0]) < 128) == (scheme == "dark")


def test_the_keyboard_opens_a_run_and_comes_back(page, index):
    page.resize(1280)
    page.open(index)
    for _ in range(12):
        page.press("Tab")
        if page.value("document.activeElement.textContent") == "one":
            break
    focused = "document.querySelector('.card:has(a:focus-visible)')"
    assert page.value(f"getComputedStyle({focused}).outlineStyle") == "solid"
    target = page.value("document.activeElement.href")
    assert target == (index.parent / "runs" / "one.html").as_uri()
    page.open(index.parent / "runs" / "one.html")
    assert page.requests() == [target] and page.complaints() == []
    assert page.value("document.querySelector('.up a').href") == index.as_uri()
    assert page.value("document.querySelectorAll('.frame.on').length") == 1


def test_every_part_has_a_name_for_a_screen_reader(page, index):
    page.open(index)
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    named = {}
    for node in nodes:
        if not node.get("ignored"):
            role = node.get("role", {}).get("value")
            named.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    for role in ("button", "link", "image", "heading", "region"):
        assert named.get(role) and all(named[role]), role
    assert {"one", "two", "three"} <= set(named["link"])
    assert "Diffusion and flows" in named["region"]
    assert len(set(named["image"])) == 3


def test_a_click_anywhere_on_a_card_is_on_its_link(page, index):
    page.resize(1280)
    page.open(index)
    hit = """(() => {
      const box = document.querySelector('.card .shot').getBoundingClientRect();
      const at = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
      return at.closest('a') && at.closest('a').textContent;
    })()"""
    assert page.value(hit) == "one"
