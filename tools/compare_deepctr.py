"""Predictions of our models beside DeepCTR 0.9.4's, given the same weights.

    python tools/compare_deepctr.py

DeepCTR's models get random weights (tables, kernels, biases, Dice's alphas and statistics) in
DeepCTR's own environment, which is made on first use, and predict random rows. Our models of the
same names (`WideDeep` for its WDL) get those weights by name and predict the same rows. They agree
in inference: single ids, id sequences by their mean, histories that share tables, from empty to
full, padded behind or in front.

What needs a translation, and gets it:

- The rows of the first kernel: DeepCTR concatenates single ids, sequences, DIN's attention, then
  numbers; we the order of the schema, DIN's attention last.
- `global_bias` is our `linear_bias`, in DIN the bias of `logit`.
- Id 0: our vector is always zero, DeepCTR's row 0 is a row like others for a single id. It is set
  to zero. In DIN with softmax, DeepCTR gives an empty history the mean of padded rows: zero too.
- Softmax in DIN: our scores are divided by the root of the width, so the last layer of the scores
  is multiplied by it.
- Tasks: DeepCTR predicts every task of a row; ours are scenarios, of which a row has one. Its own
  task is taken, and the mean logit of all for an unknown scenario.
- Numbers in DIN and WDL: DeepCTR feeds them as they are, we normalize them by batch statistics
  (vectors not) and project them to the width of an embedding. The normalization is made the
  identity, the projection's rows orthonormal, and the first kernel is multiplied by the
  projection's transpose. That holds for vectors of at most `embedding_dim` numbers.

What is left out, because it differs:

- Numbers in DeepFM: ours are fields of the factorization machine, DeepCTR's are not.
- Positions where one history of DIN holds 0 and another does not: they count for us, and not in
  DeepCTR.
- Dice adds 1e-8 to the variance (the paper), DeepCTR 1e-9: variances are drawn from 0.5 on, where
  float32 cannot tell.
- Training: DeepCTR's Dice takes padded positions into the statistics of a batch, ours does not.
- What only one has: our crosses of Wide & Deep; there batch normalization, hashing in the model,
  sums and maxima and weights of sequences, and other features for the linear part than for the
  MLP.

Exit status: 0; 1 if a logit or a probability differs by more than 1e-5 or DeepCTR failed.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from deepctr_comparison.cases import CASES, Case
from training_bench.environments import DEEPCTR

TOLERANCE = 1e-5
HEADER = f"{'model':<32}{'rows':>6}{'spread of logits':>18}{'logits':>10}{'probabilities':>15}"
QUIET_CPU = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}


def main() -> int:
    arguments = parse_arguments()
    os.environ.update(QUIET_CPU, KERAS_BACKEND="tensorflow")
    within = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            run_deepctr(arguments, folder)
        except (RuntimeError, OSError) as error:
            print(f"DeepCTR: {error}", file=sys.stderr)
            return 1
        print(HEADER)
        for case in CASES.values():
            with np.load(pathlib.Path(folder) / f"{case.name}.npz") as stored:
                within.append(compare(case, dict(stored)))
    print(f"Columns 4 and 5: greatest absolute difference, to be at most {TOLERANCE:g}")
    return int(not all(within))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of weights and rows")
    parser.add_argument(
        "--venvs", type=pathlib.Path, default=pathlib.Path("~/.cache/ctr_keras/peers"),
        help="folder of the peers' environments, default: %(default)s",
    )  # fmt: skip
    return parser.parse_args()


def run_deepctr(arguments: argparse.Namespace, folder: str) -> None:
    """Writes one file a case to the folder."""
    python = DEEPCTR.python(arguments.venvs.expanduser())
    command = [str(python), "-m", "deepctr_comparison.predict_deepctr", "--folder", folder]
    command += ["--rows", str(arguments.rows), "--seed", str(arguments.seed)]
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).resolve().parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}:\n{done.stderr[-2000:]}")


def compare(case: Case, stored: dict[str, np.ndarray]) -> bool:
    """Prints a line of the table; whether the differences are small enough."""
    from deepctr_comparison import predict_ours  # TensorFlow reads the environment when imported.

    logits, probabilities = predict_ours.predict(
        case, part(stored, "weights/"), part(stored, "inputs/")
    )
    theirs = stored["logits"]
    differences = [
        float(np.abs(logits - theirs).max()),
        float(np.abs(probabilities - stored["probabilities"]).max()),
    ]
    cells = f"{theirs.std():>18.2f}{differences[0]:>10.1e}{differences[1]:>15.1e}"
    print(f"{case.name:<32}{len(theirs):>6}{cells}", flush=True)
    return all(difference <= TOLERANCE for difference in differences)  # Not where it is NaN.


def part(stored: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}


if __name__ == "__main__":
    sys.exit(main())
