"""DIN against logistic regression and item popularity on MovieLens: same rows, same features.

    python tools/compare_movielens.py --data tf_data/movielens --seeds 3

Every choice is made on the validation rows; the test rows are looked at once.

- item popularity: the click rate of the target item in the training rows, smoothed towards the
  mean; how much is chosen.
- logistic regression (scikit-learn): ids one-hot, sequences multi-hot, numbers as they are or in 20
  bins. Whether a multi-hot row counts each value once or is divided by their number, the numbers'
  form and the penalty C are chosen; the plain form is shown beside it.
- DIN: the quickstart's model, trained by `ck.training.train` from several seeds, here until two
  epochs bring no better validation AUC, where the quickstart stops after one.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import sys
import tempfile
import time
import warnings

import numpy as np
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ctr_keras import data, training
from ctr_keras.experiments import quickstart
from ctr_keras.schema import Feature, Schema

SPLITS = ("train", "valid", "test")
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)
SMOOTHING = (1.0, 3.0, 10.0, 30.0)
BINS = 20


@dataclasses.dataclass(frozen=True)
class Result:
    """AUC of one method.

    Attributes:
        method: Its name and what was chosen.
        valid: Validation AUC, of each seed.
        test: Test AUC, of each seed.
        seconds: Time of one training.
    """

    method: str
    valid: list[float]
    test: list[float]
    seconds: float

    def to_text(self) -> str:
        spread = f" ± {np.std(self.test, ddof=1):.4f}" if len(self.test) > 1 else " " * 9
        return (
            f"{self.method:<58}{np.mean(self.valid):>8.4f}{np.mean(self.test):>9.4f}{spread}"
            f"{self.seconds:>7.0f} s"
        )


def main() -> None:
    arguments = _arguments()
    folder = pathlib.Path(arguments.data)
    schema = Schema.load(folder)
    rows = {name: _columns(folder / name, schema) for name in SPLITS}
    results = [popularity(rows), *logistic_regression(schema, rows, arguments.newest)]
    results.append(din(arguments))
    if arguments.json:
        print(json.dumps([dataclasses.asdict(result) for result in results], indent=1))
        return
    print(f"{'':<58}{'valid':>8}{'test':>9}")
    print("\n".join(result.to_text() for result in results))
    best, means = results[-1], [np.mean(result.test) for result in results]
    for other, mean in zip(results[:-1], means[:-1], strict=True):
        print(f"DIN is {means[-1] - mean:+.4f} against {other.method}")
    print(f"of {len(best.test)} seeds: {', '.join(f'{auc:.4f}' for auc in best.test)}")


def popularity(rows: dict) -> Result:
    """Item popularity."""
    items, labels = rows["train"]["item_id"], rows["train"]["label"]
    size = 1 + max(int(columns["item_id"].max()) for columns in rows.values())
    clicks = np.bincount(items, labels, size)
    counts = np.bincount(items, minlength=size)

    def auc(name: str, strength: float) -> float:
        rate = (clicks + strength * labels.mean()) / (counts + strength)
        return roc_auc_score(rows[name]["label"], rate[rows[name]["item_id"]])

    best = max(SMOOTHING, key=lambda strength: auc("valid", strength))
    name = f"item popularity (smoothed by {best:g} rows)"
    return Result(name, [auc("valid", best)], [auc("test", best)], 0)


def logistic_regression(schema: Schema, rows: dict, newest: int | None) -> list[Result]:
    """The best form on the validation rows, and the plain one: counts of one, numbers in bins.

    Forms are chosen after training on the `newest` training rows alone; what is chosen learns from
    all of them.
    """
    fewer = rows if newest is None else {**rows, "train": _newest(rows["train"], newest)}
    found = []
    for form in itertools.product((False, True), (0, BINS)):
        matrices = _matrices(schema, fewer, *form)
        for penalty in PENALTIES:
            result = _regression(matrices, fewer, form, penalty)
            found.append((result, form, penalty))
            _say(f"{result.method:<58}{result.valid[0]:>8.4f}")
    plain = [one for one in found if one[1] == (False, BINS)]
    chosen = [max(among, key=lambda one: one[0].valid) for among in (plain, found)]
    if newest is None:
        return [result for result, *_ in chosen]
    return [
        _regression(_matrices(schema, rows, *form), rows, form, penalty)
        for _, form, penalty in chosen
    ]


def _newest(columns: dict, number: int) -> dict:
    return {name: column[-number:] for name, column in columns.items()}


def _regression(matrices: dict, rows: dict, form: tuple[bool, int], penalty: float) -> Result:
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=penalty, max_iter=1000)
        model.fit(matrices["train"], rows["train"]["label"])
    valid, test = (
        roc_auc_score(rows[name]["label"], model.decision_function(matrices[name]))
        for name in ("valid", "test")
    )
    divide, bins = form
    name = f"{'mean' if divide else 'multi-hot'}, {'bins' if bins else 'numbers'}"
    method = f"logistic regression ({name}, C={penalty:g})"
    return Result(method, [valid], [test], time.perf_counter() - started)


def din(arguments: argparse.Namespace) -> Result:
    """The quickstart's DIN, once a seed."""
    valid, test = [], []
    started = time.perf_counter()
    for seed in range(1, arguments.seeds + 1):
        with tempfile.TemporaryDirectory() as out:
            config = training.TrainingConfig(
                data=arguments.data,
                out=out,
                model="DIN",
                options=arguments.options,
                epochs=arguments.epochs,
                batch_size=arguments.batch_size,
                learning_rate=arguments.learning_rate,
                patience=arguments.patience,
                seed=seed,
            )
            trained = training.train(config, progress=False)
            for aucs, name in ((valid, "valid"), (test, "test")):
                aucs.append(training.evaluate(trained.model, f"{arguments.data}/{name}").auc)
        _say(f"DIN, seed {seed}: epoch {trained.best_epoch + 1}, {valid[-1]:.4f} {test[-1]:.4f}")
    seconds = (time.perf_counter() - started) / arguments.seeds
    return Result(f"DIN ({arguments.seeds} seeds)", valid, test, seconds)


