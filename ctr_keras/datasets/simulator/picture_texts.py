"""What a shop writes about the things of the simulated world: less than their pictures show."""

import numpy as np

from ctr_keras.datasets.simulator.picture_looks import FEWEST_PETALS, Looks, petals_of

# Along the circle of colors, as `picture_looks` draws them.
_COLORS = np.array(["red", "purple", "violet", "blue", "turquoise", "green", "lime"])
_SHADES = np.array(["dark", "", "bright"])
_SIZES = np.array(["small", "", "large"])
_STRIPES = np.array(["broad", "", "narrow"])
_NUMBERS = ("two", "three", "four", "five", "six", "seven")
_HUES = ("ground", "color", "second_color")
_PLAIN = 1 / 3  # Stripes fainter than this go unsaid.


def titles_of(looks: Looks) -> list[str]:
    """A title of each thing.

    It names the body's size and color, the stripes that can be seen, the petals and the ground, in
    words for a third or a seventh of what there is; of the mark, and of angles, nothing is said.

    Args:
        looks: As `picture_looks.looks_of` gives them.
    """
    ground, color, second = (_COLORS[_part(looks[name], len(_COLORS))] for name in _HUES)
    shade, size, stripes = (
        words[_part(looks[name], len(words))]
        for name, words in (("light", _SHADES), ("size", _SIZES), ("stripes", _STRIPES))
    )
    petals = petals_of(looks["petals"]).astype(int) - FEWEST_PETALS
    is_striped = looks["contrast"] > _PLAIN
    titles = []
    for n in range(len(color)):
        title = f"{size[n]} {shade[n]} {color[n]} badge with {_NUMBERS[petals[n]]} petals"
        if is_striped[n]:
            title += f" and {stripes[n]} {second[n]} stripes"
        titles.append(" ".join(f"{title} on {ground[n]} ground".split()))
    return titles


def _part(values: np.ndarray, parts: int) -> np.ndarray:
    return np.minimum((values * parts).astype(int), parts - 1)
