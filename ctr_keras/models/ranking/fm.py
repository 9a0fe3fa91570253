"""Factorization machine."""

from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.layers import FactorizationMachine
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.features import auxiliary_tensors, embed, model_inputs, scaled
from ctr_keras.models.linear import linear_logit
from ctr_keras.schema import Schema


@export
class FM(CTRModel):
    """Factorization machine over all features.

        logit = w0 + sum_i w_i x_i + 1/2 sum_d [(sum_i v_id)^2 - sum_i v_id^2]

    A feature with several values (history, genres, words) enters as the mean of its values.

    Args:
        schema: `ck.Schema` of the features.
        embedding_dim: Width of the vectors `v`.
        l2: Weight of the squared norm of the table rows that a batch touches.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Example:

    >>> model = ck.models.FM(schema, embedding_dim=16)
    >>> model.compile(ck.optimizers.LazyAdam(1e-3))
    >>> model.fit(ck.data.read("tf_data/movielens/train", schema, shuffle=True))

    Reference:
        [Rendle, 2010: Factorization Machines](https://doi.org/10.1109/ICDM.2010.127), equation 1
    """

    def __init__(self, schema: Schema, embedding_dim: int = 16, l2: float = 0.0, **kwargs: Any):
        schema = Schema.of(schema)
        inputs = model_inputs(schema)
        values = scaled(schema, inputs)
        fields = embed(schema, values, embedding_dim, "embedding", l2, project_all=True)
        second_order = FactorizationMachine(name="interactions")(
            ops.stack(fields.all_pooled(), axis=1)
        )
        logit = keras.layers.Add(name="logit")([linear_logit(schema, values, l2), second_order])
        super().__init__(schema, inputs, logit, auxiliary_tensors(fields), **kwargs)
        self.embedding_dim = embedding_dim
        self.l2 = l2

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "embedding_dim": self.embedding_dim, "l2": self.l2}
