"""Training speed of this package beside naive Keras 3, DeepCTR and FuxiCTR, in one run.

    python tools/bench_training.py
    python tools/bench_training.py --workloads din-100k --implementations ours deepctr --rounds 5

Each implementation trains the same rows in a process of its own. What is timed is the training
step: forward, backward, update, on batches that lie in memory. The processes take turns, round by
round, and a ratio is the median over rounds of two neighbours' median steps. A run that other
processes disturbed is repeated. The peers' environments are made on first use. `matrix-products` is
no peer but the arithmetic that our step cannot do without.

Exit status: 0; 1 if ours failed or `--check` found a target missed; 2 for wrong arguments.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import sys
from collections.abc import Iterable

from training_bench import report, rounds
from training_bench.implementations import IMPLEMENTATIONS, OURS
from training_bench.workload import WORKLOADS, Workload

DEFAULT_WORKLOADS = ("din-100k", "din-1m", "din-10k", "din-10m", "deepfm-100k", "deepfm-29x120k")


def main() -> int:
    arguments = parse()
    plan = make_plan(arguments)
    runs = []
    for run in rounds.run_all(plan):
        rounds.show_progress(run, plan.rounds)
        runs.append(run)
    table = report.lines(runs)
    reached = report.targets(table, runs)
    if arguments.json:
        print(json.dumps(as_json(table, reached, runs), indent=2))
    else:
        print(machine_text(runs), report.as_text(table, reached), sep="\n\n")
    failed = any(run.implementation == OURS and run.error for run in runs)
    return int(failed or (arguments.check and not all(target.met for target in reached)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workloads", nargs="+", choices=WORKLOADS, default=DEFAULT_WORKLOADS, metavar="NAME",
        help=f"of {', '.join(WORKLOADS)}",
    )  # fmt: skip
    parser.add_argument(
        "--implementations", nargs="+", choices=IMPLEMENTATIONS, metavar="NAME",
        help=f"of {', '.join(IMPLEMENTATIONS)}; default: all, and ours alone where only our own "
        "growth with the table is asked for",
    )  # fmt: skip
    parser.add_argument("--rounds", type=positive, default=5, help="default: 5")
    parser.add_argument(
        "--steps", type=positive, help="timed steps a run instead of the workload's"
    )
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one run")
    parser.add_argument(
        "--retries", type=int, default=2,
        help="repeats of a run that other processes disturbed, default: 2",
    )  # fmt: skip
    parser.add_argument(
        "--patience", type=float, default=30,
        help="seconds to wait, before each run, for other processes to pause, default: 30",
    )  # fmt: skip
    parser.add_argument(
        "--venvs", type=pathlib.Path, default=pathlib.Path("~/.cache/ctr_keras/peers"),
        help="folder of the peers' environments, default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print everything measured as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    arguments = parser.parse_args()
    for name in arguments.workloads:
        if not who_has(WORKLOADS[name], arguments.implementations or IMPLEMENTATIONS):
            parser.error(f"none of {', '.join(arguments.implementations)} has a model for {name}")
    return arguments


def who_has(workload: Workload, names: Iterable[str]) -> list[str]:
    return [name for name in names if workload.model in IMPLEMENTATIONS[name].models]


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1. Received: {text}")
    return value


def make_plan(arguments: argparse.Namespace) -> rounds.Plan:
    chosen = {}
    for name in arguments.workloads:
        workload = WORKLOADS[name]
        if arguments.steps:
            workload = dataclasses.replace(workload, steps=arguments.steps)
        default = tuple(IMPLEMENTATIONS) if workload.peers else (OURS,)
        names = who_has(workload, arguments.implementations or default)
        chosen[workload] = tuple(IMPLEMENTATIONS[name] for name in dict.fromkeys(names))
    needed = {i.name: i.environment for group in chosen.values() for i in group}
    pythons = {name: python_of(environment, arguments) for name, environment in needed.items()}
    return rounds.Plan(
        chosen, pythons, arguments.rounds, arguments.timeout, arguments.retries, arguments.patience
    )


def python_of(environment, arguments: argparse.Namespace) -> pathlib.Path | str:
    """The interpreter; a peer that cannot be installed must not stop the others."""
    if environment is None:
        return pathlib.Path(sys.executable)
    try:
        return environment.python(arguments.venvs.expanduser())
    except (RuntimeError, OSError) as error:
        return f"no environment: {error}"


def machine(runs: list[rounds.Run]) -> dict:
    versions = {run.implementation: run.measured["versions"] for run in runs if run.measured}
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor(),
        "python": platform.python_version(),
        "versions": versions,
    }


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def machine_text(runs: list[rounds.Run]) -> str:
    found = machine(runs)
    parts = [f"{found['cores']} cores, {found['processor']}"]
    for name, versions in found["versions"].items():
        parts.append(f"{name}: " + ", ".join(f"{k} {v}" for k, v in versions.items()))
    return "\n".join(parts)


def as_json(table: list[report.Line], reached: list[report.Target], runs: list[rounds.Run]) -> dict:
    return {
        "machine": machine(runs),
        "lines": [dataclasses.asdict(line) for line in table],
        "targets": [dataclasses.asdict(target) for target in reached],
        "runs": [dataclasses.asdict(run) for run in runs],
    }


if __name__ == "__main__":
    sys.exit(main())