def _columns(folder: pathlib.Path, schema: Schema) -> dict[str, np.ndarray]:
    """The encoded columns of a split, in order."""
    batches = [
        {**features, "label": label}
        for features, label in data.read(folder, schema, 8192).as_numpy_iterator()
    ]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _matrices(schema: Schema, rows: dict, divide: bool, bins: int) -> dict:
    """Each split as a sparse matrix of all model inputs."""
    parts: dict[str, list] = {name: [] for name in SPLITS}
    for feature in schema.inputs:
        train = rows["train"][feature.name]
        for name in SPLITS:
            values = rows[name][feature.name]
            if feature.kind == "number":
                block = _number(values, train, bins)
            else:
                block = _hot(values, _size(schema, feature), divide)
            parts[name].append(block)
    return {name: scipy.sparse.hstack(blocks).tocsr() for name, blocks in parts.items()}


def _size(schema: Schema, feature: Feature) -> int:
    return schema.vocabulary(feature.name).size


def _hot(ids: np.ndarray, size: int, divide: bool) -> scipy.sparse.csr_matrix:
    ids = ids.reshape(len(ids), -1)
    row, column = np.nonzero(ids)
    matrix = scipy.sparse.csr_matrix(
        (np.ones(len(row), np.float32), (row, ids[row, column])), (len(ids), size)
    )
    if not divide:
        matrix.data[:] = 1
        return matrix
    counts = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1)
    return scipy.sparse.diags(1 / counts) @ matrix


def _number(values: np.ndarray, train: np.ndarray, bins: int) -> scipy.sparse.csr_matrix:
    if not bins:
        return scipy.sparse.csr_matrix(((values - train.mean()) / train.std())[:, None])
    edges = np.quantile(train, np.linspace(0, 1, bins + 1)[1:-1])
    return _hot(np.searchsorted(edges, values, side="right") + 1, bins + 1, False)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="tf_data/movielens", help="a prepared folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--options", type=json.loads, default=quickstart.OPTIONS)
    parser.add_argument("--epochs", type=int, default=quickstart.EPOCHS)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--patience", type=int, default=2)
    parser.add_argument(
        "--newest", type=int, metavar="ROWS",
        help="choose the form of the regression on so many training rows, the newest",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="results as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
