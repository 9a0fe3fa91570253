"""Model-agnostic meta-learning for cold users and items."""

from ctr_keras.api_export import export
from ctr_keras.models.cold_start.task_model import TaskModel


@export
class MAML(TaskModel):
    """Weights from which a few steps on a user's (or an item's) rows lead to a good model of it.

        inner:  theta_t <- theta_t - inner_learning_rate * grad support_loss_t(theta_t)
        outer:  loss = mean_t query_loss_t(theta_t)

    `theta_t` starts at the shared weights of the decision layers and the embeddings of the ids in
    the support rows of task `t`. The outer gradient goes through the inner steps (second order).
    All tasks of a batch go at once: their decision layers as batched products, see `TaskSteps`, and
    of the embeddings only those that a task touches, so that a step costs the same whatever the
    size of the tables.

    It learns from batches of tasks, as `ck.data.read_tasks` yields them. A task without query rows
    has no part in the loss, one without support rows has the shared weights. `predict`, `evaluate`
    and the exported SavedModel take rows like those of any model and use the shared weights;
    `adapt(support).predict(features)` uses those of a task.

    A feature with several values (history, genres, words) enters as the mean of its values.

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

    >>> model = ck.models.MAML(schema, embedding_dim=16)
    >>> model.compile(ck.optimizers.LazyAdam(1e-3))
    >>> model.fit(ck.data.read_tasks("tf_data/movielens/train", schema, "user_id", shuffle=True))
    >>> adapted = model.adapt((features, label))     # the rows of one user, so far
    >>> adapted.predict(candidates)

    Reference:
        [Finn et al., 2017: Model-Agnostic Meta-Learning](https://arxiv.org/abs/1703.03400),
        algorithm 2
    """

    moves_embeddings = True
