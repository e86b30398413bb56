"""Times DiT-B/2 and JiT-B/16 here and in torch, side by side on this machine.

    pip install torch==2.13.0 diffusers==0.42.1 -e .
    python tests/peers/transformer_speed.py [--rounds 6] [--measure dit_train] [--json FILE]

DiT-B/2 sees latents of 32 x 32 x 4 and is diffusers' in torch; JiT-B/16 sees images of 256 x 256
and is written below with torch's `scaled_dot_product_attention`. Both have a batch of 8 and 1000
classes. The training step of flow matching is forward, backward, clipping, Adam and the average of
the params. Both sides have as many params. float32 throughout; see side_by_side.py for the method.
"""

import math
import os
import sys

from side_by_side import Comparison, run

TINY = "--tiny" in sys.argv
BATCH = 2 if TINY else 8
CLASSES = 10 if TINY else 1000
# name -> (shape, settings, trained params)
NETWORKS = {
    "dit": ((32, 32, 4), dict(width=768, depth=12, heads=12, patch=2), 130_303_504),
    "jit": (
        (256, 256, 3),
        dict(width=768, depth=12, heads=12, patch=16, bottleneck=128, class_start=4),
        131_123_712,
    ),
}
if TINY:
    NETWORKS = {
        "dit": ((8, 8, 4), dict(width=16, depth=2, heads=2, patch=2), None),
        "jit": (
            (32, 32, 3),
            dict(width=16, depth=3, heads=2, patch=16, bottleneck=8, class_start=1),
            None,
        ),
    }
CLASS_TOKENS = 32
RATE, DECAY = 1e-4, 0.9999


def one_at_a_time(make):
    """Calls of both networks, of which only the one in use is in memory. make: name of a network ->
    {"train", "forward"}."""
    held = {}

    def call(name, measure):
        if name not in held:
            held.clear()
            held[name] = make(name)
        held[name][measure]()

    return {
        f"{name}_{measure}": lambda name=name, measure=measure: call(name, measure)
        for name in NETWORKS
        for measure in ("train", "forward")
    }


# --- genzoo ---------------------------------------------------------------------------------------


def genzoo_calls():
    return one_at_a_time(genzoo_network)


def genzoo_network(name):
    import jax
    import jax.numpy as jnp

    from genzoo.build import NETWORKS as ROWS
    from genzoo.builders.conditions import ConditionSettings
    from genzoo.builders.denoising import FlowScoring
    from genzoo.builders.flow_matching import FlowMatchingSettings
    from genzoo.builders.rows import Parts
    from genzoo.builders.sampling import ContinuousSampling
    from genzoo.core import streams, tree
    from genzoo.data.fields import Classes, Latents
    from genzoo.runtime.compilation import compile_program, run_once
    from genzoo.train.averages import Average
    from genzoo.train.optimizer import Optimizer, constant
    from genzoo.train.state import initial
    from genzoo.train.step import Updater

    shape, settings, params = NETWORKS[name]
    fields = {
        "x": Latents(shape=shape), "label": Classes(names=tuple(map(str, range(CLASSES))))
    }  # fmt: skip
    family = FlowMatchingSettings().build(
        Parts(
            shape=shape, levels=False, classes=0, fields=fields,
            conditions={"label": ConditionSettings(dropout=0.1)},
            network=ROWS[name].settings(**settings).build, inner=None,
            sample=ContinuousSampling(), eval=FlowScoring(), frozen={},
        )
    )  # fmt: skip
    batch = {"x": jnp.zeros((BATCH, *shape)), "label": jnp.arange(BATCH)}
    optimizers = {
        "model": Optimizer(method="adam", decay=constant, total_steps=10**6, learning_rate=RATE)
    }
    updater = Updater(
        family=family, optimizers=optimizers, averages={"ema": Average(decay=DECAY)},
        prepare=lambda batch, key: batch, root=streams.root(0), branch=True,
    )  # fmt: skip
    state = run_once(
        lambda: initial(family, optimizers, ("ema",), streams.root(0), batch)
    )
    assert params in (None, tree.count(state.params)), tree.count(state.params)
    held, stacked = {"state": state}, {k: v[None] for k, v in batch.items()}
    step = compile_program(
        jax.jit(updater.call, donate_argnums=(0,)).lower(state, {}, stacked)
    )
    x, t = jnp.ones((BATCH, *shape)), jnp.full((BATCH,), 500.0)
    conditions = family.gathered(_context(batch))
    apply = family.denoiser.network.apply
    ahead = compile_program(jax.jit(apply).lower(state.params, x, t, conditions))

    def train():
        held["state"], measured = step(held["state"], {}, stacked)
        jax.block_until_ready(measured)

    def forward():
        jax.block_until_ready(ahead(held["state"].params, x, t, conditions))

    return {"train": train, "forward": forward}


