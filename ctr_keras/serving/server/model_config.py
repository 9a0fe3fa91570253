"""Which models are served, from where, and which of their versions."""

import dataclasses
import logging
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf import text_format

from ctr_keras.serving.protocol import model_server_config_pb2
from ctr_keras.serving.server_files import SERVER_ROOT

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class VersionPolicy:
    """Which versions of those on disk are wanted; neither argument means all.

    Attributes:
        latest: So many of the highest.
        specific: These.
    """

    latest: int | None = None
    specific: tuple[int, ...] = ()

    def __post_init__(self):
        if self.latest is not None and (self.latest < 1 or self.specific):
            raise ValueError(
                "`latest` must be positive and stand alone. "
                f"Received: `latest={self.latest}`, `specific={self.specific}`"
            )

    def wanted(self, present: Sequence[int]) -> list[int]:
        """The wanted versions that are present, ascending."""
        if self.specific:
            return sorted(set(self.specific) & set(present))
        return sorted(present)[-self.latest if self.latest else 0 :]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A model to serve.

    Attributes:
        name: As requests call it.
        base_path: Folder with one folder a version.
        versions: Which of them. Defaults to the highest.
        labels: Versions by a name of their own, such as `{"stable": 3}`.
    """

    name: str
    base_path: pathlib.Path
    versions: VersionPolicy = VersionPolicy(latest=1)
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if not self.name or set(self.name) & set("/:"):
            raise ValueError(
                "`name` must not be empty, nor hold '/' or ':' (it is part of a URL). "
                f"Received: `name={self.name!r}`"
            )
        object.__setattr__(self, "base_path", pathlib.Path(self.base_path))


def check_names(models: Iterable[ModelConfig]) -> tuple[ModelConfig, ...]:
    """The models, if each has a name of its own."""
    models = tuple(models)
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"Two models have the same name. Received: `name={name!r}`")
    return models


def read_models_config(
    path: str | pathlib.Path, models_root: str | pathlib.Path | None = None
) -> tuple[ModelConfig, ...]:
    """The models of a `models.config`, as TF Serving reads it.

    The file that an export writes is for a container that has the folder of models at `/models`.
    The same folder is somewhere else on this machine.

    Args:
        path: The file.
        models_root: Folder that the file calls `/models`. Defaults to `/models` where there is
            one, else to the file's own folder.

    Raises:
        ValueError: it is no such file, or asks for what only TF Serving can do.
    """
    path = pathlib.Path(path)
    text = path.read_text(encoding="utf-8")
    try:
        proto = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
        models = models_of_proto(proto)
    except (text_format.ParseError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    return below(models, models_root_of(path, models_root))


def models_root_of(
    path: str | pathlib.Path, models_root: str | pathlib.Path | None = None
) -> pathlib.Path:
    """What a file calls `/models`; arguments as of `read_models_config`."""
    if models_root is not None:
        return pathlib.Path(models_root)
    root = pathlib.Path(SERVER_ROOT)
    return root if root.exists() else pathlib.Path(path).absolute().parent


def below(models: Iterable[ModelConfig], root: pathlib.Path) -> tuple[ModelConfig, ...]:
    """Models with base paths below `root` in place of `/models`, where they are below that."""
    return tuple(_below(model, root) for model in models)


def _below(model: ModelConfig, root: pathlib.Path) -> ModelConfig:
    if root == pathlib.Path(SERVER_ROOT) or not model.base_path.is_relative_to(SERVER_ROOT):
        return model
    base_path = root / model.base_path.relative_to(SERVER_ROOT)
    _LOG.info("Model %s: %s stands for %s", model.name, model.base_path, base_path)
    return dataclasses.replace(model, base_path=base_path)


def models_of_proto(proto) -> tuple[ModelConfig, ...]:
    """The models of a `ModelServerConfig`.

    Raises:
        ValueError: it is wrong, or asks for what only TF Serving can do.
    """
    kind = proto.WhichOneof("config")
    if kind != "model_config_list":
        raise ValueError(f"Expected a `model_config_list`. Received: `config={kind!r}`")
    return check_names(_model_of(config) for config in proto.model_config_list.config)


def _model_of(config) -> ModelConfig:
    if config.model_platform not in ("", "tensorflow"):
        raise ValueError(
            f"Model {config.name!r} must be of the platform 'tensorflow'. "
            f"Received: `model_platform={config.model_platform!r}`"
        )
    if not pathlib.PurePath(config.base_path).is_absolute():
        raise ValueError(
            f"Model {config.name!r} must have an absolute path. "
            f"Received: `base_path={config.base_path!r}`"
        )
    policy = _policy_of(config.model_version_policy)
    labels = dict(config.version_labels)
    return ModelConfig(config.name, pathlib.Path(config.base_path), policy, labels)


def _policy_of(proto) -> VersionPolicy:
    kind = proto.WhichOneof("policy_choice")
    if kind == "specific":
        if not proto.specific.versions:
            raise ValueError("A `specific` version policy needs `versions`. Received: none")
        return VersionPolicy(specific=tuple(proto.specific.versions))
    if kind == "all":
        return VersionPolicy()
    return VersionPolicy(latest=max(1, proto.latest.num_versions))
