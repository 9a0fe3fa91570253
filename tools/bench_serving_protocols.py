"""The embedded server: what protocols cost, a version switch under load, overload and recovery.

    python tools/bench_serving_protocols.py --data tf_data/movielens --model saved_models/din

The server is a process of its own, the load another, both on this machine. `protocols` asks one
request after the other, in turn in process, over gRPC and over REST. `switch` publishes a copy of
the version under load at half of capacity. `overload` sends three times the capacity.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import tempfile
import threading
import time

from serving_load import open_loop
from serving_load.process import ServerProcess
from serving_load.requests import make_requests
from serving_load.senders import GrpcSender, RestSender

from ctr_keras.serving import Client
from ctr_keras.serving.server import LoadedModel
from ctr_keras.serving.status import State
from ctr_keras.serving.versions import version_folder
from ctr_keras.serving.warmup_requests import WARMUP_FILE, write_requests


def main() -> None:
    arguments = _arguments()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder) / "model"
        shutil.copytree(version_folder(arguments.model), base / "1")
        requests = _requests(arguments, base / "1")
        server = ServerProcess("--model", f"model={base}", "--poll-seconds", "0.5")
        try:
            for part in arguments.parts:
                found[part] = _PARTS[part](arguments, server, base, requests)
                if not arguments.json:
                    _print(part, found[part])
        finally:
            server.stop()
    if arguments.json:
        print(json.dumps(found, indent=1))


def _requests(arguments, version: pathlib.Path):
    model = LoadedModel(version)
    name = arguments.signature
    inputs = make_requests(
        arguments.data, model.signatures[name], 100, arguments.candidates, arguments.seed
    )
    if not (version / WARMUP_FILE).exists():  # An export brings them along.
        write_requests(version, "model", [(name, one) for one in inputs])
    return model, name, inputs


def _protocols(arguments, server, base, requests) -> dict:
    """Median milliseconds of a request, one after the other."""
    model, name, inputs = requests
    senders = {
        "grpc": GrpcSender(server.addresses["grpc"], 10.0),
        "rest": RestSender(server.addresses["rest"], 10.0),
    }
    ready = {
        protocol: [sender.prepare("model", name, one) for one in inputs]
        for protocol, sender in senders.items()
    }
    times: dict[str, list[float]] = {way: [] for way in ("in process", *senders)}
    for turn in range(arguments.turns + 20):
        number = turn % len(inputs)
        for way in times:
            started = time.perf_counter()
            if way == "in process":
                model.run(name, inputs[number])
            else:
                senders[way].ask(ready[way][number])
            if turn >= 20:
                times[way].append(1e3 * (time.perf_counter() - started))
    for sender in senders.values():
        sender.close()
    medians = {way: statistics.median(found) for way, found in times.items()}
    more = {f"{way} more": medians[way] - medians["in process"] for way in senders}
    return {"unit": "ms, p50", **medians, **more}


def _switch(arguments, server, base, requests) -> dict:
    """Latency before and while a new version comes under load at half of capacity."""
    sender, ready = _sender(server, requests)
    rate = _capacity(sender, ready) / 2
    before_seconds, all_seconds = arguments.seconds, 3 * arguments.seconds
    moments: dict[str, float] = {}

    def publish() -> None:
        time.sleep(before_seconds)
        aside = base / ".next.aside"
        shutil.copytree(base / "1", aside)
        moments["published"] = time.perf_counter()
        os.rename(aside, base / "2")
        with Client(server.addresses["grpc"]) as client:
            while State.END not in {v.state for v in client.status("model", version=1)}:
                time.sleep(0.1)
        moments["switched"] = time.perf_counter()

    publishing = threading.Thread(target=publish)
    started = time.perf_counter()
    publishing.start()
    run = open_loop.run(sender, ready, rate, all_seconds, arguments.seed)
    publishing.join()
    sender.close()
    published = moments["published"] - started
    # The load waits for the switch, so that what came late through it is not left out.
    before = run.between(0.0, before_seconds)
    during = run.between(published, moments["switched"] - started)
    after = run.between(moments["switched"] - started, all_seconds)
    return {
        "switch_seconds": moments["switched"] - moments["published"],
        "before": before.to_dict(),
        "during": during.to_dict(),
        "after": after.to_dict(),
        "failed": int((~run.ok).sum()),
        "p99_ratio": during.quantiles(99)[0] / before.quantiles(99)[0],
    }


def _overload(arguments, server, base, requests) -> dict:
    """Three times the capacity, and how soon afterwards the server is as it was."""
    sender, ready = _sender(server, requests)
    capacity = _capacity(sender, ready)
    calm = open_loop.run(sender, ready, capacity / 2, arguments.seconds, arguments.seed)
    before_mb, moment = server.resident_mb(), time.monotonic()
    storm = open_loop.run(sender, ready, 3 * capacity, arguments.overload_seconds, arguments.seed)
    peak_mb = server.peak_mb(moment)
    recovery = open_loop.run(sender, ready, capacity / 2, arguments.seconds, arguments.seed)
    sender.close()
    return {
        "capacity": capacity,
        "before": calm.to_dict(),
        "overload": storm.to_dict(),
        "longest_answer_ms": 1e3 * float(storm.latencies.max()),
        "after, first 2 s": recovery.between(0.0, 2.0).to_dict(),
        "after, then": recovery.between(2.0, arguments.seconds).to_dict(),
        "resident_mb": {"before": before_mb, "peak": peak_mb, "after": server.resident_mb()},
    }


def _sender(server, requests):
    _, name, inputs = requests
    sender = GrpcSender(server.addresses["grpc"], 10.0)
    return sender, [sender.prepare("model", name, one) for one in inputs]


def _capacity(sender, ready) -> float:
    open_loop.capacity(sender, ready, seconds=2.0)
    return open_loop.capacity(sender, ready, seconds=5.0)


_PARTS = {"protocols": _protocols, "switch": _switch, "overload": _overload}


def _print(part: str, found: dict) -> None:
    print(part)
    for name, value in found.items():
        shown = f"{value:.2f}" if isinstance(value, float) else value
        if isinstance(value, dict):
            shown = {k: round(v, 1) if isinstance(v, float) else v for k, v in value.items()}
        print(f"  {name:<18} {shown}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="prepared folder, such as tf_data/movielens")
    parser.add_argument("--model", required=True, help="base path or version of a SavedModel")
    parser.add_argument("--signature", default="serving_default")
    parser.add_argument("--candidates", type=int, default=100, help="items a request")
    parser.add_argument("--parts", nargs="+", choices=list(_PARTS), default=list(_PARTS))
    parser.add_argument("--turns", type=int, default=300, help="requests each way of `protocols`")
    parser.add_argument("--seconds", type=float, default=10.0, help="of load before and after")
    parser.add_argument("--overload-seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
