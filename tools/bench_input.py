"""Rows a second of writing and reading TFRecords, in both layouts, and what memory it takes.

    python tools/bench_input.py                    # both layouts, ratios
    python tools/bench_input.py --rows 10000000 --layouts block    # memory at ten million rows

Rows have 10 id features and one history of up to 50 ids, lengths uniform. Each layout runs in a
process of its own, so that the peak memory is its own.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

IDS = 100_000
HISTORY = 50
CHUNK_ROWS = 100_000


def main() -> None:
    arguments = parse_arguments()
    if arguments.worker:
        print(json.dumps(measure(arguments.worker, arguments)))
        return
    results = {}
    for layout in arguments.layouts:
        rows = arguments.rows if layout == "block" else min(arguments.rows, arguments.row_rows)
        print(f"{layout}: {rows:,} rows", file=sys.stderr)
        command = [sys.executable, __file__, "--worker", layout, "--rows", str(rows)]
        command += ["--rounds", str(arguments.rounds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results[layout] = json.loads(done.stdout)
    print(json.dumps(results) if arguments.json else table(results))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of the block layout")
    parser.add_argument("--row-rows", type=int, default=200_000, help="rows of the row layout")
    parser.add_argument("--rounds", type=int, default=3, help="epochs to read; the median counts")
    parser.add_argument("--layouts", nargs="+", default=["block", "row"], choices=["block", "row"])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--worker", choices=["block", "row"], help=argparse.SUPPRESS)
    return parser.parse_args()


def make_schema():
    import ctr_keras as ck

    vocabulary = ck.Vocabulary.of_size(IDS)
    scalars = [ck.Feature(f"context_{n}", "context", vocabulary=vocabulary) for n in range(8)]
    return ck.Schema(
        [
            *scalars,
            ck.Feature("user_id", "user", vocabulary=vocabulary),
            ck.Feature("item_id", "item", vocabulary=vocabulary),
            ck.Feature("history_item_id", "history", length=HISTORY, shares="item_id"),
            ck.Feature("label", "label", kind="number"),
        ]
    )


def make_chunk(schema, rows: int) -> dict:
    """Columns of random ids."""
    import numpy as np

    import ctr_keras as ck

    rng = np.random.default_rng(0)
    chunk = {f.name: rng.integers(2, IDS, rows) for f in schema if f.length is None}
    lengths = rng.integers(1, HISTORY + 1, rows).astype(np.int32)
    chunk["history_item_id"] = ck.data.Ragged(rng.integers(2, IDS, lengths.sum()), lengths)
    chunk["label"] = rng.integers(0, 2, rows)
    return chunk


def measure(layout: str, arguments: argparse.Namespace) -> dict:
    """Write once, read in order and shuffled; rows a second of each, and peak memory."""
    import ctr_keras as ck

    schema = make_schema()
    chunk = make_chunk(schema, min(arguments.rows, CHUNK_ROWS))
    chunks = (chunk for _ in range(max(arguments.rows // CHUNK_ROWS, 1)))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        manifest = ck.data.write(folder, schema, chunks, layout=layout)
        result = {"rows": manifest.rows, "write": manifest.rows / (time.perf_counter() - start)}
        size = sum(path.stat().st_size for path in pathlib.Path(folder).glob("part-*"))
        result["bytes_per_row"] = size / manifest.rows
        for name, shuffle in (("read", False), ("read_shuffled", True)):
            start = time.perf_counter()
            dataset = ck.data.read(folder, schema, 1024, shuffle=shuffle)
            result["verify"] = manifest.rows / (time.perf_counter() - start)
            times = [epoch_seconds(dataset) for _ in range(arguments.rounds)]
            result[name] = manifest.rows / statistics.median(times)
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result


def epoch_seconds(dataset) -> float:
    start = time.perf_counter()
    for _ in dataset:
        pass
    return time.perf_counter() - start


def table(results: dict) -> str:
    names = ("rows", "write", "verify", "read", "read_shuffled", "bytes_per_row", "peak_mb")
    lines = [f"{'':<8}" + "".join(f"{name:>15}" for name in names)]
    for layout, result in results.items():
        lines.append(f"{layout:<8}" + "".join(f"{result[name]:>15,.0f}" for name in names))
    if len(results) == 2:
        block, row = results["block"], results["row"]
        ratios = {name: block[name] / row[name] for name in ("write", "read", "read_shuffled")}
        cells = "".join(f"{ratios[n]:>14.1f}x" if n in ratios else " " * 15 for n in names)
        lines.append(f"{'ratio':<8}{cells}")
    return "\n".join([*lines, "write, verify, read, read_shuffled: rows a second"])


if __name__ == "__main__":
    main()
