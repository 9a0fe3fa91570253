"""Contrastive learning of feature embeddings."""

from typing import Any

import tensorflow as tf
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.losses.info_nce import unit_vectors
from ctr_keras.models.auxiliary.base_model import check_losses_apart
from ctr_keras.models.auxiliary.field_encoder import FieldEncoder
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.saved_seed import SavedSeed
from ctr_keras.models.wrapping_model import WrappingModel

MASKS = ("random", "feature", "dimension")


@export
class CL4CTR(WrappingModel):
    """Trains a base model with three losses on its feature embeddings.

        contrastive:  mean_rows ||h(mask_1 * E) - h(mask_2 * E)||^2,   h = projection(encoder(E))
        alignment:    mean_fields mean_(i, j) ||e_i - e_j||^2          within a field
        uniformity:   mean_(f, g) mean_(i, j) cos(e_i, e_j)            between two fields
        loss        = ctr_loss + contrastive_weight * contrastive_loss
                      + alignment_weight * (alignment_loss + uniformity_loss)

    `E` are the feature embeddings of a row `(fields, dim)`; the encoder of feature interactions,
    shared by both masked views, is a stack of transformer layers. The paper's alignment and
    uniformity run over whole tables; here over the embeddings of the batch, which cost the same
    whatever the size of the tables. Both are computed in closed form, without the pairs. The
    probability and the exported SavedModel are the base's.

    Args:
        base: A model of this package with at least two features.
        contrastive_weight: Weight of the contrastive loss; 0 leaves it out.
        alignment_weight: Weight of alignment and uniformity; 0 leaves them out.
        mask: What a view hides: `"random"` numbers, whole `"feature"`s, or a `"dimension"` of all.
        mask_rate: Share that is hidden.
        num_layers: Layers of the encoder.
        seed: Seed of the masks.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Example:

    >>> model = ck.models.CL4CTR(ck.models.DeepFM(schema, embedding_dim=16))
    >>> model.compile(ck.optimizers.LazyAdam(1e-3))

    Reference:
        [Wang et al., 2023: CL4CTR](https://arxiv.org/abs/2212.00522)
    """

    def __init__(
        self,
        base: CTRModel,
        contrastive_weight: float = 1.0,
        alignment_weight: float = 0.01,
        mask: str = "random",
        mask_rate: float = 0.1,
        num_layers: int = 3,
        seed: int | None = None,
        **kwargs: Any,
    ):
        if mask not in MASKS:
            raise ValueError(f"`mask` must be one of {MASKS}. Received: `mask={mask!r}`")
        if not 0 < mask_rate < 1:
            raise ValueError(f"`mask_rate` must be in (0, 1). Received: `mask_rate={mask_rate}`")
        if not isinstance(base, CTRModel):
            raise TypeError(f"`base` must be a model of ctr_keras. Received: `base={base!r}`")
        fields = base.tensors.get("fields")
        if fields is None or fields.shape[1] < 2:
            raise ValueError(
                "CL4CTR needs a base with a tensor `fields`, (batch, number, dim), of at least two "
                f"features. Received: `base={base.name!r}` with {sorted(base.tensors)}"
            )
        weights = {
            "contrastive_loss": contrastive_weight,
            "alignment_loss": alignment_weight,
            "uniformity_loss": alignment_weight,
        }
        check_losses_apart(base, weights)
        super().__init__(
            base.schema,
            base.input,
            base.tensors["logit"],
            base.tensors,
            {**base.auxiliary_weights, **{k: weight for k, weight in weights.items() if weight}},
            **kwargs,
        )
        self.base = base
        self.contrastive_weight = contrastive_weight
        self.alignment_weight = alignment_weight
        self.mask = mask
        self.mask_rate = mask_rate
        self.num_layers = num_layers
        self.seed = seed
        if contrastive_weight:
            self.encoder = FieldEncoder(num_layers, name="encoder")
            self.encoder.build(fields.shape)
            self.random = SavedSeed(seed, name="random")

    def auxiliary_losses(self, x, y, tensors, sample_weight):
        losses = self.base.auxiliary_losses(x, y, tensors, sample_weight)
        fields = ops.cast(tensors["fields"], "float32")
        if self.contrastive_weight:
            first, second = (self.encoder(self._view(fields)) for _ in range(2))
            distance = ops.sum(ops.square(first - second), axis=-1)
            losses["contrastive_loss"] = ops.mean(distance)
        if self.alignment_weight:
            losses["alignment_loss"] = alignment_loss(fields)
            losses["uniformity_loss"] = uniformity_loss(fields)
        return losses

    def _view(self, fields):
        rows, number, dim = tf.unstack(tf.shape(fields))
        shapes = {
            "random": (rows, number, dim),
            "feature": (rows, number, 1),
            "dimension": (rows, 1, dim),
        }
        drawn = tf.random.stateless_uniform(shapes[self.mask], self.random.next())
        keep = drawn >= self.mask_rate
        return ops.where(keep, fields, 0.0)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "contrastive_weight": self.contrastive_weight,
            "alignment_weight": self.alignment_weight,
            "mask": self.mask,
            "mask_rate": self.mask_rate,
            "num_layers": self.num_layers,
            "seed": self.seed,
        }


def alignment_loss(fields):
    """Mean over fields and pairs of rows of the squared distance; `fields` is (batch, F, dim).

    The mean over all pairs of ||e_i - e_j||^2 is 2 (mean ||e||^2 - ||mean e||^2).
    """
    of_squares = ops.mean(ops.sum(ops.square(fields), axis=-1), axis=0)
    of_mean = ops.sum(ops.square(ops.mean(fields, axis=0)), axis=-1)
    return ops.mean(2 * (of_squares - of_mean))


def uniformity_loss(fields):
    """Mean over pairs of different fields and all pairs of rows of the cosine similarity.

    The mean cosine of two fields is the product of their mean unit vectors.
    """
    means = ops.mean(unit_vectors(fields), axis=0)
    number = means.shape[0]
    total = ops.sum(ops.square(ops.sum(means, axis=0))) - ops.sum(ops.square(means))
    return total / (number * (number - 1))
