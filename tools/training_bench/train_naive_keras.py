"""The models as a Keras 3 tutorial writes them: stock layers, stock Adam.

Variants: `graph`, which is what `jit_compile="auto"` means without a GPU, and `xla`.
"""

import keras
import tensorflow as tf
from keras import layers, ops

from training_bench import tensorflow_steps, worker
from training_bench.workload import RESERVED_IDS


class Dice(layers.Layer):
    def build(self, shape):
        self.normalize = layers.BatchNormalization(center=False, scale=False, epsilon=1e-9)
        self.normalize.build(shape)
        self.alpha = self.add_weight(shape=(shape[-1],), initializer="zeros", name="alpha")

    def call(self, x, training=None):
        gate = ops.sigmoid(self.normalize(x, training=training))
        return gate * x + (1 - gate) * self.alpha * x


class Attention(layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.hidden = [(layers.Dense(width), Dice()) for width in units]
        self.score = layers.Dense(1)

    def build(self, *shapes):
        pass  # the parts build themselves on first use

    def call(self, query, keys, mask, training=None):
        query = ops.broadcast_to(query[:, None], ops.shape(keys))
        x = ops.concatenate([query, keys, query - keys, query * keys], axis=-1)
        for dense, dice in self.hidden:
            x = dice(dense(x), training=training)
        weights = self.score(x)[..., 0] * ops.cast(mask, x.dtype)
        return ops.sum(weights[..., None] * keys, axis=1)


def hidden(x, units):
    for width in units:
        x = layers.Dense(width, activation="relu")(x)
    return x


def network(x, units):
    return layers.Dense(1)(hidden(x, units))


def id_inputs(workload):
    return {name: keras.Input((), name=name, dtype="int32") for name, _ in workload.ids}


def din(workload):
    inputs = id_inputs(workload)
    history = keras.Input((workload.history,), name="history_item_id", dtype="int32")
    tables = {name: layers.Embedding(size, workload.dim) for name, size in workload.ids}
    embedded = [tables[name](inputs[name]) for name in inputs]
    keys = tables["item_id"](history)
    query = tables["item_id"](inputs["item_id"])
    interest = Attention(workload.attention_units)(query, keys, history > 0)
    logit = network(layers.Concatenate()([*embedded, interest]), workload.units)
    probability = layers.Activation("sigmoid")(logit)
    return keras.Model({**inputs, "history_item_id": history}, probability)


def deepfm(workload):
    inputs = id_inputs(workload)
    fields = [layers.Embedding(n, workload.dim)(inputs[name]) for name, n in workload.ids]
    linear = [layers.Embedding(n, 1)(inputs[name]) for name, n in workload.ids]
    stacked = ops.stack(fields, axis=1)
    square_of_sum = ops.square(ops.sum(stacked, axis=1))
    sum_of_square = ops.sum(ops.square(stacked), axis=1)
    pairs = 0.5 * ops.sum(square_of_sum - sum_of_square, axis=1, keepdims=True)
    logit = layers.Add()([*linear, pairs, network(layers.Concatenate()(fields), workload.units)])
    return keras.Model(inputs, layers.Activation("sigmoid")(logit))


def multi_scenario(workload):
    inputs = id_inputs(workload)
    fields = [layers.Embedding(n, workload.dim)(inputs[name]) for name, n in workload.ids]
    x = layers.Concatenate()(fields)
    experts = {"MMoE": workload.experts, "PLE": workload.scenarios + 1, "SharedBottom": 1}
    outputs = [hidden(x, workload.units) for _ in range(experts[workload.model])]
    logits = []
    for k in range(workload.scenarios):
        own = outputs if workload.model == "MMoE" else [outputs[k % len(outputs)], outputs[-1]]
        mixed = outputs[0]
        if workload.model != "SharedBottom":
            shares = layers.Dense(len(own), use_bias=False, activation="softmax")(x)
            mixed = ops.sum(shares[..., None] * ops.stack(own, axis=1), axis=1)
        logits.append(network(mixed, workload.tower_units))
    own = ops.one_hot(inputs["scene"] - RESERVED_IDS, workload.scenarios)
    logit = ops.sum(layers.Concatenate()(logits) * own, axis=1, keepdims=True)
    return keras.Model(inputs, layers.Activation("sigmoid")(logit))


def build(workload, features, labels, variant):
    keras.utils.set_random_seed(workload.seed)
    model = {"DIN": din, "DeepFM": deepfm}.get(workload.model, multi_scenario)(workload)
    jit_compile = variant == "xla"
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy", jit_compile=jit_compile)
    return tensorflow_steps.steps(model, features, labels[..., None])


if __name__ == "__main__":
    worker.main(build, {"keras": keras.__version__, "tensorflow": tf.__version__})
