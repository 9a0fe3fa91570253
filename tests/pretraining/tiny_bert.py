"""A small BERT of random weights as a Hugging Face folder, and a NumPy reading of it."""

import json

import numpy as np
from scipy import special

WIDTH, LAYERS, HEADS, INNER, POSITIONS = 12, 2, 3, 20, 16
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "tea", "cof", "##fee", "green", ";", "cafe"]


def write(folder, seed=0):
    """`config.json`, `model.safetensors` and `vocab.txt`; returns the weights by name."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(seed)
    weights = {}

    def dense(name, rows, columns):
        weights[f"{name}.weight"] = rng.normal(0, 0.4, (columns, rows))
        weights[f"{name}.bias"] = rng.normal(0, 0.4, columns)

    def norm(name):
        weights[f"{name}.weight"] = rng.normal(1, 0.2, WIDTH)
        weights[f"{name}.bias"] = rng.normal(0, 0.2, WIDTH)

    sizes = {"word": len(PIECES), "position": POSITIONS, "token_type": 2}
    for name, size in sizes.items():
        weights[f"embeddings.{name}_embeddings.weight"] = rng.normal(0, 1, (size, WIDTH))
    norm("embeddings.LayerNorm")
    for n in range(LAYERS):
        layer = f"encoder.layer.{n}"
        for part in ("query", "key", "value"):
            dense(f"{layer}.attention.self.{part}", WIDTH, WIDTH)
        dense(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        norm(f"{layer}.attention.output.LayerNorm")
        dense(f"{layer}.intermediate.dense", WIDTH, INNER)
        dense(f"{layer}.output.dense", INNER, WIDTH)
        norm(f"{layer}.output.LayerNorm")
    dense("pooler.dense", WIDTH, WIDTH)
    weights = {name: w.astype(np.float32) for name, w in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, str(folder / "model.safetensors"))
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": len(PIECES),
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return weights


def vector(weights, ids):
    """What one text's word pieces come to, by the formulas of the papers."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    words, places, kinds = (
        w[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    )
    x = norm(words[ids] + places[: len(ids)] + kinds[0], "embeddings.LayerNorm")
    for n in range(LAYERS):
        layer = f"encoder.layer.{n}"
        q, k, v = (
            dense(x, f"{layer}.attention.self.{part}").reshape(len(ids), HEADS, -1)
            for part in ("query", "key", "value")
        )
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(WIDTH // HEADS)
        mixed = np.einsum("hqk,khd->qhd", special.softmax(scores, axis=-1), v)
        mixed = dense(mixed.reshape(len(ids), WIDTH), f"{layer}.attention.output.dense")
        x = norm(x + mixed, f"{layer}.attention.output.LayerNorm")
        inner = dense(x, f"{layer}.intermediate.dense")
        inner = inner * special.ndtr(inner)  # GELU
        x = norm(x + dense(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)
