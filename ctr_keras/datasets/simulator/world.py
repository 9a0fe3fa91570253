"""The simulated world: items in categories, users with tastes, and interests that drift.

All views of the simulator see this one world. Written `N` for a normal and `w` for the weights of
`WorldConfig`, with width `d`:

- A category `c` has a vector `x_c ~ N(0, I/d)`, a share of the items that falls with its rank,
  and three successors drawn at random: what one needs after it.
- An item `i` of category `c` has a vector `v_i = (x_c + e_i) / sqrt(2)`, `e_i ~ N(0, I/d)`, and a
  quality `q_i ~ N(0, 1)`. Its popularity is `rank^-popularity`; the rank is that of its quality
  plus as much noise.
- A user `u` has a taste `p_u ~ N(0, I)`. At every step the user has some `interests`, which are
  categories, one of them at hand, and a memory `h` of what was clicked.

A step goes like this. With probability `drift` one interest gives way to another: in half of the
cases to a successor of the one at hand, else to a new one, drawn from categories that the user
comes across (in proportion to their sizes) by the softmax of `2 <p_u, x_c>`. With probability
`1 - stay` another interest comes to hand. Items are proposed: of the category at hand or, with the
view's probability `explore`, of all, in proportion to popularity in either case. How much the user
likes an item is its score

    s(u, i) = w_taste <p_u, v_i> + w_recent <h, v_i> + w_interest [c_i in interests] + w_quality q_i

What a score leads to is the view's affair. A click moves the memory: `h <- memory h +
(1 - memory) v_i`. So a row has something in it for the ids of its user and item (tastes), for the
item alone (quality), for the past as a set (interests, memory) and for its order (successors, what
is at hand), and much that nobody can know: interests show in clicks alone. The weights are round
numbers that were set before any model was trained on the world.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from ctr_keras.argument_checks import check_positive_integers

USERS_PER_CHUNK = 4096
_CATEGORIES_MET = 16
_CATEGORY_TASTE = 2.0
_SUCCESSORS = 3
# Streams of random numbers, so that what one part draws does not depend on the others.
_WORLD_STREAM, _TASTE_STREAM, VIEW_STREAM = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """The sizes and numbers of a world.

    Args:
        users: Number of users.
        items: Number of items.
        categories: Number of categories, at most `items`.
        seed: Of everything random.
        width: Of the hidden vectors.
        popularity: Exponent of the long tail: 0 for none.
        interests: How many interests a user has at a time.
        drift: Probability that a step replaces an interest.
        stay: Probability that a step keeps the interest at hand.
        memory: What a click leaves of the memory of earlier ones.
        taste_weight: Weight of the user's taste in the score.
        recent_weight: Weight of the likeness to what was clicked lately.
        interest_weight: Weight of an interest in the item's category.
        quality_weight: Weight of the item's quality.
    """

    users: int = 10_000
    items: int = 50_000
    categories: int = 300
    seed: int = 0
    width: int = 16
    popularity: float = 0.8
    interests: int = 3
    drift: float = 0.05
    stay: float = 0.8
    memory: float = 0.8
    taste_weight: float = 1.0
    recent_weight: float = 1.0
    interest_weight: float = 1.0
    quality_weight: float = 0.5

    def __post_init__(self):
        check_positive_integers(self, "users", "items", "categories", "width", "interests")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(
                f"`seed` must be an integer of at least 0. Received: `seed={self.seed!r}`"
            )
        if self.categories > self.items:
            raise ValueError(
                f"Each category needs an item: `categories` must be at most `items`, {self.items}. "
                f"Received: `categories={self.categories!r}`"
            )
        if not 0 <= self.popularity < np.inf:
            raise ValueError(
                f"`popularity` must be at least 0. Received: `popularity={self.popularity!r}`"
            )
        for name in ("drift", "stay", "memory"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` must be in [0, 1]. Received: `{name}={value!r}`")


class World:
    """The items and categories of a world; users are drawn as they are asked for.

    Items are known by their position, in the order of their categories. Memory grows with the
    number of items, not of users.

    Args:
        config: Sizes and numbers.

    Attributes:
        item_id: What files call each item: `1 ... items` in random order.
        item_category: Position of each item's category.
        category_id: What files call each category: `1 ... categories` in random order.
    """

    def __init__(self, config: WorldConfig):
        self.config = config
        random = np.random.default_rng([config.seed, _WORLD_STREAM])
        items, categories, width = config.items, config.categories, config.width
        self.item_id = random.permutation(items) + 1
        self.category_id = random.permutation(categories) + 1
        size = (np.arange(categories) + 1.0) ** -config.popularity
        # One item each, so that no category is empty.
        rest = random.choice(categories, items - categories, p=size / size.sum())
        self.item_category = np.sort(np.concatenate([np.arange(categories), rest]))
        self._first_item = np.searchsorted(self.item_category, np.arange(categories + 1))
        self.category_vector = _normal(random, (categories, width)) / np.float32(width**0.5)
        self._successors = random.integers(0, categories, (categories, _SUCCESSORS))
        own = _normal(random, (items, width)) / np.float32(width**0.5)
        self.item_vector = (self.category_vector[self.item_category] + own) / np.float32(2**0.5)
        self.item_quality = _normal(random, (items,))
        order = np.argsort(-(self.item_quality + _normal(random, (items,))), kind="stable")
        weight = np.empty(items)
        weight[order] = (np.arange(items) + 1.0) ** -config.popularity
        self._weight_before = np.concatenate([[0.0], np.cumsum(weight)])

    def chunks(self) -> Iterator[np.ndarray]:
        """The users `1 ... users`, up to `USERS_PER_CHUNK` at a time."""
        for first in range(1, self.config.users + 1, USERS_PER_CHUNK):
            yield np.arange(first, min(first + USERS_PER_CHUNK, self.config.users + 1))

    def tastes(self, users: np.ndarray) -> np.ndarray:
        """The tastes of one chunk's users, the same ones in each view."""
        random = np.random.default_rng([self.config.seed, _TASTE_STREAM, int(users[0])])
        return _normal(random, (len(users), self.config.width))

    def popular_items(self, random: np.random.Generator, count: tuple[int, ...]) -> np.ndarray:
        """Items in proportion to popularity."""
        return self._item_at(random.random(count) * self._weight_before[-1])

    def items_of(self, categories: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """For each category, one of its items in proportion to popularity."""
        first, last = self._first_item[categories], self._first_item[categories + 1] - 1
        low, high = self._weight_before[first], self._weight_before[last + 1]
        found = self._item_at(low + random.random(categories.shape) * (high - low))
        return np.clip(found, first, last)  # Rounding may step over a border.

    def new_interests(self, tastes: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """For each taste, a category of those that the user comes across."""
        # An item drawn at random is of a category in proportion to the category's size.
        met = random.integers(0, self.config.items, (len(tastes), _CATEGORIES_MET))
        met = self.item_category[met]
        liking = _CATEGORY_TASTE * _dot(tastes, self.category_vector[met])
        return _take(met, np.argmax(liking + random.gumbel(size=met.shape), axis=1))

    def successor(self, categories: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """For each category, one of those that follow it."""
        return self._successors[categories, random.integers(0, _SUCCESSORS, len(categories))]

    def _item_at(self, weight: np.ndarray) -> np.ndarray:
        found = np.searchsorted(self._weight_before, weight, side="right") - 1
        return np.minimum(found, self.config.items - 1)


class Journey:
    """Some users on their way through the world, a step at a time.

    Args:
        world: The world.
        users: A chunk of `World.chunks`.
        random: What everything on the way is drawn from.
    """

    def __init__(self, world: World, users: np.ndarray, random: np.random.Generator):
        self.world, self.random = world, random
        self._taste = world.tastes(users)
        slots = [world.new_interests(self._taste, random) for _ in range(world.config.interests)]
        self._interests = np.stack(slots, axis=1)
        self._at_hand = np.zeros(len(users), np.int64)
        self._memory = np.zeros_like(self._taste)

    def move(self, users: np.ndarray) -> np.ndarray:
        """Begin a step; tell of each user (a position in the chunk) whether the thread broke.

        It did where another interest came to hand, or the one at hand was replaced.
        """
        config, random = self.world.config, self.random
        before = self._interests[users, self._at_hand[users]]
        self._drift(users[random.random(len(users)) < config.drift])
        movers = users[random.random(len(users)) >= config.stay]
        self._at_hand[movers] = random.integers(0, config.interests, len(movers))
        return self._interests[users, self._at_hand[users]] != before

    def propose(self, users: np.ndarray, count: int, explore: float) -> np.ndarray:
        """Items for each user: int `(users, count)`."""
        at_hand = self._interests[users, self._at_hand[users]]
        of_interest = self.world.items_of(np.repeat(at_hand[:, None], count, axis=1), self.random)
        of_all = self.world.popular_items(self.random, of_interest.shape)
        return np.where(self.random.random(of_all.shape) < explore, of_all, of_interest)

    def score(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """How much each user likes each of the items `(users, count)`, as the module says."""
        world, config = self.world, self.world.config
        wanted = config.taste_weight * self._taste[users]
        wanted += config.recent_weight * self._memory[users]
        of_interest = world.item_category[items][:, :, None] == self._interests[users][:, None]
        return (
            _dot(wanted, world.item_vector[items])
            + config.interest_weight * of_interest.any(axis=2)
            + config.quality_weight * world.item_quality[items]
        ).astype(np.float64)

    def click(self, users: np.ndarray, items: np.ndarray) -> None:
        """Remember a click of each of these users."""
        kept = np.float32(self.world.config.memory)
        self._memory[users] = (
            kept * self._memory[users] + (1 - kept) * self.world.item_vector[items]
        )

    def browse(self, users: np.ndarray, candidates: int = 8, explore: float = 0.1) -> np.ndarray:
        """Have each user click one of some items, by the softmax of their scores."""
        items = self.propose(users, candidates, explore)
        scores = self.score(users, items)
        chosen = _take(items, np.argmax(scores + self.random.gumbel(size=scores.shape), axis=1))
        self.click(users, chosen)
        return chosen

    def walk(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Have each user browse for a number of steps.

        Args:
            lengths: Steps of each user. What is behind them in the result has no meaning.

        Returns:
            The items clicked, and whether the thread broke before: `(steps, users)` each.
        """
        items = np.zeros((int(lengths.max(initial=0)), len(lengths)), np.int64)
        breaks = np.zeros(items.shape, bool)
        for step in range(len(items)):
            users = np.flatnonzero(lengths > step)
            breaks[step, users] = self.move(users)
            items[step, users] = self.browse(users)
        return items, breaks

    def _drift(self, users: np.ndarray) -> None:
        slot = self.random.integers(0, self.world.config.interests, len(users))
        new = self.world.new_interests(self._taste[users], self.random)
        next_ = self.world.successor(self._interests[users, self._at_hand[users]], self.random)
        follows = self.random.random(len(users)) < 0.5
        self._interests[users, slot] = np.where(follows, next_, new)


def by_user(made: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
    """Entries `(steps, users)` as rows, those of a user together and in their order.

    Args:
        made: Bool `(steps, users)`: which entries are rows.
        *columns: Arrays `(steps, users)`.

    Returns:
        Arrays `(rows,)`: the user's position, then each of `columns`.
    """
    user = np.broadcast_to(np.arange(made.shape[1]), made.shape)
    return [column.T[made.T] for column in (user, *columns)]


def _normal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.standard_normal(shape, dtype=np.float32)


def _dot(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`(users, width)` with `(users, count, width)`: `(users, count)`."""
    return np.einsum("ud,ucd->uc", vectors, others)


def _take(rows: np.ndarray, column: np.ndarray) -> np.ndarray:
    return rows[np.arange(len(rows)), column]
