"""Virtual environments of the peers, made once and kept in a cache folder."""

import dataclasses
import pathlib
import shutil
import subprocess
import sys

PYTHON = "3.11"  # the newest that TensorFlow 2.15 runs on


@dataclasses.dataclass(frozen=True)
class Environment:
    """Arguments of `pip install`, one tuple a call."""

    name: str
    installs: tuple[tuple[str, ...], ...]

    def python(self, folder: pathlib.Path) -> pathlib.Path:
        """Its interpreter; creates the environment if it is missing or was made otherwise."""
        root = folder / self.name
        interpreter, stamp = root / "bin" / "python", root / "installed.txt"
        wanted = "\n".join(" ".join(arguments) for arguments in self.installs)
        if not stamp.is_file() or stamp.read_text() != wanted:
            _call([_base_python(), "-m", "venv", "--clear", str(root)])
            for arguments in self.installs:
                _call([str(interpreter), "-m", "pip", "install", "--quiet", *arguments])
            stamp.write_text(wanted)
        return interpreter


# DeepCTR pins an h5py without a wheel for this Python, so its dependencies are named by hand.
DEEPCTR = Environment(
    "deepctr",
    (
        ("tensorflow-cpu==2.15.1", "numpy<2", "pandas", "requests"),
        ("--no-deps", "deepctr==0.9.4"),
    ),
)
# Torch first: left to itself, FuxiCTR's requirement would bring another torch.
FUXICTR = Environment("fuxictr", (("torch==2.13.0",), ("fuxictr==2.3.10",)))


def _base_python() -> str:
    if sys.version_info[:2] == tuple(map(int, PYTHON.split("."))):
        return sys.executable
    found = shutil.which(f"python{PYTHON}")
    if found is None:
        raise RuntimeError(f"The peers need Python {PYTHON}, and python{PYTHON} is not on the path")
    return found


def _call(command: list[str]):
    print("$", *command, file=sys.stderr)
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed:\n{done.stdout[-2000:]}")
