"""The parts of `bench_training.py`: one input, four implementations, each in its own process."""
