"""An optimizer's variables before the first step."""

import keras


def build_optimizer(model: keras.Model) -> None:
    """Make the variables of a compiled model's optimizer, where they are not there.

    Keras leaves that to the first step, so that `tf.function` traces it a second time.

    Args:
        model: A compiled model that has its own variables.
    """
    if model.optimizer is not None and not model.optimizer.built:
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
