"""Meta-learned user preference estimator."""

from ctr_keras.api_export import export
from ctr_keras.models.cold_start.task_model import TaskModel


@export
class MeLU(TaskModel):
    """As `MAML`, but a task adapts the decision layers alone.

        inner:  theta_t <- theta_t - inner_learning_rate * grad support_loss_t(theta_t, E)
        outer:  loss = mean_t query_loss_t(theta_t, E)

    `theta_t` starts at the shared weights of the decision layers; the embeddings `E` are the same
    for all tasks and learn from the outer loss alone, through both the query and the inner steps.
    The paper predicts ratings, with an inner step size of 5e-6 and one step; the mean log loss here
    has small gradients, with which such a step would change nothing.

    Data, `adapt`, `predict` and export are those of `MAML`.

    Args:
        schema: `ck.Schema` of the features.
        embedding_dim: Width of the embeddings.
        units: Widths of the decision layers before the logit.
        activation: Activation between them.
        inner_learning_rate: Step size of the inner loop.
        inner_steps: Number of inner steps.
        first_order: Whether the outer gradient takes the inner one as a constant.
        l2: Weight of the squared norm of the table rows that a batch touches, in the outer loss.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Example:

    >>> model = ck.models.MeLU(schema, embedding_dim=16)
    >>> model.compile(ck.optimizers.LazyAdam(1e-3))
    >>> model.fit(ck.data.read_tasks("tf_data/movielens/train", schema, "user_id", shuffle=True))

    Reference:
        [Lee et al., 2019: MeLU](https://arxiv.org/abs/1908.00413), algorithm 1
    """

    moves_embeddings = False
