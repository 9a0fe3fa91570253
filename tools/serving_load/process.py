"""A server in a process of its own, watched from outside."""

import os
import pathlib
import re
import subprocess
import sys
import threading
import time


class ServerProcess:
    """`ctr-keras serve` on free ports; its memory is looked at ten times a second."""

    def __init__(self, *options: str):
        command = [sys.executable, "-c", "from ctr_keras.cli import main; main()", "serve"]
        self._process = subprocess.Popen(
            [*command, "--port", "0", "--rest-port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        line = self._process.stdout.readline()
        ports = re.search(r"gRPC (\S+), REST (\S+);", line)
        if ports is None:
            raise RuntimeError(f"The server did not start. Received: `line={line!r}`")
        self.addresses = {"grpc": ports[1], "rest": ports[2]}
        self.memory: list[tuple[float, int]] = []
        threading.Thread(target=self._watch, daemon=True).start()

    def resident_mb(self) -> float:
        pages = pathlib.Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def peak_mb(self, since: float) -> float:
        """The most since a moment of the monotonic clock."""
        return max(size for moment, size in self.memory if moment >= since)

    def stop(self) -> int:
        """Tell it to stop; its exit status."""
        self._process.terminate()
        return self._process.wait(60)

    def _watch(self) -> None:
        while self._process.poll() is None:
            try:
                self.memory.append((time.monotonic(), self.resident_mb()))
            except OSError:  # It has just ended.
                return
            time.sleep(0.1)
