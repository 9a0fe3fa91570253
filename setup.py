"""Packaging. The versions that were tested together are in requirements.lock."""

import pathlib

from setuptools import find_packages, setup

TEXT = ["keras-hub>=0.21", "tensorflow-text>=2.19", "safetensors>=0.4"]
SERVING = [
    "tensorflow-serving-api>=2.19",
    "grpcio>=1.60",
    "grpcio-health-checking>=1.60",
    "prometheus-client>=0.20",
    "urllib3>=2.0",
]
EXTRAS = {
    "text": TEXT,
    "serving": SERVING,
    "dev": [
        *TEXT,
        *SERVING,
        "jax>=0.4.30",
        "mypy>=1.10",
        "pandas-stubs>=2.2",
        "pytest>=8.0",
        "pytest-xdist>=3.5",
        "ruff>=0.6",
        "scikit-learn>=1.4",
        "tensorboard>=2.16",
    ],
}

setup(
    name="ctr-keras",
    version="0.1.0",
    description="Click-through-rate ranking with Keras 3 and TensorFlow",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["ctr_keras", "ctr_keras.*"]),
    install_requires=[
        "tensorflow>=2.19",
        "keras>=3.10",
        "h5py>=3.11",
        "numpy>=1.26",
        "pandas>=2.2",
        "pyarrow>=16.0",
        "ibis-framework[duckdb]>=10.0",
        "matplotlib>=3.8",
        "scipy>=1.11",
        "rich>=13.0",
        "typer>=0.12",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["ctr-keras=ctr_keras.cli:main"]},
)
