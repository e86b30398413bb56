"""Times sampling from the transformer prior against a torch loop with a key-value cache.

    pip install torch==2.13.0
    python tests/peers/prior_sampling.py [rounds]

Both have the same network with the same random weights (width 256, 6 blocks, 8 heads, 512 codes,
8 x 8 positions, 32 sequences, float32). torch writes keys and values into preallocated tensors and
attends to those written so far with scaled_dot_product_attention, under inference_mode. First the
greedy sequences of both are compared; then they take turns at random sampling.
"""

import os
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from genzoo.core import streams
from genzoo.math.tokens import Truncation
from genzoo.nets.transformer.transformer import TransformerSettings
from genzoo.runtime.compilation import compile_program
from genzoo.samplers.autoregressive import generate

CODES, LENGTH, BATCH, WIDTH, DEPTH, HEADS = 512, 64, 32, 256, 6, 8


def jax_sampler(network, params, truncate):
    """keys -> tokens [B, N], compiled."""

    def draw(keys):
        def step(cache, token, position):
            return network.step(params, cache, token, position, {})

        first = jnp.zeros(BATCH, jnp.int32)
        return generate(step, network.new_cache(BATCH), keys, LENGTH, truncate, first)

    keys = streams.per_example(jax.random.key(0), jnp.arange(BATCH))
    program = compile_program(jax.jit(draw).lower(keys))
    return lambda: np.asarray(program(keys))


def torch_sampler(params, greedy):
    """() -> tokens [B, N]."""
    weights = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf)), params)

    def dense(part, x):
        return x @ part["kernel"] + part["bias"]

    def norm(part, x):
        return F.layer_norm(x, (WIDTH,), part["scale"], part["bias"], 1e-5)

    shape = (DEPTH, 2, BATCH, HEADS, LENGTH, WIDTH // HEADS)
    cache = torch.zeros(shape)

    @torch.inference_mode()
    def draw():
        tokens = torch.zeros(BATCH, LENGTH, dtype=torch.long)
        h = weights["start"].expand(BATCH, WIDTH)
        for position in range(LENGTH):
            h = h + weights["position"][position]
            for i in range(DEPTH):
                block = weights[f"block_{i}"]
                fused = dense(block["query_key_value"], norm(block["norm_0"], h))
                query, key, value = fused.view(BATCH, 3, HEADS, 1, -1).unbind(1)
                cache[i, 0, :, :, position] = key[:, :, 0]
                cache[i, 1, :, :, position] = value[:, :, 0]
                seen = cache[i, :, :, :, : position + 1]
                attended = F.scaled_dot_product_attention(query, seen[0], seen[1])
                h = h + dense(block["out"], attended.reshape(BATCH, WIDTH))
                wide = F.gelu(dense(block["expand"], norm(block["norm_1"], h)), approximate="tanh")
                h = h + dense(block["contract"], wide)
            logits = norm(weights["norm"], h) @ weights["kernel"] + weights["bias"]
            shares = logits.softmax(-1)
            token = shares.argmax(-1) if greedy else torch.multinomial(shares, 1)[:, 0]
            tokens[:, position] = token
            h = weights["embed"]["embedding"][token]
        return tokens.numpy()

    return draw


def main(rounds: int) -> None:
    settings = TransformerSettings(width=WIDTH, depth=DEPTH, heads=HEADS)
    network = settings.build(vocabularies=(CODES,), lengths=(LENGTH,), entries={})
    tokens = jnp.zeros((1, LENGTH), jnp.int32)
    params = network.init(jax.random.key(0), tokens, None, {})
    # Ten times the initial weights make the choices clear, so that both choose the same codes.
    params = jax.tree.map(lambda leaf: leaf * 10 if leaf.ndim > 1 else leaf, params)
    greedy = jax_sampler(network, params, Truncation(temperature=0.0))()
    same = (greedy == torch_sampler(params, greedy=True)()).mean()
    print(f"greedy codes that agree: {same:.1%}")
    calls = {
        "genzoo": jax_sampler(network, params, Truncation()),
        "torch": torch_sampler(params, greedy=False),
    }
    seconds = {name: [] for name in calls}
    random = np.random.default_rng(0)
    for turn in range(rounds + 1):
        for name in random.permutation(list(calls)):
            start = time.perf_counter()
            calls[name]()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        print(f"{name}: {np.median(times):.3f} s ({min(times):.3f} to {max(times):.3f})")
    ratio = np.array(seconds["torch"]) / np.array(seconds["genzoo"])
    print(f"torch / genzoo: {np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
