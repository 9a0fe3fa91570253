"""What a server tells of a model's signatures."""

import dataclasses
from collections.abc import Mapping

from ctr_keras.serving.signature import Signature, callable_protos


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """A version of a model and its signatures.

    Attributes:
        name: The model.
        version: Its version.
        signatures: By name.
    """

    name: str
    version: int
    signatures: Mapping[str, Signature]

    @classmethod
    def of(cls, name: str, version: int, signature_def_map) -> "ModelMetadata":
        """From a `SignatureDefMap`."""
        signatures = {
            key: Signature.from_proto(key, proto)
            for key, proto in callable_protos(signature_def_map.signature_def).items()
        }
        return cls(name, version, signatures)
