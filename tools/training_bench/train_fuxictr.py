"""Models of FuxiCTR 2.3.10's layers, joined as its model zoo (not in the wheel) joins them.

Variants: `adam`, PyTorch's Adam as FuxiCTR makes it; `fused`, the same with PyTorch's fused kernel;
`sparse`, which FuxiCTR does not offer: sparse gradients and SparseAdam for the tables. FuxiCTR
also clips the gradient's norm in each step; that is left out, in its favour.
"""

import importlib.metadata
import os

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch import layers
from torch import nn

from training_bench import worker
from training_bench.workload import RESERVED_IDS


def feature_map(workload):
    features = FeatureMap("benchmark", "")
    features.labels = ["label"]
    for name, size in workload.ids:
        features.features[name] = {"type": "categorical", "vocab_size": size, "padding_idx": 0,
                                   "source": ""}  # fmt: skip
    if workload.history:
        features.features["history_item_id"] = {
            "type": "sequence", "vocab_size": dict(workload.ids)["item_id"], "padding_idx": 0,
            "max_len": workload.history, "share_embedding": "item_id", "source": "",
        }  # fmt: skip
    features.num_fields = features.get_num_fields()
    return features


class DIN(nn.Module):
    def __init__(self, workload):
        super().__init__()
        fields = feature_map(workload)
        self.embedding = layers.FeatureEmbeddingDict(fields, workload.dim)
        self.attention = layers.DIN_Attention(
            workload.dim, list(workload.attention_units), hidden_activations="Dice"
        )
        width = fields.num_fields * workload.dim
        self.network = layers.MLP_Block(width, list(workload.units), "ReLU", output_dim=1)

    def forward(self, features):
        embedded = self.embedding(features)
        mask = features["history_item_id"] != 0
        embedded["history_item_id"] = self.attention(
            embedded["item_id"], embedded["history_item_id"], mask
        )
        return self.network(self.embedding.dict2tensor(embedded, flatten_emb=True))


class DeepFM(nn.Module):
    def __init__(self, workload):
        super().__init__()
        fields = feature_map(workload)
        self.embedding = layers.FeatureEmbedding(fields, workload.dim)
        self.machine = layers.FactorizationMachine(fields)
        width = fields.num_fields * workload.dim
        self.network = layers.MLP_Block(width, list(workload.units), "ReLU", output_dim=1)

    def forward(self, features):
        embedded = self.embedding(features)
        return self.machine(features, embedded) + self.network(embedded.flatten(start_dim=1))


class MultiScenario(nn.Module):
    """MMoE, PLE of one level, or a shared bottom under a tower for each scenario."""

    def __init__(self, workload):
        super().__init__()
        fields = feature_map(workload)
        self.model, self.scenarios = workload.model, workload.scenarios
        self.embedding = layers.FeatureEmbedding(fields, workload.dim)
        width = fields.num_fields * workload.dim
        experts = {"MMoE": workload.experts, "PLE": self.scenarios + 1, "SharedBottom": 1}
        self.experts = nn.ModuleList(
            layers.MLP_Block(width, list(workload.units), "ReLU", output_activation="ReLU")
            for _ in range(experts[self.model])
        )
        mixed = {"MMoE": workload.experts, "PLE": 2, "SharedBottom": 0}[self.model]
        self.gates = nn.ModuleList(
            nn.Linear(width, mixed, bias=False) for _ in range(self.scenarios * bool(mixed))
        )
        self.towers = nn.ModuleList(
            layers.MLP_Block(workload.units[-1], list(workload.tower_units), "ReLU", output_dim=1)
            for _ in range(self.scenarios)
        )

    def forward(self, features):
        x = self.embedding(features).flatten(start_dim=1)
        outputs = [expert(x) for expert in self.experts]
        logits = [tower(self.mixture(k, x, outputs)) for k, tower in enumerate(self.towers)]
        own = features["scene"][:, None] - RESERVED_IDS
        return torch.cat(logits, dim=1).gather(1, own)

    def mixture(self, k, x, outputs):
        if self.model == "SharedBottom":
            return outputs[0]
        mixed = outputs if self.model == "MMoE" else [outputs[k], outputs[-1]]
        shares = self.gates[k](x).softmax(dim=1)
        return (shares[..., None] * torch.stack(mixed, dim=1)).sum(dim=1)


def optimizers(model, variant):
    if variant != "sparse":
        return [torch.optim.Adam(model.parameters(), lr=1e-3, fused=variant == "fused" or None)]
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    for table in tables:
        table.sparse = True
    sparse = {id(table.weight) for table in tables}
    dense = [weight for weight in model.parameters() if id(weight) not in sparse]
    return [
        torch.optim.SparseAdam([table.weight for table in dict.fromkeys(tables)], lr=1e-3),
        torch.optim.Adam(dense, lr=1e-3, fused=True),
    ]


def build(workload, features, labels, variant):
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(workload.seed)
    model = {"DIN": DIN, "DeepFM": DeepFM}.get(workload.model, MultiScenario)(workload).train()
    updates = optimizers(model, variant)
    columns = {name: torch.from_numpy(array).long() for name, array in features.items()}
    inputs = [{name: column[i] for name, column in columns.items()} for i in range(len(labels))]
    remaining = iter(zip(inputs, torch.from_numpy(labels[..., None]), strict=True))

    def step():
        rows, label = next(remaining)
        for update in updates:
            update.zero_grad()
        loss = nn.functional.binary_cross_entropy(torch.sigmoid(model(rows)), label)
        loss.backward()
        for update in updates:
            update.step()
        return loss.detach()

    return step


if __name__ == "__main__":
    worker.main(build, {name: importlib.metadata.version(name) for name in ("fuxictr", "torch")})
