"""The weights of the multi-scenario models: DeepCTR's of one task each, ours side by side."""

from collections.abc import Callable

import numpy as np

from deepctr_comparison.cases import EXPERTS, TOWER_UNITS, UNITS, Case


def translated(
    case: Case, theirs: dict, reordered: Callable[[np.ndarray], np.ndarray]
) -> dict[str, np.ndarray]:
    """Our weights by path; takes theirs out of `theirs`.

    Args:
        case: What is compared.
        theirs: DeepCTR's weights by name.
        reordered: The rows of a kernel of the features, in our order.
    """
    bottoms = {"SharedBottom": _bottom, "MMoE": _mmoe, "PLE": _ple}
    return {**bottoms[case.model](case, theirs, reordered), **_towers(case, theirs)}


def _bottom(case, theirs, reordered):
    kernels, biases = _pop(theirs, ["dnn"], len(UNITS))
    kernels[0][0] = reordered(kernels[0][0])
    return {
        f"bottom/bottom/dense_{i}/{part}": values[i][0]
        for i in range(len(UNITS))
        for part, values in (("kernel", kernels), ("bias", biases))
    }


def _mmoe(case, theirs, reordered):
    experts = [f"expert_{n}" for n in range(EXPERTS)]
    gates = [f"gate_softmax_{name}" for name in case.scenarios]
    return {
        **_common(_pop(theirs, experts, len(UNITS)), "mixture/experts", reordered),
        "mixture/gates/kernel_0": _gates(theirs, gates, reordered),
    }


def _ple(case, theirs, reordered):
    weights = {}
    for level in range(case.levels):
        first, name = level == 0, f"level_{level}_"
        experts = [f"{name}task_{task}_expert_specific_0" for task in case.scenarios]
        found = _pop(theirs, [*experts, f"{name}expert_shared_0"], len(UNITS))
        gates = [f"{name}gate_softmax_specific_{task}" for task in case.scenarios]
        place = f"mixture/experts_{level}"
        weights |= _common(found, place, reordered) if first else _own(found, place)
        of_tasks = f"mixture/gates_{level}/kernel_0"
        weights[of_tasks] = _gates(theirs, gates, reordered if first else None)
        if level < case.levels - 1:
            shared = theirs.pop(f"{name}gate_softmax_shared/kernel")
            shared = reordered(shared) if first else shared
            weights[f"mixture/shared_gate_{level}/kernel_0"] = shared
    return weights


def _towers(case, theirs):
    towers = _pop(theirs, [f"tower_{name}" for name in case.scenarios], len(TOWER_UNITS))
    last = [f"dense{'' if n == 0 else f'_{n}'}/kernel" for n in range(len(case.scenarios))]
    biases = [theirs.pop(f"{name}/global_bias") for name in case.scenarios]
    return {
        **_own(towers, "towers/towers"),
        "towers/logits/kernel_0": np.stack([theirs.pop(name) for name in last]),
        "towers/logits/bias_0": np.concatenate(biases),
    }


def _pop(theirs, names, depth):
    """Kernels and biases of several networks: a list by layer of lists by network."""
    return tuple(
        [[theirs.pop(f"{name}/{part}{i}") for name in names] for i in range(depth)]
        for part in ("kernel", "bias")
    )


def _common(weights, place, reordered):
    """Networks that all take the features: the first kernels lie side by side."""
    kernels, biases = weights
    found = _own((kernels, biases), place)
    found[f"{place}/kernel_0"] = np.stack([reordered(kernel) for kernel in kernels[0]], axis=1)
    return found


def _own(weights, place):
    """Networks with an input each: kernels behind each other."""
    kernels, biases = weights
    found = {f"{place}/kernel_{i}": np.stack(of_layer) for i, of_layer in enumerate(kernels)}
    return found | {
        f"{place}/bias_{i}": np.concatenate(of_layer) for i, of_layer in enumerate(biases)
    }


def _gates(theirs, names, reordered):
    """`(features, tasks, experts)`, or `(tasks, width, experts)` for inputs of their own."""
    kernels = [theirs.pop(f"{name}/kernel") for name in names]
    if reordered is None:
        return np.stack(kernels)
    return np.stack([reordered(kernel) for kernel in kernels], axis=1)
