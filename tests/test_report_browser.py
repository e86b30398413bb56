"""A report in a real browser: it loads nothing, complains of nothing, and needs no mouse."""

from pathlib import Path

import browser
import made_up_run
import pytest

from genzoo.modes import report

pytestmark = browser.NEEDED
SHOWN = "document.querySelector('.frame.on').dataset"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    one, two = (made_up_run.make(folder / name) for name in ("one", "two"))
    hostile = {
        **made_up_run.CONFIG,
        "data": {"name": "</style><script>document.title='x'</script>"},
    }
    three = made_up_run.make(folder / "three", config=hostile)
    return {
        "run": report.write(one),
        "hostile": report.write(three),
        "comparison": Path(report.report(None, [one, two])["report"]),
    }


@pytest.mark.parametrize("name", ["run", "hostile", "comparison"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_loaded_and_nothing_sticks_out(page, files, name, width):
    page.resize(width, mobile=width < 500)
    page.open(files[name])
    assert page.requests() == [files[name].as_uri()]
    assert page.complaints() == []
    assert page.value("document.documentElement.scrollWidth") == width
    assert page.value("document.title") != "x"
    assert page.value("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")


def test_the_slider_shows_the_grid_of_each_step(page, files):
    page.resize(1280)
    page.open(files["run"])
    assert page.value(f"{SHOWN}.step") == "400"
    assert page.value("document.querySelectorAll('.frame.on').length") == 1
    page.value("document.querySelector('input[type=range]').focus()")
    page.press("ArrowLeft")
    assert page.value(f"{SHOWN}.step") == "126"
    slider = "document.querySelector('input[type=range]')"
    assert page.value(f"{slider}.getAttribute('aria-valuetext')") == "Step 126 of 400"
    page.press("Home")
    assert page.value(f"{SHOWN}.step") == "40"
    page.press("End", "Tab")
    assert page.value("document.activeElement.type") == "radio"
    assert page.value(f"{SHOWN}.series") == "ema"
    page.press("ArrowRight")
    assert page.value(f"{SHOWN}.series") == "raw"
    assert page.value(f"{SHOWN}.step") == "400"


def test_the_theme_follows_the_system_until_the_reader_chooses(page, files):
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    page.value("localStorage.clear()")
    colours = {}
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        page.open(files["run"])
        colours[scheme] = page.value(paper)
    assert colours["light"] != colours["dark"]
    button = "document.getElementById('theme')"
    assert page.value(f"{button}.getAttribute('aria-pressed')") == "true"
    page.value(f"{button}.focus()")
    page.press("Enter")
    assert page.value(paper) == colours["light"]
    assert page.value(f"{button}.getAttribute('aria-pressed')") == "false"
    page.press(" ")
    assert page.value(paper) == colours["dark"]


def test_every_control_has_a_name_and_is_reached_by_keyboard(page, files):
    page.open(files["run"])
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "slider", "radio", "link", "img", "image", "heading")
    silent = [
        node["role"]["value"] for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in roles
        and not node.get("name", {}).get("value")
    ]  # fmt: skip
    assert silent == []
    wanted = page.value(
        "[...document.querySelectorAll('a[href], button, summary, input[type=range]')].length"
    )
    page.value("document.activeElement.blur()")
    reached = set()
    for _ in range(60):
        page.press("Tab")
        reached.add(page.value(
            "[...document.querySelectorAll('a[href], button, summary, input[type=range]')]"
            ".indexOf(document.activeElement)"
        ))  # fmt: skip
    assert len(reached - {-1}) == wanted


def test_text_has_contrast(page, files):
    """Every colour of text against the paper: at least 4.5 to 1, as WCAG 2.2 asks (1.4.3)."""
    script = """(() => {
      const luminance = (text) => {
        const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((v) => {
          const c = v / 255;
          return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const paper = luminance(getComputedStyle(document.documentElement).backgroundColor);
      let least = 99;
      for (const e of document.querySelectorAll("body *")) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!own || e.closest("script, style")) continue;
        const style = getComputedStyle(e);
        const ink = luminance(e.closest("svg") ? style.fill : style.color);
        const [low, high] = [ink, paper].sort((a, b) => a - b);
        least = Math.min(least, (high + 0.05) / (low + 0.05));
      }
      return least;
    })()"""
    page.value("localStorage.clear()")
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        page.open(files["comparison"])
        assert page.value(script) >= 4.5
