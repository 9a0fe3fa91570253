"""Small data that the tests share."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Most of the time under JAX goes into compiling what runs once.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # The workers share the cores.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import numpy as np
import pytest


def optimize_graphs(on: bool) -> None:
    """Whether TensorFlow rewrites a graph before its first run, a quarter of what a test takes."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not on})


def pytest_collection_finish():
    import keras

    if keras.backend.backend() == "tensorflow":
        optimize_graphs(False)
    # Tracing makes objects by the million: looking through all modules for garbage each time
    # took a seventh of the suite's time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.fixture(autouse=True)
def _clean_slate():
    import keras

    keras.utils.set_random_seed(7)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def small_schema(tmp_path_factory):
    """Every kind of feature once: looked up, hashed, plain ids, sequences, words, numbers."""
    import ctr_keras as ck

    folder = tmp_path_factory.mktemp("schema")
    items = ck.Vocabulary.write(folder / "items.txt", [f"i{n}" for n in range(40)])
    schema = ck.Schema(
        [
            ck.Feature("user_id", "user", vocabulary=ck.Vocabulary.of_size(30)),
            ck.Feature("age", "user", kind="number"),
            ck.Feature("item_id", "item", vocabulary=items, dtype="string"),
            ck.Feature("genres", "item", length=3, vocabulary=ck.Vocabulary.hashing(10)),
            ck.Feature(
                "title", "item", kind="text", length=4, vocabulary=ck.Vocabulary.hashing(50)
            ),
            ck.Feature("item_vector", "vector", kind="vector", width=5),
            ck.Feature("history_item_id", "history", length=7, shares="item_id", dtype="string"),
            ck.Feature("group", "group", dtype="string"),
            ck.Feature("time", "time", kind="number"),
            ck.Feature("label", "label", kind="number"),
        ]
    )
    return schema.save(folder)


def make_rows(count: int, seed: int = 0) -> dict:
    """Rows of `small_schema`; a user clicks what has the parity of the user's number."""
    rng = np.random.default_rng(seed)
    user = rng.integers(2, 30, count)
    item = rng.integers(0, 44, count)  # 40 to 43 are out of vocabulary
    return {
        "user_id": user,
        "age": rng.normal(40, 10, count).astype(np.float32),
        "item_id": [f"i{n}" for n in item],
        "genres": [rng.integers(0, 100, n).tolist() for n in rng.integers(0, 5, count)],
        "title": [f"Film {n} Ünder (199{n % 10})" for n in item],
        "item_vector": rng.normal(size=(count, 5)).astype(np.float32),
        "history_item_id": [
            [f"i{n}" for n in rng.integers(0, 44, size)] for size in rng.integers(0, 10, count)
        ],
        "group": [f"u{n}" for n in user],
        "time": np.arange(count) + 1_700_000_000,
        "label": ((user + item) % 2 == 0).astype(np.float32),
    }


@pytest.fixture(scope="session")
def small_rows():
    return make_rows(600)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory, small_schema, small_rows):
    """A folder with `small_rows` in the block layout, in several shards."""
    import ctr_keras as ck

    folder = tmp_path_factory.mktemp("small")
    ck.data.write(folder, small_schema, small_rows, rows_per_shard=256, block_rows=64)
    return folder
