"""A plain network over embeddings."""

from collections.abc import Sequence
from typing import Any

import keras

from ctr_keras.api_export import export
from ctr_keras.layers import MLP
from ctr_keras.layers.mlp import check_units
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.features import auxiliary_tensors, embed, model_inputs, scaled
from ctr_keras.schema import Schema


@export
class DNN(CTRModel):
    """An MLP over the embeddings of all features.

        logit = MLP([v_1, ..., v_F])

    The deep part of `WideDeep` alone, and the network of `MAML` and `MeLU`: what methods of cold
    start are measured against.

    A feature with several values (history, genres, words) enters as the mean of its values.

    Args:
        schema: `ck.Schema` of the features.
        embedding_dim: Width of the embeddings.
        units: Widths of the MLP's layers before the logit.
        activation: Activation of the MLP, `"dice"` included.
        dropout: Share of the MLP's outputs dropped in training.
        l2: Weight of the squared norm of the table rows that a batch touches.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Example:

    >>> model = ck.models.DNN(schema, embedding_dim=16)
    >>> model.compile(ck.optimizers.LazyAdam(1e-3))

    Reference:
        [Huan et al., 2023: AntM2C](https://arxiv.org/abs/2308.16437), the DNN of table 7
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        units: Sequence[int] = (128, 32),
        activation: str = "relu",
        dropout: float = 0.0,
        l2: float = 0.0,
        **kwargs: Any,
    ):
        schema = Schema.of(schema)
        inputs = model_inputs(schema)
        fields = embed(schema, scaled(schema, inputs), embedding_dim, "embedding", l2)
        deep = MLP(units, activation=activation, dropout=dropout, name="mlp")
        logit = keras.layers.Dense(1, name="logit")(deep(fields.deep_input()))
        super().__init__(schema, inputs, logit, auxiliary_tensors(fields), **kwargs)
        self.embedding_dim = embedding_dim
        self.units = tuple(check_units(units))
        self.activation = activation
        self.dropout = dropout
        self.l2 = l2

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_dim": self.embedding_dim,
            "units": list(self.units),
            "activation": self.activation,
            "dropout": self.dropout,
            "l2": self.l2,
        }
