"""A workdir belongs to one config, one data set and one training process at a time."""

import json
import logging
from dataclasses import replace

import pytest

from genzoo import build, check, config
from genzoo.core.errors import UserError
from genzoo.train.manifest import write_manifest
from genzoo.workdir import Workdir

DATA = {"examples": 10, "checksum": 1}


def made(**overrides):
    dotted = {k.replace("__", "."): v for k, v in overrides.items()}
    return check.check(config.override(config.load("configs/ddpm_fashion.py:smoke"), dotted))


def claimed(path, settings=None, data=DATA):
    place = Workdir(path)
    place.check(settings or made())
    place.claim(settings or made(), data).close()
    return place


def begun(path, settings=None):
    """A claimed workdir with a finished checkpoint."""
    place = claimed(path, settings)
    (path / "checkpoints" / "10").mkdir(parents=True)
    write_manifest(path / "checkpoints" / "10", 10)
    return place


def test_a_failed_start_can_be_repeated_with_another_config(tmp_path):
    claimed(tmp_path)
    claimed(tmp_path, made(network__norm_epsilon="1e-5"), {"examples": 11, "checksum": 1})
    begun(tmp_path)
    with pytest.raises(UserError, match=r"network.norm_epsilon is 1e-06 there and 1e-05 here"):
        claimed(tmp_path, made(network__norm_epsilon="1e-5"))


def test_a_colon_in_the_path_is_no_variant(tmp_path):
    place = claimed(tmp_path / "2026-11-20 10:30")
    assert place.config() == made().to_dict()
    claimed(tmp_path / "2026-11-20 10:30")


def test_a_run_is_not_made_shorter_than_it_is(tmp_path):
    place = begun(tmp_path)  # at step 10
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"train.steps = 9 is below step 10, which the run in"):
        place.check(made(train__steps="9", train__save_every="9"))
    assert (tmp_path / "config.json").read_bytes() == before
    place.check(made(train__steps="10"))


def test_checking_writes_nothing(tmp_path):
    Workdir(tmp_path / "new").check(made())
    assert list(tmp_path.iterdir()) == []


def test_a_newer_key_has_its_default(tmp_path):
    place = begun(tmp_path)
    stored = made().to_dict()
    del stored["network"]["norm_epsilon"], stored["bench"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    place.check(made())
    with pytest.raises(UserError, match=r"network.norm_epsilon is 1e-06 there and 1e-05 here"):
        place.check(made(network__norm_epsilon="1e-5"))


def test_a_key_that_had_no_effect_when_a_run_began_does_not_stop_it(tmp_path):
    place = begun(tmp_path)
    stored = made().to_dict()
    stored["sample"] |= {"churn": 40.0, "rho": 5.0}  # an error in a new config
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert place.config() == made().to_dict()
    place.check(made())


def test_an_older_config_is_upgraded_or_refused_with_a_message(
    tmp_path, monkeypatch
):
    place = begun(tmp_path)
    stored = made().to_dict()
    stored["network"]["channels"] = stored["network"].pop("width")
    (tmp_path / "config.json").write_text(json.dumps(stored))

    def renamed(raw):
        raw["network"]["width"] = raw["network"].pop("channels")
        return raw

    rename = config.Upgrade(applies=lambda raw: "channels" in raw["network"], change=renamed)
    monkeypatch.setattr(config, "UPGRADES", (rename,))
    assert place.config() == made().to_dict()
    place.check(made())
    with_arrays = replace(rename, tree="Its arrays are of 2026: start anew in another --workdir.")
    monkeypatch.setattr(config, "UPGRADES", (with_arrays,))
    with pytest.raises(UserError, match=f"--workdir={tmp_path}: Its arrays are of 2026"):
        place.check(made())
    with pytest.raises(UserError, match="Its arrays are of 2026"):
        place.load(made(), None)


def test_the_noise_input_of_a_score_sde_had_another_name(tmp_path):
    settings = check.check(config.load("configs/sde_ve_cifar.py:smoke"))
    place, stored = begun(tmp_path, settings), settings.to_dict()
    stored["family"]["told"] = stored["family"].pop("noise_input")
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert place.config() == settings.to_dict()


@pytest.mark.parametrize("null", [True, False])
def test_the_null_class_was_once_a_setting(tmp_path, null):
    settings = made(conditions__label__dropout="0.1")
    place, stored = begun(tmp_path, settings), settings.to_dict()
    # The form of such a run, when a class was the only condition.
    del stored["conditions"], stored["sample"]["conditions"]
    stored["family"] |= {"conditional": True, "label_dropout": 0.1}
    stored["sample"]["label"] = -1
    stored["network"]["null_class"] = null
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert place.config() == settings.to_dict()
    if null:
        place.check(settings)
    else:
        with pytest.raises(UserError, match="no row for an absent label"):
            place.check(settings)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "config.json is damaged"),
        ("[1]", "does not hold a config"),
        ('{"networ": {}}', "networ is not a known section"),
    ],
)
def test_a_damaged_config_is_named(tmp_path, content, words):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError) as caught:
        Workdir(tmp_path).check(made())
    assert words in str(caught.value) and "config.json" in str(caught.value)


