"""Who is compared with whom."""

import dataclasses

from training_bench.environments import DEEPCTR, FUXICTR, Environment


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One column of the comparison.

    Attributes:
        name: What the command line calls it.
        module: The worker, a module of `training_bench`.
        variants: Ways to set it up; all run in the first round, the fastest in the others.
        environment: Where it runs; `None` is the interpreter that runs the benchmark.
        models: What it has.
        tuned: Whether it is set up in a way its makers neither ship nor show. Such a one is
            measured and shown, and is not the "best peer".
        peer: Whether it trains at all; else it is measured and shown beside them.
    """

    name: str
    module: str
    variants: tuple[str, ...]
    environment: Environment | None = None
    models: tuple[str, ...] = ("DIN", "DeepFM", "MMoE", "PLE", "SharedBottom")
    tuned: bool = False
    peer: bool = True


OURS = "ours"
ALL_MODELS = ("DIN", "DIEN", "DeepFM", "MMoE", "PLE", "SharedBottom")
IMPLEMENTATIONS = {
    implementation.name: implementation
    for implementation in (
        Implementation(OURS, "train_ours", ("lazy-adam",), models=ALL_MODELS),
        Implementation("naive-keras", "train_naive_keras", ("graph",)),
        Implementation("deepctr", "train_deepctr", ("adam", "legacy"), DEEPCTR, ALL_MODELS),
        Implementation("fuxictr", "train_fuxictr", ("adam",), FUXICTR),
        Implementation("naive-keras-tuned", "train_naive_keras", ("xla",), tuned=True),
        Implementation("fuxictr-tuned", "train_fuxictr", ("fused", "sparse"), FUXICTR, tuned=True),
        Implementation(
            "matrix-products",
            "train_products",
            ("graph",),
            peer=False,
            models=("DIN", "MMoE", "PLE", "SharedBottom"),
        ),  # fmt: skip
    )
}
