"""Published U-Nets have exactly as many parameters as in their authors' code.

The counts of DDPM are the authors' (and those of diffusers). The counts of iDDPM come from models
built by openai/improved-diffusion with the flags of its README, those of ADM likewise from
openai/guided-diffusion, and those of latent diffusion from CompVis' UNetModel with the configs of
its repositories. Only shapes are evaluated, so the tests need no memory.
"""

import jax
import jax.numpy as jnp
import pytest
from checked import section_problems
from oracles import entry_of

from genzoo.core import tree
from genzoo.core.conditions import Entry
from genzoo.nets.unet.unet import UNetSettings

IDDPM = dict(blocks=3, multipliers=(1, 2, 3, 4), attention=(16, 8), heads=4, scale_shift=True,
             resample="conv_centred", time_embedding="sinusoidal_adm",
             norm_epsilon=1e-5)  # fmt: skip
ADM = dict(attention=(32, 16, 8), resample="block", scale_shift=True, null=False,
           time_embedding="sinusoidal_adm", norm_epsilon=1e-5)  # fmt: skip
LARGE = (1, 1, 2, 2, 4, 4)

# name: (size, input channels, output channels, classes, settings, count)
PUBLISHED = {
    "ddpm_cifar10": (32, 3, 3, 0, dict(), 35_746_307),
    "ddpm_cifar10_learned_variance": (32, 3, 6, 0, dict(), 35_749_766),
    "ddpm_256": (256, 3, 3, 0, dict(multipliers=LARGE), 113_673_219),
    "iddpm_imagenet64": (64, 3, 6, 0, IDDPM, 121_063_942),
    "iddpm_imagenet64_class": (
        64, 3, 6, 1000, IDDPM | dict(width=192, null=False), 273_049_350,
    ),
    "iddpm_cifar10": (32, 3, 6, 0, IDDPM | dict(multipliers=(1, 2, 2, 2)), 52_546_438),
    "iddpm_upsampler_64_256": (
        256, 6, 6, 1000,
        IDDPM | dict(width=192, blocks=2, multipliers=LARGE, null=False), 279_792_390,
    ),
    "iddpm_lsun256": (
        256, 3, 6, 0,
        IDDPM | dict(blocks=2, multipliers=LARGE, attention=(16,), heads=1, scale_shift=False),
        113_676_678,
    ),
    "adm_imagenet64": (
        64, 3, 6, 1000,
        ADM | dict(width=192, blocks=3, multipliers=(1, 2, 3, 4), head_width=64), 295_904_454,
    ),
    "adm_imagenet128": (
        128, 3, 6, 1000, ADM | dict(width=256, multipliers=(1, 1, 2, 3, 4), heads=4), 421_529_606,
    ),
    "adm_imagenet256": (
        256, 3, 6, 1000, ADM | dict(width=256, multipliers=LARGE, head_width=64), 553_838_086,
    ),
    "adm_256_unconditional": (
        256, 3, 6, 0, ADM | dict(width=256, multipliers=LARGE, head_width=64), 552_814_086,
    ),
    "adm_imagenet512": (
        512, 3, 6, 1000, ADM | dict(width=256, multipliers=(0.5, *LARGE), head_width=64),
        558_997_638,
    ),
    "adm_upsampler_64_256": (
        256, 6, 6, 1000, ADM | dict(width=192, multipliers=LARGE, heads=4), 311_795_910,
    ),
    "adm_upsampler_128_512": (
        512, 6, 6, 1000,
        ADM | dict(width=192, multipliers=LARGE, head_width=64, attention=(32, 16)), 308_835_270,
    ),
    # facebookresearch/flow_matching's CIFAR-10 example: guided-diffusion without resample layers.
    "flow_matching_cifar10": (
        32, 3, 3, 0,
        dict(multipliers=(2, 2, 2), blocks=4, resample="plain", scale_shift=True), 55_676_419,
    ),
    # Its ImageNet example is ADM with a row for "no label".
    "flow_matching_imagenet64": (
        64, 3, 3, 1000,
        ADM | dict(width=192, blocks=3, multipliers=(1, 2, 3, 4), head_width=64, null=True),
        295_900_035,
    ),
}  # fmt: skip