def test_only_one_process_trains(tmp_path):
    held = Workdir(tmp_path).claim(made(), DATA)
    with pytest.raises(UserError, match="Another process is training"):
        Workdir(tmp_path).claim(made(), DATA)
    held.close()
    claimed(tmp_path)


def test_other_data_is_refused(tmp_path):
    begun(tmp_path)
    with pytest.raises(UserError, match=r"data has changed .*examples was 10 and is 11"):
        claimed(tmp_path, data={"examples": 11, "checksum": 1})


def test_what_is_held_in_memory_may_change(tmp_path):
    folder = {"data__name": "folder:it", "data__size": "28", "data__channels": "1"}
    begun(tmp_path, made(**folder))
    with pytest.raises(UserError, match="checksum was 1 and is 2"):
        claimed(tmp_path, made(**folder), data=DATA | {"checksum": 2})
    unheld = {"examples": 10, "content": 3}
    claimed(tmp_path, made(**folder, data__hold="0.5"), data=unheld)
    with pytest.raises(UserError, match="examples was 10 and is 11"):
        claimed(tmp_path, made(**folder, data__hold="2.0"), data=unheld | {"examples": 11})


def test_checkpoints_without_a_config_are_refused(tmp_path):
    manifest = tmp_path / "checkpoints" / "10" / "genzoo_manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    with pytest.raises(UserError, match=r"holds checkpoints and no config.json"):
        Workdir(tmp_path).check(made())


def test_a_lower_learning_rate_is_accepted_and_logged(tmp_path, caplog):
    begun(tmp_path)
    with caplog.at_level(logging.INFO, logger="genzoo"):
        claimed(tmp_path, made(optimizer__learning_rate="1e-5"))
    assert "optimizer.learning_rate was 0.0003 and is now 1e-05" in caplog.text


def test_the_number_of_classes_is_settled_by_names_alone(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"never opened")
    folder = {"data__name": f"folder:{tmp_path}", "data__size": "28", "data__channels": "1"}
    settings = build.settled(made(**folder, conditions__label__dropout="0.1"))
    assert settings.data.num_classes == 2 and settings.data.classes == ("cat", "dog")
    assert build.settled(made(**folder)).data.num_classes == 0
    with pytest.raises(UserError, match="has no classes"):
        build.settled(made(**folder, data__labels="false", conditions__label__dropout="0.1"))


def test_what_a_run_knows_of_its_data_is_bound_when_it_is_read(tmp_path):
    folder = {"data__name": "folder:photos", "data__size": "28", "data__channels": "1"}
    grain = "(('grain', 2.0, 0.5),)"
    place = begun(tmp_path, made(**folder, data__columns=grain, data__classes="('cat', 'dog')"))
    for changed, message in {
        "(('grain', 2.0, 1.0),)": "data.columns is", "(('porosity', 2.0, 0.5),)": "data.columns is",
    }.items():  # fmt: skip
        other = made(**folder, data__columns=changed, data__classes="('cat', 'dog')")
        with pytest.raises(UserError, match=message):
            place.load(other, None)
    with pytest.raises(UserError, match=r"data.classes is \('cat', 'dog'\) there"):
        place.load(made(**folder, data__columns=grain, data__classes="('dog', 'cat')"), None)


def test_a_folder_of_samples_tells_what_was_asked_of_the_conditions(tmp_path):
    base = {"conditions__label__dropout": "0.1", "sample__conditions__label": "-1"}
    place = begun(tmp_path, made(**base))
    for name, asked in {
        "step_00000010": {},
        "step_00000010_conditions.label=3": {"sample__conditions__label": "3"},
        "step_00000010_conditions.label=Ankle-boot": {"sample__conditions__label": "'Ankle boot'"},
        "step_00000010_guidance_scale=2.0_negative.label=1": {
            "sample__negative__label": "1", "sample__guidance_scale": "2.0",
        },
        "step_00000010_guidance_scale=-2.0": {"sample__guidance_scale": "-2.0"},
        "step_00000010_guidance_scale=2.0": {"sample__guidance_scale": "2.0"},
        "mine": {"sample__into": "mine"},
    }.items():  # fmt: skip
        found = made(**{**base, **asked})
        for _ in range(2):  # the same call again is at home there
            folder = place.sample_folder(found, 10)
            assert folder.name == name
            sample = {k: v for k, v in found.sample.to_dict().items() if k != "into"}
            place.begin_samples(folder, {"sample": sample})
