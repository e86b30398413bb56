"""Variational autoencoders with one or more stochastic layers.

The VAE (Kingma & Welling 2014; Rezende et al. 2014), beta-VAE (Higgins et al. 2017), two stochastic
layers, and the importance-weighted autoencoder (Burda et al. 2016).

The stochastic layers are l = 0 .. L - 1, starting next to the data, with z_{-1} = x and
p(z_{L-1}) = N(0, I):

    log w = log p(x | z_0) - sum_l [log q(z_l | z_{l-1}) - log p(z_l | z_{l+1})]              (1)
    elbo  = -E log p(x | z_0) + beta warmup(step) sum_l KL_l                                  (2)
    iwae  = -E log 1/K sum_k w_k                                                              (3)

In (2) the KL of the last layer is in closed form; those of the others are the differences in (1).
With free bits (Kingma et al. 2016) each unit whose KL, averaged over the batch, is below a floor
counts as the floor, so that the loss of an example depends on the others of its batch.

For documents (Miao et al. 2016) x holds the counts of N words, and the bound is also reported as
perplexity per word, over all words (4) or, as in the paper, with equal weights of documents (5):

    perplexity = exp(sum_d -elbo_d / sum_d N_d)                                               (4)
    perplexity_by_document = exp(mean_d -elbo_d / N_d)                                        (5)

where (5) leaves out documents without words.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genzoo.core import streams
from genzoo.core.conditions import Conditions
from genzoo.core.contract import Aux, Context, Likelihood, Player, Report, Variables, Weighted
from genzoo.core.reports import scalars
from genzoo.core.types import (
    ArrayLike,
    Batch,
    Examples,
    Floats,
    Key,
    Keys,
    PerExample,
    Stack,
    Tree,
    Vectors,
)
from genzoo.math import variational
from genzoo.math.counts import Multinomial
from genzoo.math.observation import Observation
from genzoo.nets.autoencoder.pair import Pair

_MAX_OUTPUTS = 1 << 23  # decoder outputs at a time, in the bound with many samples
_SCORED = "the words of a document: see the perplexity per word; it has no bits/dim"
_MAX_LISTED = 256  # up to this many units, the KL of each is logged


PerSample = Float[ArrayLike, "K B"]
"""One number for each of K samples of each example, [K, B]."""


class Seen(NamedTuple):
    """The terms of a batch for K samples of its latents, in nats."""

    log_prob: PerSample  # log p(x | z_0)
    ratios: tuple[Stack, ...]  # log q - log p of each layer [K, B, D_l]
    closed: Stack  # the last layer's KL in closed form [K, B, D] (K may be 1)
    means: tuple[Stack, ...]  # the posterior means of each layer [K, B, D_l] (K may be 1)

    @property
    def log_weights(self) -> PerSample:
        """Equation (1) [K, B]."""
        return self.log_prob - sum(ratio.sum(-1) for ratio in self.ratios)

    @property
    def kl(self) -> Vectors:
        """The KL of every unit, averaged over samples [B, D_0 + D_1 + ..]."""
        parts = [ratio.mean(0) for ratio in self.ratios[:-1]]
        return jnp.concatenate([*parts, self.closed.mean(0)], -1)

    @property
    def kl_per_sample(self) -> PerSample:
        """The KL over all units [K, B]."""
        lower = sum(ratio.sum(-1) for ratio in self.ratios[:-1])
        return jnp.broadcast_to(lower + self.closed.sum(-1), self.log_prob.shape)


Objective = Callable[["VAE", Seen, Context], PerExample]


def elbo(family: "VAE", seen: Seen, context: Context) -> PerExample:
    """Equation (2), [B]."""
    kl = seen.kl
    if family.free_bits:
        kl = variational.free_bits(kl, family.free_bits, context.mask)
    return -seen.log_prob.mean(0) + family.beta * family.warmup(context.step) * kl.sum(-1)


def iwae(family: "VAE", seen: Seen, context: Context) -> PerExample:
    """Equation (3), [B]."""
    del family, context
    return -variational.log_mean_exp(seen.log_weights)


@dataclass(frozen=True, kw_only=True, eq=False)
class VAE:
    """The VAE family. Capabilities: Samples, Reconstructs, Observes, Encodes, Decodes, Compresses,
    Likelihoods.

    pairs: encoder, decoder and grid by stochastic layer. latents: channels by layer, at each place
    of the grid. shape: of one example, (H, W, C). observation: p(x | decoder output). objective:
    (2) or (3). samples: K in training. beta, warmup: the weight of the KL in (2). free_bits: the
    least nats per unit in the mean over a batch, 0 for no bound. importance_samples: K in
    evaluation. noise: whether samples are drawn from the decoder's distribution instead of its
    mean.
    """

    pairs: tuple[Pair, ...]
    latents: tuple[int, ...]
    shape: tuple[int, ...]
    observation: Observation
    objective: Objective
    samples: int
    beta: float
    warmup: variational.Warmup
    free_bits: float
    importance_samples: int
    noise: bool

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params by layer: encoder_0, decoder_0, ..., and the observation model's own."""
        params, inputs = {"observation": self.observation.init()}, example["x"]
        count = len(inputs)
        for layer, (pair, width) in enumerate(zip(self.pairs, self.latents, strict=True)):
            latent = jnp.zeros((count, *pair.grid, width))
            for name, net, net_input in (
                (f"encoder_{layer}", pair.encoder, inputs),
                (f"decoder_{layer}", pair.decoder, latent),
            ):
                params[name] = net.init(streams.named(key, name), net_input)
            inputs = latent.reshape(count, -1)
        return Variables(params=params)

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model"; free bits couple the rows."""
        return {"model": Player(loss=self.loss, couples_rows=self.free_bits > 0)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """The objective in nats per example [B].

        Metrics: the loss, its terms, and the KL, mean and square of each unit, which `report`
        summarises.
        """
        x, key = context.batch["x"], context.key
        x = self.observation.observe(x, jax.random.uniform(streams.named(key, "levels"), x.shape))
        noise = [
            jax.random.normal(streams.named(key, f"noise {i}"), (self.samples, len(x), units))
            for i, units in enumerate(self.units)
        ]
        drop = streams.named(key, "dropout") if context.train else None
        train = {"train": context.train, "key": drop}
        seen = self._see(params, x, noise, **train)
        losses = self.objective(self, seen, context)
        means = self._joined(seen.means)
        # The posterior of a second layer depends on a sample of the first, whose noise would count
        # as variance over the data. The product with an independent draw is free of it on average.
        other = means
        if len(self.pairs) > 1:
            fresh = jax.random.normal(streams.named(key, "fresh noise"), noise[0].shape)
            q, _ = self._upwards(params, x, [fresh, *noise[1:]])
            other = self._joined(one.mean for one in q)
        metrics = {
            "loss": losses,
            "reconstruction": -seen.log_prob.mean(0),
            "kl": seen.kl.sum(-1),
            "kl_per_unit": seen.kl,
            "unit_mean": (means + other) / 2,
            "unit_square": means * other,
        }
        if self._of_words:
            nats, total = metrics["reconstruction"] + metrics["kl"], x.sum(-1)
            each = Weighted(values=nats / jnp.maximum(total, 1), weights=jnp.minimum(total, 1))
            metrics |= {"words": total, "nats_per_word": each}
        return losses, Aux(metrics=metrics, stats=context.stats)

    def report(self, measured: Mapping[str, Floats]) -> Report:
        """Active units by layer, the KL of each unit, and a warning of posterior collapse; for
        documents also the perplexities (4) and (5)."""
        values: dict = scalars(measured)
        if measured.get("words", 0) > 0:
            nats = measured["reconstruction"] + measured["kl"]
            values["perplexity"] = float(np.exp(nats / measured["words"]))
            values["perplexity_by_document"] = float(np.exp(values.pop("nats_per_word")))
        if "unit_mean" not in measured:
            return Report(values=values)
        variance = measured["unit_square"] - np.square(measured["unit_mean"])
        edges = np.cumsum((0, *self.units))
        active = [int((variance[a:b] > variational.ACTIVE).sum()) for a, b in pairwise(edges)]
        for layer, count in enumerate(active):
            values["active_units" + (f"_{layer}" if layer else "")] = count
        if len(variance) <= _MAX_LISTED:
            values["kl_per_unit"] = np.asarray(measured["kl_per_unit"]).tolist()
        warnings = {}
        for layer, (a, b) in enumerate(pairwise(edges)):
            nats = float(np.sum(measured["kl_per_unit"][a:b]))
            if active[layer] and (active[layer] >= 0.05 * (b - a) or nats > 2):
                continue
            where = f" of layer {layer}" if len(self.pairs) > 1 else ""
            warnings[f"collapse_{layer}"] = (
                f"Posterior collapse: {active[layer]} of {b - a} latent units{where} are active "
                f"(KL {nats:.3g} nats), so the decoder nearly ignores them: their KL costs more "
                "than they save in reconstruction. Remedies: a lower family.beta, family.warmup = "
                "'linear' over more family.warmup_steps, family.free_bits above 0, or a "
                "reconstruction term that counts more (a smaller family.std)."
            )
        return Report(values=values, warnings=warnings)

    def sample(self, variables: Variables, keys: Keys, conditions: Conditions) -> Examples:
        """Samples [B, ...] in [-1, 1], drawn from the top latent downwards."""
        del conditions
        top = len(self.pairs) - 1
        latent = streams.normal(streams.fold(keys, top), (self.units[top],))
        for layer in range(top, 0, -1):
            p = variational.diagonal(self._decoded(variables.params, layer, latent))
            noise = streams.normal(streams.fold(keys, layer - 1), (self.units[layer - 1],))
            latent = variational.reparameterise(p, noise)
        output, own = self._decoded(variables.params, 0, latent), variables.params["observation"]
        if self.noise:
            return self.observation.sample(own, output, streams.fold(keys, len(self.pairs)))
        return self.observation.mean(own, output)

    def observe(self, batch: Batch, keys: Keys) -> Examples:
        """The data as the observation model sees them (binarised for a Bernoulli decoder)."""
        x = batch["x"]
        return self.observation.observe(x, streams.uniform(keys, x.shape[1:]))

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Vectors:
        """The mean of q(z_0 | x): [B, D_0]."""
        inputs = self.observation.inputs(self.observe(batch, keys))
        return self._posterior(variables.params, 0, inputs).mean

    def decode(self, variables: Variables, latent: Vectors) -> Examples:
        """The mean of p(x | z_0), where z_0 is `latent` [B, D_0]."""
        output = self._decoded(variables.params, 0, latent)
        return self.observation.mean(variables.params["observation"], output)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(*grid, D) of z_0."""
        return (*self.pairs[0].grid, self.latents[0])

    def moments(self, variables: Variables, batch: Batch) -> tuple[Floats, Floats]:
        """The mean and deviation of q(z_0 | x) on its grid. What sees binarised data is shown them
        with white above 1/2."""
        x = self.observation.observe(batch["x"], jnp.full(batch["x"].shape, 0.5))
        q = self._posterior(variables.params, 0, self.observation.inputs(x))
        shape = (len(x), *self.latent_shape)
        return q.mean.reshape(shape), jnp.exp(q.log_variance / 2).reshape(shape)

    def decode_latents(self, variables: Variables, latents: Floats) -> Examples:
        """The mean of p(x | z_0), where z_0 is `latents` [B, *grid, D]."""
        return self.decode(variables, latents.reshape(len(latents), -1))

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Examples:
        """The decoded posterior mean."""
        return self.decode(variables, self.encode(variables, batch, keys))

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """-L_K in nats per example with K = importance_samples, streamed over the samples.

        For K = 1 it is -ELBO. Its terms are those of the ELBO and the gain from importance weights.
        """
        x, total = self.observe(batch, streams.fold(keys, 0)), self.importance_samples
        outputs = int(np.prod(self.shape[:-1])) * self.observation.outputs(self.shape[-1])
        chunks = -(-total // max(_MAX_OUTPUTS // (len(x) * outputs), 1))
        chunk = -(-total // chunks)
        share = chunks * chunk / total  # corrects the means, as the last chunk may not be full

        def draw(index):
            # One key per sample, so that the size of the chunks affects memory alone.
            numbers = index * chunk + jnp.arange(chunk)
            real = (numbers < total)[:, None]

            def noise(layer, units):
                return jax.vmap(
                    lambda n: streams.normal(streams.fold(streams.fold(keys, 1 + n), layer), units)
                )(numbers)

            each = [noise(layer, (units,)) for layer, units in enumerate(self.units)]
            seen = self._see(variables.params, x, each)
            terms = {"reconstruction": -seen.log_prob, "kl": seen.kl_per_sample}
            means = {k: share * jnp.where(real, v, 0).mean(0) for k, v in terms.items()}
            return jnp.where(real, seen.log_weights, -jnp.inf), means

        bound, terms = variational.streamed_log_mean_exp(draw, chunks)
        bound = bound + np.log(share)
        if total > 1:
            terms["importance"] = -bound - sum(terms.values())
        return Likelihood(
            total=sum(terms.values()),
            terms=terms,
            density=self.observation.density or self._of_words,
            of=_SCORED if self._of_words else "",
        )

    # --- shared by the methods above -----------------------------------------------------------

    @property
    def units(self) -> tuple[int, ...]:
        """Latent units by layer."""
        both = zip(self.pairs, self.latents, strict=True)
        return tuple(int(np.prod(pair.grid, dtype=int)) * width for pair, width in both)

    @property
    def _of_words(self) -> bool:
        """Whether the data are word counts."""
        return isinstance(self.observation, Multinomial)

    def _see(self, params, x, noise, train=False, key=None) -> Seen:
        """The terms for x [B, ...] with latents from the noise [K, B, D_l] of each layer."""
        posteriors, latents = self._upwards(params, x, noise, train, key)
        zero = jnp.zeros(())
        priors = [
            variational.diagonal(self._decoded(params, layer + 1, above, train, key))
            for layer, above in enumerate(latents[1:])
        ] + [variational.Diagonal(zero, zero)]
        output = self._decoded(params, 0, latents[0], train, key)
        log_prob = self.observation.log_prob(params["observation"], output, x)
        return Seen(
            log_prob=log_prob.reshape(*log_prob.shape[:2], -1).sum(-1),
            ratios=tuple(map(variational.log_ratio, latents, posteriors, priors)),
            closed=variational.standard_kl(posteriors[-1]),
            means=tuple(q.mean for q in posteriors),
        )

    def _upwards(self, params, x, noise, train=False, key=None) -> tuple[list, list]:
        """The posteriors of all layers and samples from them, from the data up."""
        inputs, posteriors, latents = self.observation.inputs(x), [], []
        for layer, eps in enumerate(noise):
            q = self._posterior(params, layer, inputs, train, key)
            if layer == 0:
                q = variational.Diagonal(*(value[None] for value in q))
            inputs = variational.reparameterise(q, eps)
            posteriors.append(q)
            latents.append(inputs)
        return posteriors, latents

    def _joined(self, means) -> Vectors:
        """The means [K, B, D_l] of all layers, averaged over samples and concatenated."""
        return jnp.concatenate([mean.mean(0) for mean in means], -1)

    def _posterior(self, params, layer, inputs, train=False, key=None) -> variational.Diagonal:
        """q(z_l | inputs), means and log variances [..., D_l]."""
        network = self.pairs[layer].encoder
        lead = inputs.shape[: inputs.ndim - (1 if layer else len(self.shape))]
        flat = inputs.reshape(-1, *inputs.shape[len(lead) :])
        output = network.apply(params[f"encoder_{layer}"], flat, train=train, key=key)
        return variational.Diagonal(
            *(value.reshape(*lead, -1) for value in variational.diagonal(output))
        )

    def _decoded(self, params, layer, latent, train=False, key=None) -> Floats:
        """The decoder's output for latents [..., D_l]."""
        lead, network = latent.shape[:-1], self.pairs[layer].decoder
        flat = latent.reshape(-1, *self.pairs[layer].grid, self.latents[layer])
        output = network.apply(params[f"decoder_{layer}"], flat, train=train, key=key)
        return output.reshape(*lead, *output.shape[1:])
