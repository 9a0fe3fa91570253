"""How much of the machine other processes use: beside a busy neighbour no timing holds."""

import os
import pathlib
import time

STAT = pathlib.Path("/proc/stat")


class Interference:
    """Between its making and `share()`: core time of others over core time there was, 0 to 1."""

    def __init__(self):
        self.started, self.own, self.all = time.perf_counter(), _own_seconds(), _busy_seconds()

    def share(self) -> float:
        others = (_busy_seconds() - self.all) - (_own_seconds() - self.own)
        available = (time.perf_counter() - self.started) * (os.cpu_count() or 1)
        return max(0.0, others / available)


def wait_for_quiet(patience: float, limit: float):
    """Return once others use less than `limit` of the machine, or after `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        watch = Interference()
        time.sleep(1)
        if watch.share() < limit:
            return


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _busy_seconds() -> float:
    """Of all cores since boot; 0 where there is no /proc, so that nothing counts as disturbed."""
    if not STAT.is_file():
        return 0.0
    user, nice, system, _idle, _wait, irq, soft_irq, steal = map(
        int, STAT.read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")
