"""Pairs of a few words, and a small BERT that knows the words."""

import pandas as pd

from ctr_keras.datasets import search_pairs
from tests.pretraining import tiny_bert

_WORDS = ["tea", "coffee", "green", "cafe"]


def write(folder):
    """`bert`, the encoder, and `data`, as `ctr-keras prepare pairs` makes it."""
    tiny_bert.write(folder / "bert")
    rows = []
    for n in range(120):
        first, second, other = _WORDS[n % 4], _WORDS[n // 4 % 4], _WORDS[(n + 1) % 4]
        rows += [
            (f"{first} {'green ' * (n // 16)}", f"{first};{second}", n % 16, 3.0),
            (f"{first} {'green ' * (n // 16)}", f"{other};{other}", 99, 1.0),
        ]
    names = ["search_term", "product_title", "product_uid", "relevance"]
    pd.DataFrame(rows, columns=names).to_csv(folder / "rows.csv", index=False)
    search_pairs.prepare(
        folder / "data", folder / "rows.csv", held_out=0.2, seed=3, report=lambda line: None
    )
    return folder
