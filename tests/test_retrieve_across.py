"""`--mode=retrieve` for a family that embeds texts, through a smoke run of CLIP on shapes."""

import json

import pytest

from genzoo.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("clip") / "run"
    assert main(["--config=configs/clip_shapes.py:smoke", f"--workdir={place}"]) == 0
    return place


def test_images_and_texts_find_each_other(run, capsys):
    mode = [f"--workdir={run}", "--mode=retrieve"]
    assert main([*mode, "--config.tools.prompts=('a red square','a cyan star')"]) == 0
    report = json.loads((run / "retrieve.json").read_text())
    assert report["images"] == 48 and sum(report["prompts"].values()) == 48
    shares = [report[k] for k in report if k.startswith(("text_of", "image_of", "shows"))]
    assert len(shares) == 6 and all(0 <= share <= 1 for share in shares)
    assert len(report["queries"]) == 8 and (run / "samples" / "neighbours.png").is_file()

    assert main([*mode, "--config.tools.first=a small red circle"]) == 0
    (query,) = json.loads((run / "retrieve.json").read_text())["queries"]
    assert query["text"] == "a small red circle" and len(query["indices"]) == 8
    assert len(set(query["indices"])) == 8 and max(query["indices"]) < 48

    assert main([*mode, "--config.tools.first=3"]) == 0
    report = json.loads((run / "retrieve.json").read_text())
    assert len(report["nearest_texts"]) == 3

    capsys.readouterr()
    for wrong, message in {
        "first=48": "must be a text, or from 0 to 47",
        "first=a mauve circle": "tools.first = 'a mauve circle' cannot be used as a text",
        "prompts=('a red ring','A red ring')": "'a red ring' and 'A red ring', which are the same",
        "prompts=('a mauve circle',)": "tools.prompts = 'a mauve circle' cannot be used as a text",
    }.items():
        assert main([*mode, f"--config.tools.{wrong}"]) == 2
        assert message in capsys.readouterr().err
