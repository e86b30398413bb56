"""The settings of VQGAN, which build the family."""

from dataclasses import dataclass

from ml_collections import FrozenConfigDict

from genzoo.builders.adversarial import AdversarialSettings
from genzoo.builders.rows import Parts
from genzoo.builders.vqvae import QuantiserSettings
from genzoo.core.contract import Family
from genzoo.core.size import Size
from genzoo.families import vqgan as family


@dataclass(frozen=True, kw_only=True)
class VQGANSettings(QuantiserSettings, AdversarialSettings):
    """VQGAN, with one grid of codes: families/vqgan.py."""

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        return [*self.codes_problems(config), *self.judging_problems(config)]

    def size(self, network: Size, parts: Parts) -> Size:
        """The size of the family, with its codebook. network: that of its networks."""
        del parts
        return self.with_codes(network)

    def build(self, parts: Parts) -> Family:
        """Builds the family. Raises UserError if the critic or the perceptual distance does not
        take the data."""
        networks = parts.network(
            shape=parts.shape, latent=self.width, critic=self.critic_weight > 0
        )
        return family.VQGAN(
            autoencoder=self.quantised(networks.autoencoder, parts.shape),
            comparison=self.comparison(parts.shape),
            adversary=self.adversary(networks.critic),
        )
