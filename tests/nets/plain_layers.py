"""Reference layers for signals [B, L, C] in plain NumPy, float64."""

import numpy as np


def silu(x):
    return x / (1 + np.exp(-x))


def dense(x, p):
    return x @ p["kernel"] + p.get("bias", 0.0)


def conv(x, p):
    """A convolution with an odd window and zero padding, of the same length as the signal."""
    kernel, bias = p["conv"]["kernel"], p["conv"]["bias"]
    reach, length = len(kernel) // 2, x.shape[1]
    padded = np.pad(x, ((0, 0), (reach, reach), (0, 0)))
    return bias + sum(padded[:, k : k + length] @ kernel[k] for k in range(len(kernel)))


def norm(x, p, groups, epsilon=1e-6):
    """GroupNorm: statistics over all positions and a group of neighbouring channels."""
    parts = []
    for part in np.split(x, groups, -1):
        mean, variance = part.mean((1, 2), keepdims=True), part.var((1, 2), keepdims=True)
        parts.append((part - mean) / np.sqrt(variance + epsilon))
    return np.concatenate(parts, -1) * p["scale"] + p["bias"]


def block(x, condition, p, *, groups, scale=1.0, resize=None):
    """scale (shortcut + residual); the shortcut has a convolution if the channels change."""
    resized = resize or (lambda v: v)
    h = conv(resized(silu(norm(x, p["norm_0"], groups))), p["conv_0"])
    h = h + dense(silu(condition), p["condition"])[:, None]
    h = conv(silu(norm(h, p["norm_1"], groups)), p["conv_1"])
    short = resized(x)
    if resize or short.shape[-1] != h.shape[-1]:
        short = conv(short, p["shortcut"])
    return scale * (short + h)


def softmax_attention(query, key, value):
    """[B, N, D] each, one head."""
    logits = np.einsum("bnd,bmd->bnm", query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ value


def attention(x, p, *, groups, scale=1.0):
    """scale (x + attention(norm(x))) with one head."""
    h = dense(norm(x, p["norm"], groups), p["query_key_value"])
    return scale * (x + dense(softmax_attention(*np.split(h, 3, -1)), p["out"]))


def sinusoids(time, width):
    """Sines, then cosines, of frequencies from 1 to 1 / 10000."""
    angles = time[:, None] * np.geomspace(1, 1e-4, width // 2)
    return np.concatenate([np.sin(angles), np.cos(angles)], -1)
