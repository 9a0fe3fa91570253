"""The named inputs of the benchmark; plain Python, so that every peer's environment reads it."""

import dataclasses
import json

RESERVED_IDS = 2  # 0 is padding, 1 is out of vocabulary


@dataclasses.dataclass(frozen=True)
class Workload:
    """One model on one synthetic input.

    Attributes:
        name: What the command line calls it.
        model: `"DIN"`, `"DIEN"`, `"DeepFM"`, or `"MMoE"`, `"PLE"`, `"SharedBottom"`, which have a
            tower for each value of the feature `scene`.
        ids: Name and number of ids of each id feature, ids 0 and 1 (padding, unknown) included.
        history: Length of the history of `item_id`, which shares that feature's table; 0 for none.
        batch: Rows in a batch.
        steps: Timed steps; every one sees a batch of its own.
        warm_up: Steps before them.
        dim: Width of an embedding.
        attention_units: Hidden layers of DIN's attention (and of DIEN's, where it is a network).
        units: Hidden layers of the network; of an expert or the shared bottom.
        tower_units: Hidden layers of a scenario's tower.
        experts: How many experts MMoE has; PLE has one a scenario and a shared one.
        seed: Seed of data and weights.
        peers: Whether peers run it by default.
        negatives: Whether DIEN trains with its auxiliary loss.
    """

    name: str
    model: str
    ids: tuple[tuple[str, int], ...]
    history: int = 0
    batch: int = 1024
    steps: int = 40
    warm_up: int = 10
    dim: int = 16
    attention_units: tuple[int, ...] = (80, 40)
    units: tuple[int, ...] = (200, 80)
    tower_units: tuple[int, ...] = (32,)
    experts: int = 6
    seed: int = 7
    peers: bool = True
    negatives: bool = True

    @classmethod
    def from_json(cls, text: str) -> "Workload":
        config = json.loads(text)
        config["ids"] = tuple((name, size) for name, size in config["ids"])
        for name in ("attention_units", "units", "tower_units"):
            config[name] = tuple(config[name])
        return cls(**config)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @property
    def scenarios(self) -> int:
        """How many values `scene` has, 0 without it."""
        return max(dict(self.ids).get("scene", 0) - RESERVED_IDS, 0)


def _din(name: str, size: int, model: str = "DIN", **options) -> Workload:
    return Workload(name, model, (("user_id", size), ("item_id", size)), history=50, **options)


def _wide(name: str, users: int, model: str = "DeepFM", **options) -> Workload:
    """29 id features as a multi-scenario data set has them: the two large ones and attributes."""
    attributes = [(f"attribute_{i}", (10, 100, 1_000)[i % 3]) for i in range(27)]
    if model != "DeepFM":
        attributes[0] = ("scene", 5 + RESERVED_IDS)
        options |= {"units": (128,)}
    ids = (("user_id", users), ("item_id", 20_000), *attributes)
    return Workload(name, model, ids, batch=512, **options)


def _deepfm(name: str, size: int) -> Workload:
    attributes = tuple((f"attribute_{i}", 1_000) for i in range(8))
    return Workload(name, "DeepFM", (("user_id", size), ("item_id", size), *attributes))


WORKLOADS = {
    workload.name: workload
    for workload in (
        _din("din-100k", 100_000),
        _din("din-1m", 1_000_000, steps=20, warm_up=5),
        _din("din-10k", 10_000, peers=False),
        _din("din-10m", 10_000_000, peers=False),
        _din("dien-100k", 100_000, "DIEN"),
        _din("dien-100k-no-auxiliary", 100_000, "DIEN", negatives=False),
        _deepfm("deepfm-100k", 100_000),
        _wide("deepfm-29x120k", 120_000),
        _wide("deepfm-29x1m", 1_000_000),
        _wide("mmoe-120k", 120_000, "MMoE"),
        _wide("mmoe-1m", 1_000_000, "MMoE"),
        _wide("ple-120k", 120_000, "PLE"),
        _wide("ple-1m", 1_000_000, "PLE"),
        _wide("shared-bottom-120k", 120_000, "SharedBottom"),
        _wide("shared-bottom-1m", 1_000_000, "SharedBottom"),
    )
}
