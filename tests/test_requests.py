"""What samples are asked to show: values, lists of values, absent conditions, mistakes."""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from genzoo import build, check, config
from genzoo.core.contract import Variables
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment
from genzoo.modes import illustrate
from genzoo.modes.illustrate import Subject
from genzoo.requests import Requests

NOTHING = Variables(params={}, stats={}, frozen={})


def requests(path: str, **conditions) -> Requests:
    """The requests of a config with these `sample.conditions`."""
    raw = config.load(f"configs/{path}.py:smoke")
    raw["sample"]["conditions"] = conditions
    if path == "toy_waves":
        raw["conditions"] = {"label": {}, "frequency": {"dropout": 0.1}}
    experiment = Experiment(check.check(raw))
    return Requests(experiment=experiment, family=experiment.family)


def test_samples_cycle_through_a_list_of_texts():
    prompts = ["a red circle", "a blue square above a red star", "a cyan ring"]
    asked = requests("fm_shapes", text=prompts)
    rows = asked.rows(np.arange(2, 9))
    assert asked.texts(rows) == [prompts[i % 3] for i in range(2, 9)]
    assert asked.conditions(NOTHING, rows)["text"].present.all()


def test_without_a_request_texts_are_those_of_the_test_split():
    asked = requests("fm_shapes")
    read = asked.experiment.open("test").read(np.arange(3))
    np.testing.assert_array_equal(asked.rows(np.arange(3))["text"], read["text"])


def test_classes_are_given_by_name_or_number_alone_or_in_a_list():
    for given, expected in (("Sneaker", [7]), (3, [3]), (["bag", 0, "7"], [8, 0, 7])):
        rows = requests("ddpm_fashion_cond", label=given).rows(np.arange(6))
        np.testing.assert_array_equal(rows["label"], np.resize(expected, 6))
    rows = requests("ddpm_fashion_cond", label="all").rows(np.arange(12))
    np.testing.assert_array_equal(rows["label"], np.arange(12) % 10)
    rows = requests("ddpm_fashion_cond", label=["bag", "all"]).rows(np.arange(12))
    np.testing.assert_array_equal(rows["label"], [8, *range(10), 8])


def test_one_value_of_a_list_may_be_absent():
    asked = requests("ddpm_fashion_cond", label=["bag", "none"])
    given = asked.conditions(NOTHING, asked.rows(np.arange(5)))["label"]
    np.testing.assert_array_equal(given.present, [True, False, True, False, True])
    np.testing.assert_array_equal(np.asarray(given.value)[::2], 8)
    asked = requests("ddpm_fashion_cond", label="none")
    assert not asked.conditions(NOTHING, asked.rows(np.arange(5)))["label"].present.any()


def test_the_class_is_that_of_the_record_that_other_conditions_come_from():
    index = np.arange(6)
    asked = requests("toy_waves")
    test = asked.experiment.open("test").read(index)
    assert not np.array_equal(test["label"], index % 3) and asked.classes == 0
    np.testing.assert_array_equal(asked.rows(index)["label"], test["label"])
    np.testing.assert_array_equal(asked.rows(index)["frequency"], test["frequency"])
    for given in (dict(frequency=2.5), dict(label="all"), dict(label="all", frequency="none")):
        asked = requests("toy_waves", **given)
        np.testing.assert_array_equal(asked.rows(index)["label"], index % 3)
        assert asked.classes == 3


def of(raw: dict, **sample) -> Requests:
    """The requests of a config with these keys of `sample`."""
    raw["sample"] |= sample
    experiment = Experiment(check.check(raw))
    return Requests(experiment=experiment, family=experiment.family)


@pytest.mark.parametrize("given", [-1, "-1", -2, (3, -1), [-1], "bag,-1", 10])
@pytest.mark.parametrize("key", ["conditions", "negative"])
def test_a_number_that_is_no_class_is_refused(key, given):
    raw = config.load("configs/ddpm_fashion_cond.py:smoke")
    asked = of(raw, guidance_scale=2.0, **{key: dict(label=given)})
    with pytest.raises(UserError, match=rf"sample\.{key}\.label = '?-?\d+'? is not a class"):
        asked.check()


@pytest.mark.parametrize("given", ["all", ["bag", "all"]])
def test_guidance_cannot_move_away_from_all_classes(given):
    raw = config.load("configs/ddpm_fashion_cond.py:smoke")
    asked = of(raw, guidance_scale=2.0, negative=dict(label=given))
    with pytest.raises(UserError, match=r"sample\.negative\.label = 'all' is no class"):
        asked.check()


