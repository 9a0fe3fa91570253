"""Load on a model server, embedded or TensorFlow's own: latency, errors and throughput by rate.

    ctr-keras serve --model din=saved_models/din
    python tools/load_serving.py --data tf_data/movielens --model din --plot load.png

Requests arrive at random moments, so many a second, whether or not the ones before are answered;
users and candidate items are drawn from the prepared data. Latency counts from the moment that a
request was meant to leave.
"""

import argparse
import json

from serving_load import open_loop
from serving_load.requests import make_requests
from serving_load.senders import SENDERS

import ctr_keras as ck

_PORTS = {"grpc": 8500, "rest": 8501}


def main() -> None:
    arguments = _arguments()
    address = arguments.address or f"127.0.0.1:{_PORTS[arguments.protocol]}"
    with ck.serving.Client(address, arguments.protocol) as client:
        signatures = client.metadata(arguments.model).signatures
    name = arguments.signature or ("rank" if "rank" in signatures else "serving_default")
    sender = SENDERS[arguments.protocol](address, arguments.timeout)
    inputs = make_requests(
        arguments.data, signatures[name], arguments.requests, arguments.candidates, arguments.seed
    )
    requests = [sender.prepare(arguments.model, name, one) for one in inputs]
    open_loop.capacity(sender, requests, seconds=1.0)  # what is done once is done
    rates = arguments.rates or _sweep(open_loop.capacity(sender, requests, arguments.seconds / 2))
    runs = []
    for rate in rates:
        runs.append(open_loop.run(sender, requests, rate, arguments.seconds, arguments.seed))
        if not arguments.json:
            _print_line(runs[-1].to_dict(), first=len(runs) == 1)
    sender.close()
    if arguments.json:
        print(json.dumps([run.to_dict() for run in runs], indent=1))
    if arguments.plot:
        _plot([run.to_dict() for run in runs], arguments.plot)


def _sweep(most: float) -> list[float]:
    """Shares of what the server does when it always has something to do."""
    return [most * share for share in (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0)]


def _print_line(line: dict, first: bool) -> None:
    numbers = ("rate", "answered_a_second", "p50_ms", "p95_ms", "p99_ms", "p99.9_ms")
    if first:
        print("".join(f"{name:>{max(10, len(name) + 2)}}" for name in numbers) + "  errors")
    row = "".join(f"{line[name]:>{max(10, len(name) + 2)}.1f}" for name in numbers)
    print(f"{row}  {line['errors'] or 'none'}", flush=True)


def _plot(lines: list[dict], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name in ("p50_ms", "p95_ms", "p99_ms", "p99.9_ms"):
        label = name.removesuffix("_ms")
        axes.plot(
            [line["rate"] for line in lines], [line[name] for line in lines], "o-", label=label
        )
    axes.set(xlabel="requests a second", ylabel="latency, ms", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="prepared folder, such as tf_data/movielens")
    parser.add_argument("--model", required=True, help="name of the model on the server")
    parser.add_argument("--address", help="host:port; default: this machine, TF Serving's port")
    parser.add_argument("--protocol", choices=sorted(SENDERS), default="grpc")
    parser.add_argument("--signature", help="default: rank if the model has it")
    parser.add_argument("--candidates", type=int, default=100, help="items a request")
    parser.add_argument("--rates", type=float, nargs="+", help="a second; default: a sweep")
    parser.add_argument("--seconds", type=float, default=10.0, help="a rate")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds a request")
    parser.add_argument("--requests", type=int, default=200, help="different ones, in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", help="draw latency against rate: a .png, .svg or .pdf file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
