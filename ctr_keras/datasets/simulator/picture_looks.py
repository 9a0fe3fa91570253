"""What the things of the simulated world look like, and how they are drawn.

A thing is a body with petals on a plain ground, striped, with a round mark on it. Each of these is
a number in (0, 1), of one direction of the latent vectors:

    look_k(i) = Phi((<a_k, x> + noise n_ik) / sqrt(1 + noise^2)),    a_k ~ N(0, I), n_ik ~ N(0, 1)

where `x` is the category's vector, without noise, for the petals and the ground, and the item's for
the rest. So what is alike looks alike, the more so the more alike it is; what the noise adds nobody
can know.
"""

import dataclasses

import numpy as np
from scipy import special

from ctr_keras.datasets.simulator.world import VIEW_STREAM, World

OF_CATEGORY = ("petals", "depth", "ground")
OF_ITEM = (
    "color", "second_color", "light", "stripes", "angle", "contrast", "elongation", "size",
    "mark_color", "mark_place", "mark_size",
)  # fmt: skip
MARK = ("mark_color", "mark_place", "mark_size")
_STREAM = 6
_SOFT = 1.5  # Pixels over which an edge fades.
FEWEST_PETALS, _MOST_PETALS = 2, 7
Looks = dict[str, np.ndarray]


def looks_of(world: World, noise: float) -> Looks:
    """By name, how each item looks: numbers in (0, 1) `(items,)`.

    Args:
        world: Its vectors.
        noise: Size of the noise, in units of what the vector says.
    """
    random = np.random.default_rng([world.config.seed, VIEW_STREAM, _STREAM])
    shape = (world.config.width, len(OF_CATEGORY) + len(OF_ITEM))
    directions = random.standard_normal(shape)
    of_category = world.category_vector @ directions[:, : len(OF_CATEGORY)]
    of_item = world.item_vector @ directions[:, len(OF_CATEGORY) :]
    of_item += noise * random.standard_normal(of_item.shape)
    of_category = of_category[world.item_category]
    said = np.concatenate([of_category, of_item / np.hypot(1, noise)], axis=1)
    numbers = special.ndtr(said).astype(np.float32)
    return dict(zip(OF_CATEGORY + OF_ITEM, numbers.T, strict=True))


@dataclasses.dataclass(frozen=True)
class Views:
    """How things were photographed: arrays `(pictures,)`.

    Attributes:
        turn: Angle, in radians.
        x: Shift to the right, in halves of the picture's side.
        y: Shift down.
        zoom: How much larger.
        light: What brightness is multiplied by.
        ground: Color of another ground in (0, 1); NaN for the thing's own.
        grain: Standard deviation of what is added to each pixel, of 255.
    """

    turn: np.ndarray
    x: np.ndarray
    y: np.ndarray
    zoom: np.ndarray
    light: np.ndarray
    ground: np.ndarray
    grain: np.ndarray

    @classmethod
    def of_shop(cls, count: int) -> "Views":
        """Straight, in the middle, in good light."""
        zeros, ones = np.zeros(count, np.float32), np.ones(count, np.float32)
        return cls(zeros, zeros, zeros, ones, ones, np.nan * ones, zeros)

    @classmethod
    def of_shoppers(cls, random: np.random.Generator, count: int) -> "Views":
        """From the hand, on any ground."""
        turn, x, y, zoom, light = random.standard_normal((5, count), np.float32)
        return cls(
            turn=0.3 * turn,
            x=0.15 * x,
            y=0.15 * y,
            zoom=np.exp(0.15 * zoom),
            light=np.exp(0.15 * light),
            ground=random.random(count, np.float32),
            grain=np.full(count, 12, np.float32),
        )


def draw(looks: Looks, views: Views, size: int, random: np.random.Generator) -> np.ndarray:
    """Draw things.

    Args:
        looks: Of each picture, `(pictures,)` each.
        views: Of each picture.
        size: Side of the pictures, in pixels.
        random: Of the grain.

    Returns:
        uint8 `(pictures, size, size, 3)`.
    """
    look = {name: values[:, None, None] for name, values in looks.items()}
    x, y = _coordinates(views, size)
    soft = _SOFT * 2 / size
    stretch = np.exp(0.8 * (look["elongation"] - 0.5))
    x, y = x * stretch, y / stretch
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    petals = petals_of(look["petals"])
    extent = 0.45 + 0.25 * look["size"]
    edge = extent * (1 + (0.1 + 0.25 * look["depth"]) * np.cos(petals * angle))
    picture = _paint(_ground(look["ground"], views), _body(look, x, y), edge - radius, soft)
    turn = 2 * np.pi * look["mark_place"]
    away = np.hypot(x - 0.5 * extent * np.cos(turn), y - 0.5 * extent * np.sin(turn))
    mark = _color(look["mark_color"], np.ones((), np.float32))
    picture = _paint(picture, mark, 0.08 + 0.1 * look["mark_size"] - away, soft)
    picture = 255 * picture * views.light[:, None, None, None]
    picture += views.grain[:, None, None, None] * random.standard_normal(picture.shape, np.float32)
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def petals_of(look: np.ndarray) -> np.ndarray:
    """How many petals there are."""
    petals = FEWEST_PETALS + (_MOST_PETALS - FEWEST_PETALS + 1) * look
    return np.minimum(np.floor(petals), _MOST_PETALS)


def _coordinates(views: Views, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel lies on the thing: `(pictures, size, size)` each, the edge at -1 and 1."""
    line = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1
    turn, zoom = views.turn[:, None, None], views.zoom[:, None, None]
    x = (line[None, None, :] - views.x[:, None, None]) / zoom
    y = (line[None, :, None] - views.y[:, None, None]) / zoom
    return x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)


def _ground(own: np.ndarray, views: Views) -> np.ndarray:
    other = views.ground[:, None, None]
    return _color(np.where(np.isnan(other), own, other), np.full((), 0.9, np.float32))


def _body(look: Looks, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Two colors in stripes, `(pictures, size, size, 3)`."""
    turn = np.pi * look["angle"]
    phase = 2 * np.pi * (1 + 3 * look["stripes"]) * (x * np.cos(turn) + y * np.sin(turn))
    share = (look["contrast"] * (0.5 + 0.5 * np.sin(phase)))[..., None]
    light = 0.4 + 0.6 * look["light"]
    first, second = (_color(look[name], light) for name in ("color", "second_color"))
    return (1 - share) * first + share * second


def _color(hue: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Most of a circle of colors, without its ends meeting: `(..., 3)` in [0, 1]."""
    phase = 2 * np.pi * (0.8 * hue[..., None] + np.arange(3, dtype=np.float32) / 3)
    return light[..., None] * (0.5 + 0.5 * np.cos(phase))


def _paint(under: np.ndarray, over: np.ndarray, depth: np.ndarray, soft: float) -> np.ndarray:
    """One on the other where `depth` is positive, with soft edges."""
    share = np.clip(0.5 + depth / soft, 0, 1)[..., None]
    return (1 - share) * under + share * over
