"""Which exposures of the AntM2C view are clicked: a known probability.

In scenario `s` a user `u` with the taste `p_u` likes an item `i` of category `c_i` by

    z = w_taste <p_u (1 + t_s), v_i> + <p_u, d_s> + w_interest [c_i in interests of u]
        + w_quality q_i

with the vectors and weights of `simulator.world`; `t_s` and `d_s` are what a scenario is about
(drawn at random, coordinates of standard deviation 0.5 and 0.5 / sqrt(width)), so that scenarios
have much in common and something of their own. The item is clicked with probability
`1 / (1 + exp(-(b_s + z)))`, `b_s` found so that the mean is the scenario's click rate.
"""

import numpy as np

from ctr_keras.datasets.simulator.antm2c_exposures import SCENES, AntM2CConfig, Shelf
from ctr_keras.datasets.simulator.click_rate import bias_for, sigmoid
from ctr_keras.datasets.simulator.world import USERS_PER_CHUNK, VIEW_STREAM, World

_PILOT_STREAM = 5
_PILOT_CHUNKS = 16
_SCENE_TILT = 0.5
_SCENE_DRIFT = 0.5


class Users:
    """A chunk of users: their tastes and interests.

    Args:
        world: The world.
        first: Number of the chunk's first user.
        random: What interests are drawn from.
    """

    def __init__(self, world: World, first: int, random: np.random.Generator):
        self.id = np.arange(first, first + USERS_PER_CHUNK)
        self.taste = world.tastes(self.id)
        found = [world.new_interests(self.taste, random) for _ in range(world.config.interests)]
        self.interests = np.stack(found, axis=1)


class Clicks:
    """The probability of a click.

    Args:
        world: Items and weights.
        config: Click rates.
        shelf: What the rates are means over.
        random: What makes the scenarios different is drawn from it.
    """

    def __init__(
        self, world: World, config: AntM2CConfig, shelf: Shelf, random: np.random.Generator
    ):
        self._world = world
        shape = (len(SCENES), world.config.width)
        self._tilt = (1 + _SCENE_TILT * random.standard_normal(shape)).astype(np.float32)
        drift = _SCENE_DRIFT * random.standard_normal(shape) / world.config.width**0.5
        self._drift = drift.astype(np.float32)
        self._bias = self._find_bias(config, shelf)

    def probability(
        self, users: Users, user: np.ndarray, item: np.ndarray, scene: np.ndarray
    ) -> np.ndarray:
        """Of each row: a user's position in the chunk, an item and a scenario."""
        return sigmoid(self._bias[scene] + self._liking(users, user, item, scene))

    def _liking(
        self, users: Users, user: np.ndarray, item: np.ndarray, scene: np.ndarray
    ) -> np.ndarray:
        world, config = self._world, self._world.config
        vector, taste = world.item_vector[item], users.taste[user]
        wanted = config.taste_weight * self._tilt[scene] * vector + self._drift[scene]
        of_interest = users.interests[user] == world.item_category[item][:, None]
        return (
            np.einsum("rd,rd->r", taste, wanted)
            + config.interest_weight * of_interest.any(axis=1)
            + config.quality_weight * world.item_quality[item]
        ).astype(np.float64)

    def _find_bias(self, config: AntM2CConfig, shelf: Shelf) -> np.ndarray:
        """By bisection, on a pilot row of each scenario for each of many users."""
        random = np.random.default_rng([config.seed, VIEW_STREAM, _PILOT_STREAM])
        user = np.arange(USERS_PER_CHUNK)
        is_last = np.zeros(USERS_PER_CHUNK, bool)
        likings: list[list[np.ndarray]] = [[] for _ in SCENES]
        for chunk in range(_PILOT_CHUNKS):
            users = Users(self._world, 1 + chunk * USERS_PER_CHUNK, random)
            for number, found in enumerate(likings):
                scene = np.full(USERS_PER_CHUNK, number)
                item = shelf.draw(scene, is_last, random)
                found.append(self._liking(users, user, item, scene))
        rates = zip(likings, config.click_rates, strict=True)
        return np.array([bias_for(np.concatenate(found), rate) for found, rate in rates])
