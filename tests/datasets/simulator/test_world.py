import numpy as np
import pytest

from ctr_keras.datasets.simulator import clock
from ctr_keras.datasets.simulator.world import Journey, World, WorldConfig, by_user

SMALL = WorldConfig(users=5000, items=400, categories=20, seed=3)


def random(seed=0):
    return np.random.default_rng(seed)


def test_items_are_sorted_by_category_and_none_is_empty():
    world = World(SMALL)
    assert sorted(world.item_id) == list(range(1, 401))
    assert sorted(world.category_id) == list(range(1, 21))
    assert (np.diff(world.item_category) >= 0).all()
    sizes = np.bincount(world.item_category)
    assert sizes.min() >= 1 and sizes[0] == sizes.max()
    tight = World(WorldConfig(items=5, categories=5))
    assert tight.item_category.tolist() == [0, 1, 2, 3, 4]


def test_proposals_follow_popularity_and_category():
    world = World(SMALL)
    wanted = np.repeat([[0], [7]], 20_000, axis=1)
    found = world.items_of(wanted, random())
    assert (world.item_category[found] == wanted).all()
    weight = np.diff(world._weight_before)
    for row, category in zip(found, (0, 7), strict=True):
        of_category = world.item_category == category
        expected = np.where(of_category, weight, 0) / weight[of_category].sum()
        assert np.abs(np.bincount(row, minlength=400) / 20_000 - expected).max() < 0.02
    found = world.popular_items(random(), (50_000,))
    assert np.abs(np.bincount(found, minlength=400) / 50_000 - weight / weight.sum()).max() < 0.01


def test_users_come_in_chunks_and_keep_their_tastes():
    world = World(SMALL)
    chunks = list(world.chunks())
    assert [len(chunk) for chunk in chunks] == [4096, 904]
    assert np.concatenate(chunks).tolist() == list(range(1, 5001))
    taste = world.tastes(chunks[1])
    np.testing.assert_array_equal(taste, World(SMALL).tastes(chunks[1]))
    assert not np.array_equal(taste[:10], world.tastes(chunks[0])[:10])


def test_score_is_the_documented_formula():
    config = WorldConfig(
        users=3,
        items=30,
        categories=4,
        width=5,
        memory=0.7,
        taste_weight=1.1,
        recent_weight=1.3,
        interest_weight=1.7,
        quality_weight=0.3,
    )
    world = World(config)
    users = next(world.chunks())
    journey = Journey(world, users, random())
    journey.click(np.array([1]), np.array([4]))
    journey.click(np.array([1]), np.array([9]))
    memory = 0.7 * (0.3 * world.item_vector[4]) + 0.3 * world.item_vector[9]
    items = np.array([[2, 20, 29]])
    taste = world.tastes(users)[1]
    for item, score in zip(items[0], journey.score(np.array([1]), items)[0], strict=True):
        in_interests = world.item_category[item] in journey._interests[1]
        expected = 1.1 * taste @ world.item_vector[item] + 1.3 * memory @ world.item_vector[item]
        expected += 1.7 * in_interests + 0.3 * world.item_quality[item]
        assert score == pytest.approx(expected, rel=1e-4)


def test_interests_stay_and_drift_at_the_given_rates():
    world = World(WorldConfig(users=4000, items=4000, categories=400, drift=0.0, stay=0.6))
    users = np.arange(4000)
    journey = Journey(world, next(world.chunks()), random())
    before = journey._interests.copy()
    moved = journey.move(users)
    np.testing.assert_array_equal(journey._interests, before)
    # A new choice among three interests keeps the one at hand once in three times.
    assert moved.mean() == pytest.approx(0.4 * 2 / 3, abs=0.03)
    world = World(WorldConfig(users=4000, items=4000, categories=400, drift=0.5, stay=1.0))
    journey = Journey(world, next(world.chunks()), random())
    before = journey._interests.copy()
    journey.move(users)
    assert (journey._interests != before).any(axis=1).mean() == pytest.approx(0.5, abs=0.04)


def test_what_comes_next_depends_on_what_came_before():
    world = World(SMALL)
    journey = Journey(world, next(world.chunks()), random())
    lengths = np.full(4096, 12)
    items, breaks = journey.walk(lengths)
    category = world.item_category[items]
    same = (category[1:] == category[:-1]).mean()
    chance = (np.bincount(category.ravel()) / category.size) ** 2
    assert same > 3 * chance.sum()
    # Also within a category the items near to the last ones are preferred.
    near = np.einsum("sud,sud->su", world.item_vector[items[1:]], world.item_vector[items[:-1]])
    shuffled = items[:, random().permutation(4096)]
    far = np.einsum("sud,sud->su", world.item_vector[items[1:]], world.item_vector[shuffled[:-1]])
    assert near.mean() > far.mean() + 0.2


def test_times_ascend_within_the_window():
    lengths = np.array([1, 5, 200])
    breaks = random().random((200, 3)) < 0.1
    times = clock.times(breaks, lengths, 1000, 5000, random())
    made = np.arange(200)[:, None] < lengths
    user, time = by_user(made, times)
    assert (np.diff(time)[np.diff(user) == 0] >= 0).all()
    assert time.min() >= 1000 and time.max() < 6000
    assert clock.times(breaks[:0], np.zeros(3, int), 0, 10, random()).shape == (0, 3)


def test_counts_have_the_mean():
    assert clock.counts(40.0, 20_000, random()).mean() == pytest.approx(40, rel=0.03)
    assert set(clock.counts(1.0, 50, random())) == {1}
    assert set(clock.counts(0.0, 50, random(), least=0)) == {0}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"users": 0}, "`users=0`"),
        ({"items": 2.5}, "`items=2.5`"),
        ({"items": 5, "categories": 6}, "`categories=6`"),
        ({"seed": -1}, "`seed=-1`"),
        ({"drift": 1.5}, "`drift=1.5`"),
        ({"popularity": -0.5}, "`popularity=-0.5`"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        WorldConfig(**options)
