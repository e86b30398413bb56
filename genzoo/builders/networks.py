"""The table of networks: what "unet" in a config means."""

from collections.abc import Mapping

from genzoo.builders.rows import NetworkRow
from genzoo.data.counts import Counts
from genzoo.data.fields import Image, Points, Signal
from genzoo.nets.autoencoder.convnet import ConvSettings
from genzoo.nets.autoencoder.dalle import DalleSettings
from genzoo.nets.autoencoder.hierarchy import HierarchySettings
from genzoo.nets.autoencoder.latent import KLSettings, VQSettings
from genzoo.nets.autoencoder.pair import MLPSettings
from genzoo.nets.gan.settings import R3GANSettings
from genzoo.nets.point_mlp import PointMLPSettings
from genzoo.nets.transformer.clip import CLIPSettings
from genzoo.nets.transformer.dit import DiTSettings
from genzoo.nets.transformer.jit import JiTSettings
from genzoo.nets.transformer.mae import MAESettings
from genzoo.nets.transformer.mmdit import MMDiTSettings
from genzoo.nets.transformer.text_transformer import TextTransformerSettings, WordTableSettings
from genzoo.nets.transformer.transformer import TransformerSettings
from genzoo.nets.transformer.vision import ViTSettings
from genzoo.nets.unet.classifier import ClassifierUNetSettings
from genzoo.nets.unet.song_unet import SongUNetSettings
from genzoo.nets.unet.unet import UNetSettings
from genzoo.nets.unet.vdm_unet import VDMUNetSettings

NETWORKS: Mapping[str, NetworkRow] = {
    "unet": NetworkRow(settings=UNetSettings, kinds=(Image, Signal)),
    "song_unet": NetworkRow(settings=SongUNetSettings, kinds=(Image, Signal)),
    "vdm_unet": NetworkRow(settings=VDMUNetSettings),
    "dit": NetworkRow(settings=DiTSettings, kinds=(Image, Signal)),
    "mmdit": NetworkRow(settings=MMDiTSettings, kinds=(Image, Signal)),
    "jit": NetworkRow(settings=JiTSettings, kinds=(Image, Signal)),
    "point_mlp": NetworkRow(settings=PointMLPSettings, kinds=(Points,)),
    "classifier": NetworkRow(settings=ClassifierUNetSettings),
    "vit": NetworkRow(settings=ViTSettings),
    "mae": NetworkRow(settings=MAESettings),
    "clip": NetworkRow(settings=CLIPSettings),
    "text_transformer": NetworkRow(settings=TextTransformerSettings, kinds=(Image, Signal)),
    "word_table": NetworkRow(settings=WordTableSettings, kinds=(Image, Signal)),
    "mlp": NetworkRow(settings=MLPSettings, kinds=(Image, Counts)),
    "conv": NetworkRow(settings=ConvSettings),
    "hierarchy": NetworkRow(settings=HierarchySettings),
    "dalle": NetworkRow(settings=DalleSettings),
    "autoencoder_kl": NetworkRow(settings=KLSettings),
    "vqgan": NetworkRow(settings=VQSettings),
    "transformer": NetworkRow(settings=TransformerSettings),
    "r3gan": NetworkRow(settings=R3GANSettings),
}