LDM = dict(time_embedding="sinusoidal_adm", norm_epsilon=1e-5, resample="conv_centred")
SD = LDM | dict(width=320, multipliers=(1, 2, 4, 4), attention=(64, 32, 16), transformer_depth=1)

# name: (size, input channels, output channels, channels of maps, width of tokens, settings, count)
LATENT = {
    "ldm_celebahq_vq_f4": (
        64, 3, 3, 0, 0,
        LDM | dict(width=224, multipliers=(1, 2, 3, 4), attention=(32, 16, 8), head_width=32),
        274_056_163,
    ),
    "ldm_imagenet_vq_f4": (  # cin256-v2: the class is one token
        64, 3, 3, 0, 512,
        LDM | dict(width=192, multipliers=(1, 2, 3, 5), attention=(32, 16, 8), transformer_depth=1),
        400_920_579,
    ),
    "ldm_imagenet_vq_f8": (
        32, 4, 4, 0, 512,
        LDM | dict(width=256, multipliers=(1, 2, 4), attention=(32, 16, 8), head_width=32,
                   transformer_depth=1),
        394_984_196,
    ),
    "ldm_text": (32, 4, 4, 0, 1280, SD | dict(attention=(32, 16, 8), heads=8), 872_300_484),
    "stable_diffusion_1": (64, 4, 4, 0, 768, SD | dict(heads=8), 859_520_964),
    # Inpainting: the latents of the masked image and the mask are maps.
    "stable_diffusion_1_inpainting": (64, 4, 4, 5, 768, SD | dict(heads=8), 859_535_364),
    "stable_diffusion_2": (64, 4, 4, 0, 1024, SD | dict(head_width=64), 865_910_724),
}  # fmt: skip


# One size of each kind of network; the others are slow.
QUICK = (
    "ddpm_cifar10", "iddpm_cifar10", "adm_imagenet64", "flow_matching_cifar10",
    "ldm_celebahq_vq_f4", "ldm_imagenet_vq_f8", "stable_diffusion_1_inpainting",
)  # fmt: skip


def each(names):
    return [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", each(LATENT))
def test_parameter_count_of_latent_diffusion_is_the_published_one(name):
    side, channels, out_channels, maps, width, settings, expected = LATENT[name]
    entries = {}
    if width:
        entries["text"] = Entry(kind="tokens", size=width, length=77, way="attend", null=False)
    if maps:
        entries["masked"] = Entry(kind="map", size=maps, way="concat", null=False)
    settings = UNetSettings(**settings, context_width=width)
    assert section_problems(settings, "network", (side, side, channels)) == []
    net = settings.build(out_channels=out_channels, entries=entries)
    inputs = jnp.zeros((1, side, side, channels)), jnp.zeros(1), {}
    params = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    assert tree.count(params) == expected


@pytest.mark.parametrize("name", each(PUBLISHED))
def test_parameter_count_is_the_published_one(name):
    side, channels, out_channels, classes, settings, expected = PUBLISHED[name]
    settings = dict(settings)
    entries = entry_of(classes, settings.pop("null", True))
    settings = UNetSettings(**settings)
    assert section_problems(settings, "network", (side, side, channels)) == []
    net = settings.build(out_channels=out_channels, entries=entries)
    inputs = (jnp.zeros((1, side, side, channels)), jnp.zeros(1), {})
    params = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    assert tree.count(params) == expected


def test_a_null_class_is_one_row_more():
    inputs = (jnp.zeros((1, 8, 8, 3)), jnp.zeros(1), {})
    settings = UNetSettings(width=16, multipliers=(1,), attention=())
    counts = []
    for null in (False, True):
        net = settings.build(out_channels=3, entries=entry_of(10, null))
        counts.append(tree.count(jax.eval_shape(net.init, jax.random.key(0), *inputs)))
    assert counts[1] - counts[0] == 4 * 16
