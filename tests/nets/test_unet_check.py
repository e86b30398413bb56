"""Errors in the settings of a U-Net are sentences that name the key and the remedy."""

import pytest
from checked import section_problems

from genzoo.core.conditions import Entry
from genzoo.core.errors import UserError
from genzoo.nets.point_mlp import PointMLPSettings
from genzoo.nets.unet.song_unet import SongUNetSettings
from genzoo.nets.unet.unet import UNetSettings
from genzoo.nets.unet.vdm_unet import VDMUNetSettings

SHAPE = (32, 32, 3)


def unet_problems(shape, **settings):
    return section_problems(UNetSettings(**settings), "network", shape)


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(width=0, attention=()), ["network.width = 0 must be at least 1."]),
        (dict(blocks=0), ["network.blocks = 0 must be at least 1."]),
        (dict(multipliers=()), ["network.multipliers = () must be", "1 to 16 entries"]),
        (dict(multipliers=(1, 0, 2, 2)), ["network.multipliers[1] = 0.0 must be above 0."]),
        (dict(multipliers=(1, 0.001, 2, 2)), ["network.multipliers = ", "without channels"]),
        (dict(dropout=1.0), ["network.dropout = 1.0 must be at least 0 and below 1."]),
        (dict(embedding_width=33), ["network.embedding_width = 33", "even"]),
        (dict(resample="pool"), ["network.resample = 'pool' is unknown", "conv_centred, plain"]),
        (dict(time_embedding="sinusiodal"), ["network.time_embedding", "'sinusoidal'?"]),
        (dict(remat="ful"), ["network.remat = 'ful' is unknown", "'full'?"]),
        (dict(dtype="float16"), ["network.dtype = 'float16' is unknown", "float"]),
        (dict(attention=(16, 7)), ["network.attention contains 7", "32, 16, 8, 4"]),
        (dict(heads=3), ["network.heads is 3", "256", "network.width"]),
        (dict(head_width=60), ["network.head_width is 60", "256"]),
        (dict(heads=2, head_width=64), ["network.heads is 2", "network.head_width is 64"]),
        (dict(head_width=512), ["network.head_width is 512"]),
        (dict(heads=0), ["network.heads = 0 must be at least 1."]),
        (dict(patch=0), ["network.patch = 0 must be at least 1."]),
        (dict(transformer_depth=-1), ["network.transformer_depth = -1 must be at least 0."]),
        (dict(context_width=64), ["network.context_width = 64", "no effect"]),
    ],
)
def test_each_mistake_is_one_sentence(settings, words):
    problems = unet_problems(SHAPE, **settings)
    assert len(problems) == 1, problems
    for word in words:
        assert word in problems[0]
    assert problems[0].endswith((".", "?"))


@pytest.mark.parametrize(
    "shape, settings, words",
    [
        ((28, 28, 1), dict(attention=()), ["divisible by 8", "28 x 28", "24 or 32 by 24 or 32"]),
        ((4, 48, 1), dict(attention=()), ["divisible by 8", "8 by 48"]),
        ((32, 36, 1), dict(attention=(), patch=2), ["network.patch is 2", "divisible by 16"]),
        ((30,), dict(attention=()), ["divisible by 8"]),
    ],
)
def test_sizes_that_do_not_divide_say_which_would(shape, settings, words):
    if len(shape) == 1:
        shape = (*shape, 2)
    problems = unet_problems(shape, **settings)
    assert len(problems) == 1, problems
    for word in words:
        assert word in problems[0]


def test_all_problems_come_at_once():
    problems = unet_problems((30, 30, 3), remat="x", dtype="y", dropout=-1, heads=3, attention=(5,))
    for key in ("remat", "dtype", "dropout", "multipliers", "heads", "attention"):
        assert any(f"network.{key}" in problem for problem in problems), key
    assert len(problems) == 6


def test_the_defaults_fit_cifar():
    assert unet_problems(SHAPE) == []


def test_a_network_that_cannot_see_its_time_is_refused():
    """A norm of each channel alone removes what is added to it: see test_unet.py."""
    small = dict(width=16, multipliers=(1, 2), attention=())
    (problem,) = unet_problems(SHAPE, **small)
    assert "removes the time" in problem and "network.norm_groups = 4" in problem
    assert unet_problems(SHAPE, **small, norm_groups=4) == []
    assert unet_problems(SHAPE, **small, scale_shift=True) == []
    # One level that depends on it is enough.
    assert unet_problems(SHAPE, width=16, multipliers=(1, 4), attention=()) == []


CLASS = Entry(kind="class", size=3)
SEEN = Entry(kind="class", size=3, way="attend")
MAP = Entry(kind="map", size=3, way="concat")


@pytest.mark.parametrize(
    "settings, entries, words",
    [
        (UNetSettings(), {"it": SEEN}, [".it has way", "network.transformer_depth = 1"]),
        (UNetSettings(transformer_depth=1), {"it": CLASS}, ["transformer_depth", "depth to 0"]),
        (SongUNetSettings(), {"it": MAP, "text": SEEN}, [".text has way", "use 'add'"]),
        (VDMUNetSettings(), {"it": SEEN}, ["conditions.it", "'attend'", "use 'add'"]),
        (PointMLPSettings(), {"it": MAP}, ["conditions.it", "'concat'", "leave it out"]),
    ],
)
def test_a_condition_that_has_no_place_is_refused(settings, entries, words):
    with pytest.raises(UserError) as error:
        settings.build(out_channels=3, entries=entries)
    for word in words:
        assert word in str(error.value)
