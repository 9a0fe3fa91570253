"""One epoch of a model on prepared data, reading included: rows a second and memory.

ctr-keras simulate antm2c --out rows.csv --rows 20500000
ctr-keras prepare antm2c --raw rows.csv --out tf_data/antm2c
python tools/bench_epoch.py --data tf_data/antm2c
"""

import argparse
import json
import pathlib
import resource
import time

import ctr_keras as ck
from ctr_keras.training.progress import ProgressBar


def main() -> None:
    arguments = _arguments()
    train = pathlib.Path(arguments.data) / "train"
    schema = ck.Schema.load(arguments.data)
    options = {} if arguments.model != "MMoE" else {"num_experts": 6, "units": (128,)}
    model = ck.training.build_model(arguments.model, schema, options)
    model.compile(ck.optimizers.LazyAdam(1e-3))
    rows = ck.data.read(train, schema, arguments.batch_size, shuffle=True, seed=1)
    bar = ProgressBar(int(rows.cardinality()))
    started = time.perf_counter()
    model.fit(rows, verbose=0, shuffle=False, callbacks=[bar])
    seconds = time.perf_counter() - started
    count = ck.data.Manifest.load(train).rows
    result = {
        "rows": count,
        "minutes": seconds / 60,
        "rows_per_second": count / seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    print(
        f"{arguments.model}: {count:,} rows in {result['minutes']:.1f} minutes, "
        f"{result['rows_per_second']:,.0f} rows/s, {result['peak_gb']:.2f} GB resident at most"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="prepared folder")
    parser.add_argument("--model", default="MMoE", help="of ck.models")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
