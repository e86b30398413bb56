"""The settings of KL autoencoders, which build the family."""

from dataclasses import dataclass, replace
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.adversarial import AdversarialSettings
from genzoo.builders.rows import Parts
from genzoo.core.bounds import AtLeast, Limit
from genzoo.core.contract import Family
from genzoo.core.size import Size
from genzoo.families import kl_autoencoder as family


@dataclass(frozen=True, kw_only=True)
class KLAutoencoderSettings(AdversarialSettings):
    """The autoencoder of latent diffusion: families/kl_autoencoder.py."""

    latent: Annotated[int, AtLeast(1), Limit(65_536), "Channels of the latents."] = 4
    kl_weight: Annotated[
        float, AtLeast(0), Limit(1e6), "Weight of the KL divergence, in nats for an image."
    ] = 1e-6

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        return self.judging_problems(config)

    def size(self, network: Size, parts: Parts) -> Size:
        """The size of the family. network: that of its networks."""
        del parts
        return replace(network, params=network.params + 1)

    def build(self, parts: Parts) -> Family:
        """Builds the family. Raises UserError if the critic or the perceptual distance does not
        take the data."""
        networks = parts.network(
            shape=parts.shape, latent=self.latent, critic=self.critic_weight > 0
        )
        return family.KLAutoencoder(
            pair=networks.pair,
            latent=self.latent,
            comparison=self.comparison(parts.shape),
            kl_weight=self.kl_weight,
            adversary=self.adversary(networks.critic),
        )
