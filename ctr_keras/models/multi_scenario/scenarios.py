"""The scenarios of a schema: how many towers there are, and which one is a row's."""

import dataclasses

from keras import KerasTensor, ops

from ctr_keras.schema import RESERVED_IDS, Schema


@dataclasses.dataclass(frozen=True)
class Scenarios:
    """The feature that tells a row's scenario.

    Attributes:
        feature: Its name.
        count: How many scenarios it knows: its vocabulary without the two reserved ids.
    """

    feature: str
    count: int

    @classmethod
    def of(cls, schema: Schema, model: str) -> "Scenarios":
        """Of a schema with one feature of role `scenario`, whose values are known by name or id.

        Raises:
            ValueError: there is none, there are several, or its vocabulary tells no scenarios.
        """
        features = schema.by_role("scenario")
        if len(features) != 1 or features[0].length is not None:
            raise ValueError(
                f"{model} needs one feature of role 'scenario' with one value a row. "
                f"Received: `features={[feature.name for feature in features]}`"
            )
        vocabulary = schema.vocabulary(features[0].name)
        if vocabulary is None or vocabulary.hashed or vocabulary.size <= RESERVED_IDS:
            raise ValueError(
                f"{model} needs a vocabulary of the scenarios, from a file or of a size, to know "
                f"how many towers to make. Received: `{features[0].name}={vocabulary}`"
            )
        return cls(features[0].name, vocabulary.size - RESERVED_IDS)

    def towers(self, inputs: dict[str, KerasTensor]) -> KerasTensor:
        """The number of each row's tower `(batch,)`, negative for an unknown scenario."""
        return ops.subtract(inputs[self.feature], RESERVED_IDS)
