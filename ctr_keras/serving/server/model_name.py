"""Which model a request is for."""

import dataclasses

DEFAULT_SIGNATURE = "serving_default"


@dataclasses.dataclass(frozen=True)
class ModelName:
    """This version of a model, the one of a label, or the highest that is available.

    Attributes:
        name: The model.
        version: Its version.
        label: The label of a version; not beside `version`.
    """

    name: str
    version: int | None = None
    label: str | None = None
