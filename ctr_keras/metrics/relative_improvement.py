"""How much of a base's lead over chance a model adds."""


def relative_improvement(auc: float, base: float) -> float:
    """RelaImpr: the gain over a base as a share of what the base is better than chance.

        RelaImpr = (auc - 0.5) / (base - 0.5) - 1

    Args:
        auc: AUC (or GAUC) of the model.
        base: That of the base model.

    Returns:
        0.02 for 2 %; NaN where the base is as good as chance.

    Example:

    >>> round(relative_improvement(0.71, 0.70), 4)
    0.05

    Reference:
        [Yan et al., 2014: Coupled Group Lasso for Web-Scale CTR
        Prediction](https://proceedings.mlr.press/v32/yan14.html)
    """
    lead = float(base) - 0.5
    return (float(auc) - 0.5) / lead - 1 if lead else float("nan")
