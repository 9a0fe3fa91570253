"""Models on top of another model."""

from typing import Any, ClassVar

import keras
from keras import KerasTensor

from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.recalibration import share_recalibration


class WrappingModel(CTRModel):
    """A model that holds another one, its `base`, whose schema and auxiliary losses are its own.

    A subclass sets `base` and, where it holds more models, names the attributes in `parts`: the
    configuration has them whole.
    """

    parts: ClassVar[tuple[str, ...]] = ("base",)
    base: CTRModel

    def auxiliary_losses(self, x, y, tensors, sample_weight):
        return self.base.auxiliary_losses(x, y, tensors, sample_weight)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["schema"]  # The base's.
        held = {name: getattr(self, name) for name in self.parts}
        return config | {n: keras.saving.serialize_keras_object(part) for n, part in held.items()}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        held = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in cls.parts
        }
        return super().from_config({**config, **held}, custom_objects)


def tensors_through(base: CTRModel, inputs: dict[str, KerasTensor]) -> dict[str, KerasTensor]:
    """The tensors of a base as a layer of another graph, by the names of the base's inputs."""
    graph = keras.Model(base.input, base.tensors, name="base")
    tensors = dict(graph({name: inputs[name] for name in base.input}))
    share_recalibration(tensors["logit"], base.tensors["logit"])
    return tensors