def _context(batch):
    import jax.numpy as jnp

    from genzoo.core import streams
    from genzoo.core.contract import Context

    return Context(batch=batch, key=streams.root(0), step=jnp.int32(0), stats={}, train=False)


# --- torch ----------------------------------------------------------------------------------------


def torch_calls(compiled):
    return one_at_a_time(lambda name: torch_network(name, compiled))


def torch_network(name, compiled):
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    shape, settings, count = NETWORKS[name]
    model = (dit if name == "dit" else jit)(shape, settings)
    params = list(model.parameters())
    assert count in (None, sum(p.numel() for p in params)), sum(p.numel() for p in params)
    run = torch.compile(model) if compiled else model
    average = [p.detach().clone() for p in params]
    adam = torch.optim.Adam(params, lr=RATE)
    x, labels = torch.zeros(BATCH, shape[-1], *shape[:-1]), torch.arange(BATCH)

    def train():
        model.train()
        t, noise = torch.rand(BATCH), torch.randn_like(x)
        part = t.view(-1, 1, 1, 1)
        loss = (run((1 - part) * x + part * noise, 1000 * t, labels) - (noise - x)).square()
        adam.zero_grad()
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, params, 1 - DECAY)

    @torch.no_grad()
    def forward():
        model.eval()
        run(torch.ones_like(x), torch.full((BATCH,), 500.0), labels)

    return {"train": train, "forward": forward}


def dit(shape, settings):
    """diffusers' DiT with one embedding of time and class for all blocks, as the authors have it;
    diffusers gives each block its own copy."""
    import torch
    from diffusers import DiTTransformer2DModel

    heads = settings["heads"]
    model = DiTTransformer2DModel(
        num_attention_heads=heads, attention_head_dim=settings["width"] // heads,
        in_channels=shape[-1], out_channels=shape[-1], num_layers=settings["depth"],
        sample_size=shape[0], patch_size=settings["patch"], num_embeds_ada_norm=CLASSES,
    )  # fmt: skip
    for block in model.transformer_blocks:
        block.norm1.emb = model.transformer_blocks[0].norm1.emb

    class Called(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x, time, labels):
            return self.model(x, timestep=time, class_labels=labels).sample

    return Called()


