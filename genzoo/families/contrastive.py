"""Contrastive encoders: two views of an image, or an image and its text, belong together.

Chen et al. 2020 (SimCLR), Radford et al. 2021 (CLIP), Zhai et al. 2023 (SigLIP). The losses are
those of math/contrastive.py, over all pairs of the batch:

    SimCLR   z = projector(encoder(view(x))) for two random views of each image              (1)
    CLIP     image tower(x) and text tower(text), compared at a learned temperature          (2)
    SigLIP   the same towers, with a learned bias                                            (3)

SimCLR's representation is the encoder's output, before the projector; that of (2) and (3) is the
unit vector of the image, which is compared with those of texts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.contract import Aux, Context, Player, Variables
from genzoo.core.types import (
    Array,
    Batch,
    Examples,
    Ids,
    Images,
    Key,
    Keys,
    PerExample,
    TokenMask,
    Tree,
    Vectors,
)
from genzoo.math import contrastive
from genzoo.nets.interface import FeatureNetwork, Network
from genzoo.nets.transformer.clip import Towers

IMAGE, TEXT = "x", "text"
"""The fields that CLIP compares."""
FIRST = 5
"""The second rank at which matches are counted."""

TwoViews = Callable[[Vectors, Vectors, PerExample | None], PerExample]
"""(unit embeddings a and b of two views, mask) -> the loss of each example [B]."""
Pairs = Callable[[Vectors, Vectors, Tree, PerExample | None], PerExample]
"""(unit embeddings of images and of texts, params, mask) -> the loss of each example [B]."""


def _accuracy(a: Vectors, b: Vectors, mask: PerExample | None) -> PerExample:
    return contrastive.matched(a, b, 1, mask)


@dataclass(frozen=True, kw_only=True, eq=False)
class SimCLR:
    """SimCLR, equation (1). Capability: Encodes.

    encoder: (x, time, no conditions) -> features [B, W]; the time is 0. projector: features -> the
    embedding that the loss compares. views: (images, key) -> a random view of each. objective: of
    two views.
    """

    encoder: FeatureNetwork
    projector: Network
    views: Callable[[Images, Key], Images]
    objective: TwoViews

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the encoder and the projector."""
        x = example[IMAGE]
        encoder = self.encoder.init(streams.named(key, "encoder"), x, jnp.zeros(len(x)), {})
        features = jnp.zeros((len(x), self.encoder.width))
        projector = self.projector.init(streams.named(key, "projector"), features)
        return Variables(params={"encoder": encoder, "projector": projector})

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model", which compares the examples of a batch."""
        return {"model": Player(loss=self.loss, couples_rows=True)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """The objective for each example [B]; metrics: accuracy, whether the other view of an
        image is the nearest among the second views of all images."""
        x, key = context.batch[IMAGE], context.key
        pair = [self.views(x, streams.named(key, name)) for name in ("first view", "second view")]
        both = jnp.concatenate(pair)
        drop = streams.named(key, "dropout") if context.train else None
        time = jnp.zeros(len(both), both.dtype)
        features = self.encoder.apply(
            params["encoder"], both, time, {}, train=context.train, key=drop
        )
        z = contrastive.unit(self.projector.apply(params["projector"], features))
        a, b = jnp.split(z, 2)
        values = self.objective(a, b, context.mask)
        metrics = {"accuracy": _accuracy(a, b, context.mask)}
        return values, Aux(metrics=metrics, stats=context.stats)

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Vectors:
        """The encoder's features of the unchanged images [B, W]."""
        del keys
        x = batch[IMAGE]
        return self.encoder.apply(variables.params["encoder"], x, jnp.zeros(len(x), x.dtype), {})


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoTowers:
    """CLIP and SigLIP, equations (2) and (3). Capabilities: Encodes, Retrieves, EncodesText.

    mask: ids [B, L] -> which of them are not padding. text_length: L. objective: of images and
    texts. start: the initial params of the objective, such as {"log_scale": 2.66}.
    """

    towers: Towers
    mask: Callable[[Array], Array]
    text_length: int
    objective: Pairs
    start: Mapping[str, float]

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the towers and of the objective."""
        ids = example[TEXT]
        image = self.towers.image.init(streams.named(key, "image"), example[IMAGE])
        text = self.towers.text.init(streams.named(key, "text"), ids, self.mask(ids))
        start = {name: jnp.float32(value) for name, value in self.start.items()}
        return Variables(params={"image": image, "text": text, "objective": start})

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model", which compares the examples of a batch."""
        return {"model": Player(loss=self.loss, couples_rows=True)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """The objective for each example [B]; metrics: whether each image's own text is the nearest
        of the batch, whether each text's own image is, and the objective's params."""
        drops = {
            name: streams.named(context.key, f"dropout {name}") if context.train else None
            for name in (IMAGE, TEXT)
        }
        images, texts = (
            self._embedded(params, context.batch, name, context.train, drops[name])
            for name in (IMAGE, TEXT)
        )
        values = self.objective(images, texts, params["objective"], context.mask)
        metrics = {
            "text_accuracy": _accuracy(images, texts, context.mask),
            "image_accuracy": _accuracy(texts, images, context.mask),
            **{k: jnp.broadcast_to(v, values.shape) for k, v in params["objective"].items()},
        }
        return values, Aux(metrics=metrics, stats=context.stats)

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Vectors:
        """The unit embeddings of the images [B, D]."""
        del keys
        return self.embed(variables, batch, IMAGE)

    def embed(self, variables: Variables, batch: Batch, name: str) -> Vectors:
        """The unit embeddings [B, D] of the field x or text; only that field is read."""
        return self._embedded(variables.params, batch, name, False, None)

    @property
    def text_width(self) -> int:
        """The width of the text tower."""
        return self.towers.text_width

    def text_features(self, variables: Variables, ids: Ids, mask: TokenMask) -> Examples:
        """The text tower's tokens [B, L, W] for ids [B, L], before one of them is chosen."""
        rest = ((0, 0), (0, self.text_length - ids.shape[1]))  # the tower has positions for all
        padded = jnp.pad(ids, rest), jnp.pad(mask, rest)
        params = variables.params["text"]
        _, inner = self.towers.text.features(params, *padded, names=("blocks",))
        return inner["blocks"][:, : ids.shape[1]]

    def _embedded(
        self, params: Tree, batch: Batch, name: str, train: bool, key: Key | None
    ) -> Vectors:
        if name == IMAGE:
            embedding = self.towers.image.apply(params["image"], batch[IMAGE], train=train, key=key)
        else:
            ids = batch[TEXT]
            embedding = self.towers.text.apply(
                params["text"], ids, self.mask(ids), train=train, key=key
            )
        return contrastive.unit(embedding)


# --- objectives -----------------------------------------------------------------------------------


def nt_xent(temperature: float) -> TwoViews:
    """SimCLR's objective."""

    def objective(a: Vectors, b: Vectors, mask: PerExample | None) -> PerExample:
        return contrastive.nt_xent(a, b, temperature, mask)

    return objective


def info_nce(a: Vectors, b: Vectors, params: Tree, mask: PerExample | None) -> PerExample:
    """CLIP's objective; params: {"log_scale"}, bounded so that the scale is at most 100."""
    largest = jnp.float32(contrastive.LARGEST_SCALE)
    scale = jnp.exp(contrastive.bounded(params["log_scale"], largest))
    return contrastive.info_nce(a, b, scale, mask)


def pairwise_sigmoid(a: Vectors, b: Vectors, params: Tree, mask: PerExample | None) -> PerExample:
    """SigLIP's objective; params: {"log_scale", "bias"}. The authors do not bound its scale."""
    scale = jnp.exp(params["log_scale"])
    return contrastive.pairwise_sigmoid(a, b, scale, params["bias"], mask)