@pytest.mark.parametrize(
    ("path", "dropout", "given"),
    [
        ("sr_fashion", {}, dict(low="none")),
        ("toy_waves", {}, dict(label="none")),
        ("toy_waves", {}, dict(frequency=2.5, label=["none", 1])),
        ("fm_shapes", {"text": 0.0}, dict(text=("a red circle", None))),
    ],
)
def test_what_training_never_left_out_must_be_given(path, dropout, given):
    raw = config.load(f"configs/{path}.py:smoke")
    if path == "toy_waves":
        raw["conditions"] = {"label": {}, "frequency": {"dropout": 0.1}}
    for name, rate in dropout.items():
        raw["conditions"][name]["dropout"] = rate
        raw["sample"]["guidance_scale"] = 1.0
    with pytest.raises(UserError, match=r"= 'none', but this model never saw it left out"):
        of(raw, conditions=given).check()


def test_a_classifier_guides_to_a_class():
    asked = requests("ddpm_fashion_cond", label=["bag", "none"])
    asked.check()
    guided = Requests(
        experiment=asked.experiment, family=replace(asked.family, classifier=object())
    )
    with pytest.raises(UserError, match=r"'none', but sample\.classifier guides to a class"):
        guided.check()


def test_what_a_weaker_model_guides_away_from_is_no_condition():
    raw = config.load("configs/ddpm_fashion_cond.py:smoke")
    with pytest.raises(UserError, match=r"^sample\.negative has no effect with sample\.guide: "):
        of(raw, guide="runs/weak", guidance_scale=2.0, negative=dict(label=1))


@pytest.mark.parametrize(
    ("conditions", "network", "message"),
    [
        (
            {"text": {"way": "cross"}},
            {},
            "'cross' is unknown: known are: add, attend, concat, control.",
        ),
        ({"text": {"way": "add"}}, {}, "way = 'add' is not possible for a text: use 'attend'."),
        ({"text": {"transform": "grey"}}, {}, "applies to images, but text is a text: set it"),
        (
            {"text": {}}, {"transformer_depth": 0, "context_width": 0},
            "conditions.text has way = 'attend', which this network does not support: set "
            "network.transformer_depth = 1.",
        ),
    ],
)  # fmt: skip
def test_messages_about_captions_not_yet_read_name_no_sizes(conditions, network, message):
    raw = config.load("configs/fm_emoji.py:smoke")
    raw["conditions"], raw["network"] = conditions, raw["network"] | network
    raw["sample"]["guidance_scale"] = 1.0
    with pytest.raises(UserError, match=re.escape(message)):
        build.size(check.check(raw))


def test_conditions_are_left_out_together_as_in_training():
    raw = config.load("configs/toy_waves.py:smoke")
    both = {"dropout": 0.1, "together": "both"}
    raw["conditions"] = {"label": both, "frequency": both}
    for given in (dict(label="none"), dict(label=[1, "none"], frequency=["none", "2"])):
        with pytest.raises(UserError, match="frequency or label without the other"):
            of(raw, conditions=given).check()
    with pytest.raises(UserError, match=r"sample\.negative has frequency or label without"):
        of(raw, conditions={}, guidance_scale=2.0, negative=dict(label=1)).check()
    given = dict(label=["none", 1], frequency=["none", "2", "none", "3"])
    of(raw, conditions=given, negative=dict(label=1, frequency=2.5)).check()


def test_conditions_of_one_field_are_given_and_left_out_one_by_one(tmp_path):
    raw = config.load("configs/sr_fashion.py:smoke")
    raw["conditions"]["low"]["dropout"] = 0.1
    raw["conditions"]["edges"] = {"of": "x", "transform": "edges"}
    image, index = tmp_path / "image.png", np.arange(2)
    Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28)).save(image)
    test = Experiment(check.check(raw)).open("test").read(index)["x"]
    for given, x in ((dict(low="none"), test[1]), (dict(low="none", edges=str(image)), None)):
        asked = of(raw, conditions=given)
        asked.check()
        rows = asked.rows(index)
        expected = np.arange(784) % 256 if x is None else x.reshape(-1)
        np.testing.assert_array_equal(rows["x"][1].reshape(-1), expected)
        present = {k: v.present.all() for k, v in asked.conditions(NOTHING, rows).items()}
        assert present == {"low": False, "edges": True} and asked.restores == (x is not None)
    with pytest.raises(UserError, match="also leaves out edges, made from x"):
        of(raw, conditions=dict(low=[str(image), "none"])).check()
    other = tmp_path / "other.png"
    Image.new("L", (28, 28)).save(other)
    with pytest.raises(UserError, match="contradict each other, because both are made from x"):
        of(raw, conditions=dict(low=str(image), edges=str(other))).check()


def test_a_list_may_be_written_as_text():
    for given in ("sneaker, bag", "(Sneaker,bag)", "['sneaker', 8]", " 7,bag, "):
        rows = requests("ddpm_fashion_cond", label=given).rows(np.arange(3))
        np.testing.assert_array_equal(rows["label"], [7, 8, 7])
    for given in ("('a red circle', none)", "[a red circle,None]", "('a red circle',NONE,)"):
        asked = requests("fm_shapes", text=given)
        rows = asked.rows(np.arange(3))
        assert asked.texts(rows) == ["a red circle", "", "a red circle"]
        present = asked.conditions(NOTHING, rows)["text"].present
        np.testing.assert_array_equal(present, [True, False, True])
    for given in ("(2.5, none)", "('frequency=2.5',none)", "((2.5,),none)", "none,'2.5'"):
        asked = requests("toy_waves", frequency=given)
        rows = asked.rows(np.arange(2))
        present = asked.conditions(NOTHING, rows)["frequency"].present
        np.testing.assert_array_equal(rows["frequency"][:, 0], np.where(present, 2.5, 0))
        assert sorted(present.tolist()) == [False, True]


