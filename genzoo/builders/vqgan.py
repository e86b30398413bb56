"""The settings of VQGAN, which build the family."""

from dataclasses import dataclass
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.adversarial import AdversarialSettings
from genzoo.builders.rows import Parts
from genzoo.builders.vqvae import CodebookSettings
from genzoo.core.bounds import AtLeast, Limit
from genzoo.core.contract import Family
from genzoo.core.size import Size
from genzoo.families import vqgan as family
from genzoo.families.vqvae import VQVAE


@dataclass(frozen=True, kw_only=True)
class VQGANSettings(CodebookSettings, AdversarialSettings):
    """VQGAN: families/vqgan.py."""

    codes: Annotated[int, AtLeast(2), Limit(1_000_000), "Number of codes."] = 1024

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        return [*self.codebook_problems(config), *self.judging_problems(config)]

    def size(self, network: Size, parts: Parts) -> Size:
        """The size of the family, with its codebook. network: that of its networks."""
        del parts
        return self.with_codes(network, (self.codes,))

    def build(self, parts: Parts) -> Family:
        """Builds the family. Raises UserError if the critic or the perceptual distance does not
        take the data."""
        networks = parts.network(
            shape=parts.shape, latent=self.latent, critic=self.critic_weight > 0
        )
        return family.VQGAN(
            quantiser=VQVAE(
                network=networks.autoencoder,
                sizes=(self.codes,),
                codebook=self.codes_by(),
                shape=parts.shape,
                commitment=self.commitment,
                data_variance=1.0,
            ),
            comparison=self.comparison(parts.shape),
            adversary=self.adversary(networks.critic),
        )