def jit(shape, settings):
    """JiT (Li & He 2025), as in genzoo/nets/transformer/jit.py."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    width, heads, patch = settings["width"], settings["heads"], settings["patch"]
    start, inner, side = settings["class_start"], width // heads, shape[0] // patch
    hidden, numbers = int(4 * width * 2 / 3), patch * patch * shape[-1]
    places = torch.stack(
        torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1
    ).reshape(-1, 2).float()  # fmt: skip

    def rotary(still):
        count = inner // 4
        frequencies = 10_000.0 ** (-torch.arange(count) / count)
        angles = (places[:, :, None] * frequencies).reshape(len(places), -1)
        angles = F.pad(angles, (0, inner // 2 - angles.shape[1], still, 0))
        cosine, sine = angles.cos(), angles.sin()
        return torch.cat([cosine, cosine], -1), torch.cat([-sine, sine], -1)

    def sincos():
        count = width // 4
        frequencies = 10_000.0 ** (-torch.arange(count) / count)
        angles = places.flip(-1)[:, :, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], -1).reshape(len(places), width)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm_0, self.norm_1 = (nn.RMSNorm(width, eps=1e-6) for _ in range(2))
            self.query_norm, self.key_norm = (nn.RMSNorm(inner, eps=1e-6) for _ in range(2))
            self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.expand, self.contract = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
            self.modulation = nn.Linear(width, 6 * width)

        def forward(self, h, features, by):
            shift_0, scale_0, gate_0, shift_1, scale_1, gate_1 = (
                self.modulation(features)[:, None].chunk(6, -1)
            )
            own = self.norm_0(h) * (1 + scale_0) + shift_0
            query, key, value = (
                part.unflatten(-1, (heads, inner)).transpose(1, 2)
                for part in self.query_key_value(own).chunk(3, -1)
            )
            cosine, sine = by
            query, key = (
                x * cosine + x.roll(inner // 2, -1) * sine
                for x in (self.query_norm(query), self.key_norm(key))
            )
            attended = F.scaled_dot_product_attention(query, key, value)
            h = h + gate_0 * self.out(attended.transpose(1, 2).flatten(-2))
            own = self.norm_1(h) * (1 + scale_1) + shift_1
            a, b = self.expand(own).chunk(2, -1)
            return h + gate_1 * self.contract(F.silu(a) * b)

    class JiT(nn.Module):
        def __init__(self):
            super().__init__()
            self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
            self.label = nn.Embedding(CLASSES + 1, width)
            self.entry_0 = nn.Linear(numbers, settings["bottleneck"], bias=False)
            self.entry_1 = nn.Linear(settings["bottleneck"], width)
            self.class_position = nn.Parameter(0.02 * torch.randn(CLASS_TOKENS, width))
            self.blocks = nn.ModuleList(Block() for _ in range(settings["depth"]))
            self.out_norm = nn.RMSNorm(width, eps=1e-6)
            self.out_modulation = nn.Linear(width, 2 * width)
            self.out = nn.Linear(width, numbers)
            for still, name in ((0, "plain"), (CLASS_TOKENS, "after")):
                for part, table in zip(("cosine", "sine"), rotary(still), strict=True):
                    self.register_buffer(f"{name}_{part}", table)
            self.register_buffer("table", sincos())
            self.register_buffer(
                "frequencies", torch.exp(-math.log(10_000) * torch.arange(128) / 128)
            )

        def forward(self, x, time, labels):
            angles = time[:, None] / 1000 * self.frequencies
            time = self.time(torch.cat([angles.cos(), angles.sin()], -1))
            if self.training:
                labels = torch.where(torch.rand(len(x)) < 0.1, CLASSES, labels)
            label = self.label(labels)
            features = F.silu(time + label)
            patches = x.unflatten(2, (side, patch)).unflatten(4, (side, patch))
            patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(len(x), side * side, numbers)
            h = self.entry_1(self.entry_0(patches)) + self.table
            by = self.plain_cosine, self.plain_sine
            for i, block in enumerate(self.blocks):
                if i == start:
                    h = torch.cat([self.class_position + label[:, None], h], 1)
                    by = self.after_cosine, self.after_sine
                h = block(h, features, by)
            shift, scale = self.out_modulation(features)[:, None].chunk(2, -1)
            h = self.out(self.out_norm(h[:, CLASS_TOKENS:]) * (1 + scale) + shift)
            h = h.reshape(len(x), side, side, patch, patch, shape[-1])
            return h.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)

    return JiT()


COMPARISON = Comparison(
    contenders={
        "genzoo": genzoo_calls,
        "torch_eager": lambda: torch_calls(False),
        "torch_compiled": lambda: torch_calls(True),
    },
    measures={
        f"{name}_{measure}": (calls, {"batch": BATCH})
        for name in NETWORKS
        for measure, calls in (("train", 2), ("forward", 4))
    },
)


if __name__ == "__main__":
    run(COMPARISON, __doc__, rounds=6, flags=("--tiny",))