def test_requests_repeat_after_as_many_as_there_are(tmp_path):
    file = tmp_path / "image.png"
    Image.new("L", (28, 28)).save(file)
    assert requests("sr_fashion").distinct == 2000  # the test split
    assert requests("fm_fashion").distinct == 1  # no conditions
    assert requests("ddpm_fashion_cond").distinct == 10
    for given, count in ((str(file), 1), ([str(file)] * 3, 3), (f"{file},{file}", 2)):
        assert requests("sr_fashion", low=given).distinct == count
    assert requests("toy_waves", label=[0, 2, 1], frequency=["1", "2"]).distinct == 6
    assert requests("toy_waves", frequency=["1", "2"]).distinct == 6  # with three classes in turn


def test_a_negative_value_of_a_list_may_be_absent():
    raw = config.load("configs/ddpm_fashion_cond.py:smoke")
    raw["sample"] |= dict(guidance_scale=2.0, negative=dict(label=["none", "bag", 3]))
    experiment = Experiment(check.check(raw))
    asked = Requests(experiment=experiment, family=experiment.family)
    given = asked.negative(NOTHING, asked.rows(np.arange(6)))["label"]
    np.testing.assert_array_equal(given.present, [False, True, True] * 2)
    np.testing.assert_array_equal(np.asarray(given.value)[[1, 2, 4, 5]], [8, 3, 8, 3])


def test_absent_classes_have_no_name_in_captions():
    asked = requests("ddpm_fashion_cond", label=["bag", "none"])
    rows = asked.rows(np.arange(3))
    assert asked.captions(rows) == ["Bag", "none", "Bag"]
    np.testing.assert_array_equal(asked.classed(rows), [True, False, True])
    assert not requests("fm_shapes").classed({"index": np.arange(2)}).any()


def test_where_a_text_is_absent_the_caption_is_the_class_or_none():
    asked = requests("fm_shapes", text=["a red circle", "none"])
    assert asked.captions(asked.rows(np.arange(3))) == ["a red circle", "none", "a red circle"]
    raw = config.load("configs/fm_emoji.py:smoke")
    raw["data"] |= {"words": ("cat",), "tokens": 1}
    raw["conditions"]["label"] = {"dropout": 0.1}
    raw["sample"]["conditions"] = {"text": ["cat", "none", "none"], "label": ["flags", "none"]}
    experiment = Experiment(check.check(raw))
    asked = Requests(experiment=experiment, family=experiment.family)
    names = ["cat", "none", "Flags", "cat", "Flags", "none"]
    assert asked.captions(asked.rows(np.arange(6))) == names


def test_the_velocity_is_drawn_for_the_first_of_several_classes(tmp_path):
    raw = config.load("configs/toy_mixture.py:smoke")
    raw["conditions"] = {"label": {"dropout": 0.1}}
    raw["sample"]["conditions"] = {"label": [2, "none"]}
    experiment = Experiment(check.check(raw))
    asked = Requests(experiment=experiment, family=experiment.family)
    variables = experiment.initial_variables()
    path = illustrate.field(Subject(requests=asked, variables=variables, folder=tmp_path))
    assert path.is_file()


def test_numbers_are_one_vector_and_a_list_of_texts_several():
    for given, expected in (
        (2.5, [2.5]), ((2.5,), [2.5]), ("frequency=3", [3.0]), (["frequency=3", "2"], [3.0, 2.0]),
        ([[1.5], [2.5]], [1.5, 2.5]),
    ):  # fmt: skip
        rows = requests("toy_waves", frequency=given).rows(np.arange(4))
        np.testing.assert_array_equal(rows["frequency"][:, 0], np.resize(expected, 4))


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"text": "a rad circle"}, "'a rad circle' .*no word 'rad': did you mean 'red'"),
        ({"text": ["a red circle", "a dog"]}, "'a dog' .*no word 'dog'"),
        ({"text": "a red circle left of a red circle left of a"}, "has 11 tokens.*at most 10"),
        ({"text": []}, "sample.conditions.text is an empty list"),
        ({"text": ""}, "sample.conditions.text = '' is an empty text: give words, or none"),
        ({"text": ["a red circle", "  "]}, "= '  ' is an empty text"),
        ({"text": "('a red circle', red)"}, r"no word '\('.*Several texts are written \"\('"),
        ({"txt": "a red circle"}, "txt.* is not a condition of this model: did you mean 'text'"),
    ],
)
def test_mistakes_are_named(conditions, message):
    with pytest.raises(UserError, match=message):
        requests("fm_shapes", **conditions).check()
