"""Arrivals that do not wait for answers, as those of users do not."""

import collections
import dataclasses
import threading
import time

import numpy as np


@dataclasses.dataclass
class Answered:
    """What came of the requests of a run.

    Attributes:
        rate: Requests a second that were meant to arrive.
        seconds: How long they arrived for.
        arrivals: When each was meant to arrive, seconds since the start.
        latencies: Seconds from then to its answer; NaN without one.
        codes: gRPC's name of each answer's status, or what HTTP said.
    """

    rate: float
    seconds: float
    arrivals: np.ndarray
    latencies: np.ndarray
    codes: np.ndarray

    @property
    def ok(self) -> np.ndarray:
        return self.codes == "OK"

    def quantiles(self, *percent: float) -> list[float]:
        """Of the latencies of what was answered, seconds."""
        if not self.ok.any():
            return [float("nan")] * len(percent)
        return [float(q) for q in np.percentile(self.latencies[self.ok], percent)]

    def between(self, start: float, end: float) -> "Answered":
        """Only what arrived in this time."""
        kept = (self.arrivals >= start) & (self.arrivals < end)
        return Answered(
            self.rate, end - start, self.arrivals[kept], self.latencies[kept], self.codes[kept]
        )

    def to_dict(self) -> dict:
        p50, p95, p99, p999 = (1e3 * q for q in self.quantiles(50, 95, 99, 99.9))
        errors = collections.Counter(self.codes[~self.ok].tolist())
        return {
            "rate": round(self.rate, 1),
            "answered_a_second": round(float(self.ok.sum()) / self.seconds, 1),
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "p99.9_ms": p999,
            "requests": len(self.codes),
            "errors": dict(errors),
        }


def run(sender, requests: list, rate: float, seconds: float, seed: int = 0) -> Answered:
    """Send requests at random moments, so many a second on average, and wait for the answers.

    The time of an answer counts from the moment the request was meant to leave: if the load falls
    behind, that is not hidden.
    """
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, int(rate * seconds * 1.5) + 10))
    arrivals = arrivals[arrivals < seconds]
    latencies = np.full(len(arrivals), np.nan)
    codes = np.full(len(arrivals), "no answer", object)
    left = threading.Semaphore(0)
    start = time.perf_counter() + 0.01

    def answered(number: int, code: str) -> None:
        latencies[number] = time.perf_counter() - start - arrivals[number]
        codes[number] = code
        left.release()

    for number, arrival in enumerate(arrivals):
        wait = start + arrival - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        sender.send(
            requests[number % len(requests)], lambda code, number=number: answered(number, code)
        )
    for _ in arrivals:
        left.acquire()
    return Answered(rate, seconds, arrivals, latencies, codes)


def capacity(sender, requests: list, seconds: float, at_once: int = 8) -> float:
    """Answers a second when there are always so many requests under way."""
    end = time.perf_counter() + seconds
    lock, finished = threading.Lock(), threading.Semaphore(0)
    answered = 0

    def next_one(code: str = "", number: int = 0) -> None:
        nonlocal answered
        with lock:
            answered += code == "OK"
        if time.perf_counter() < end:
            sender.send(
                requests[number % len(requests)], lambda code: next_one(code, number + at_once)
            )
        else:
            finished.release()

    for number in range(at_once):
        next_one(number=number)
    for _ in range(at_once):
        finished.acquire()
    return answered / seconds
