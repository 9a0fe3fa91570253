"""Impressions of the world's users: what is shown, with what probability it is clicked."""

import dataclasses
from typing import Any

import numpy as np

from ctr_keras.columns import Columns, Ragged
from ctr_keras.data.history import PastEvents
from ctr_keras.datasets.simulator import clock
from ctr_keras.datasets.simulator.click_rate import bias_for, sigmoid
from ctr_keras.datasets.simulator.world import VIEW_STREAM, Journey, World, by_user

DAYS = 10
EXPLORE = 0.5
_STREAM, _PILOT_STREAM = 1, 2
_PILOT_USERS, _PILOT_ROUNDS = 1024, 3


@dataclasses.dataclass(frozen=True)
class ImpressionsConfig:
    """How the log comes about.

    Args:
        mean_impressions: Mean number of impressions a user, at least 1.
        mean_past_clicks: Mean number of clicks that a user brings from before the log.
        click_rate: Mean click probability that the log comes near to.
        history_length: How many past clicks a row keeps, the newest.
    """

    mean_impressions: float = 100.0
    mean_past_clicks: float = 10.0
    click_rate: float = 0.05
    history_length: int = 50

    def __post_init__(self):
        if not self.mean_impressions >= 1:
            self._fail("at least 1", "mean_impressions")
        if not self.mean_past_clicks >= 0:
            self._fail("at least 0", "mean_past_clicks")
        if not 0 < self.click_rate < 1:
            self._fail("between 0 and 1", "click_rate")
        if not isinstance(self.history_length, int) or self.history_length < 1:
            self._fail("a positive integer", "history_length")

    def _fail(self, expected: str, name: str):
        raise ValueError(f"`{name}` must be {expected}. Received: `{name}={getattr(self, name)!r}`")


@dataclasses.dataclass(frozen=True)
class Log:
    """Impressions of some users: arrays `(steps, users)`.

    Attributes:
        made: Whether the user made so many steps; the other entries have no meaning.
        item: Position of the item shown.
        probability: Of its click.
        clicked: Whether it was clicked.
        breaks: Whether the user's thread broke before.
    """

    made: np.ndarray
    item: np.ndarray
    probability: np.ndarray
    clicked: np.ndarray
    breaks: np.ndarray


def impressions(journey: Journey, lengths: np.ndarray, bias: float) -> Log:
    """Show each user items, one a step, and have them clicked.

    Args:
        journey: The users, wherever they are.
        lengths: How many impressions each user has.
        bias: What is added to the score.
    """
    shape = (int(lengths.max(initial=0)), len(lengths))
    log = Log(
        made=np.arange(shape[0])[:, None] < lengths,
        item=np.zeros(shape, np.int64),
        probability=np.zeros(shape),
        clicked=np.zeros(shape, bool),
        breaks=np.zeros(shape, bool),
    )
    for step in range(shape[0]):
        users = np.flatnonzero(log.made[step])
        log.breaks[step, users] = journey.move(users)
        shown = journey.propose(users, 1, EXPLORE)
        probability = sigmoid(bias + journey.score(users, shown)[:, 0])
        clicked = journey.random.random(len(users)) < probability
        journey.click(users[clicked], shown[clicked, 0])
        log.item[step, users] = shown[:, 0]
        log.probability[step, users] = probability
        log.clicked[step, users] = clicked
    return log


def find_bias(world: World, config: ImpressionsConfig) -> float:
    """What to add to the scores for the mean probability of a small log to be the click rate."""
    users = next(world.chunks())[:_PILOT_USERS]
    # Clicks change later scores, a little; a few rounds are enough.
    bias = float(np.log(config.click_rate / (1 - config.click_rate)))
    for number in range(_PILOT_ROUNDS):
        random = np.random.default_rng([world.config.seed, VIEW_STREAM, _PILOT_STREAM, number])
        journey = Journey(world, users, random)
        journey.walk(_past_lengths(config, len(users), random))
        lengths = clock.counts(config.mean_impressions, len(users), random)
        log = impressions(journey, lengths, bias)
        probability = log.probability[log.made]
        score = np.log(probability / (1 - probability)) - bias
        bias = bias_for(score, config.click_rate)
    return bias


def _past_lengths(config: ImpressionsConfig, users: int, random: np.random.Generator) -> np.ndarray:
    return clock.counts(config.mean_past_clicks, users, random, least=0)


def rows_of(
    world: World, config: ImpressionsConfig, users: np.ndarray, bias: float, first: int
) -> tuple[Columns, np.ndarray]:
    """The impressions of a chunk of users.

    Args:
        world: The world.
        config: How the log comes about.
        users: A chunk of `World.chunks`.
        bias: What is added to the scores.
        first: Number of the first impression.

    Returns:
        The rows by user and time, and the probability of each row's click.
    """
    random = np.random.default_rng([world.config.seed, VIEW_STREAM, _STREAM, int(users[0])])
    past_lengths = _past_lengths(config, len(users), random)
    lengths = clock.counts(config.mean_impressions, len(users), random)
    journey = Journey(world, users, random)
    past_item, past_breaks = journey.walk(past_lengths)
    log = impressions(journey, lengths, bias)
    seconds = DAYS * clock.DAY
    past_time = clock.times(past_breaks, past_lengths, clock.BEGIN - seconds, seconds, random)
    time = clock.times(log.breaks, lengths, clock.BEGIN, seconds - len(log.item), random)
    # No two impressions of a user share a second, so that a history holds every earlier click.
    time += np.arange(len(time))[:, None]
    past_made = np.arange(len(past_item))[:, None] < past_lengths
    past_user, past_item, past_time = by_user(past_made, past_item, past_time)
    user, item, time, clicked, probability = by_user(
        log.made, log.item, time, log.clicked, log.probability
    )
    past = PastEvents.of(
        np.concatenate([past_user, user[clicked]]), np.concatenate([past_time, time[clicked]])
    )
    found = past.before(user, time, config.history_length)
    clicked_item = np.concatenate([past_item, item[clicked]])
    columns: Columns = {
        "user_id": users[user],
        **_item_columns(world, "", item),
        **_item_columns(world, "history_", Ragged(clicked_item[found.values], found.lengths)),
        "group_user_id": users[user],
        "group_impression_id": np.arange(first, first + len(user)),
        "time": time,
        "label": clicked.astype(np.float32),
    }
    return columns, probability


def _item_columns(world: World, prefix: str, item: Any) -> Columns:
    """Ids and categories of positions, be they an array or ragged."""
    values = item.values if isinstance(item, Ragged) else item
    columns = {
        f"{prefix}item_id": world.item_id[values],
        f"{prefix}category_id": world.category_id[world.item_category[values]],
    }
    if isinstance(item, Ragged):
        return {name: Ragged(column, item.lengths) for name, column in columns.items()}
    return columns
