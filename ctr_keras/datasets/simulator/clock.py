"""When simulated users act: in sessions, within a window of time."""

import numpy as np

# 2017-11-25, the first day of the public Taobao logs, in their time zone.
BEGIN = 1_511_539_200
DAY = 86_400
_WITHIN_SESSION, _BETWEEN_SESSIONS = 60.0, 6 * 3600.0


def counts(mean: float, users: int, random: np.random.Generator, least: int = 1) -> np.ndarray:
    """How often each user acts: `least` plus a negative binomial with that mean altogether.

    Args:
        mean: Mean count, at least `least`.
        users: How many counts.
        random: What they are drawn from.
        least: The smallest count.
    """
    return least + random.poisson(random.gamma(2.0, (mean - least) / 2.0, users))


def times(
    breaks: np.ndarray, lengths: np.ndarray, begin: int, seconds: int, random: np.random.Generator
) -> np.ndarray:
    """The time of each step, ascending for each user.

    A step follows the one before after about a minute, or some hours where the thread broke; then
    each user's time is stretched or compressed to fill the window.

    Args:
        breaks: Bool `(steps, users)`: whether the thread broke before a step.
        lengths: How many steps each user makes; the rest of `breaks` is of no meaning.
        begin: Start of the window, seconds since 1970.
        seconds: Length of the window.
        random: What the gaps are drawn from.

    Returns:
        int64 `(steps, users)`.
    """
    gaps = random.standard_exponential(breaks.shape)
    gaps *= np.where(breaks, _BETWEEN_SESSIONS, _WITHIN_SESSION)
    edges = random.standard_exponential((2, breaks.shape[1])) * _BETWEEN_SESSIONS
    gaps[:1] = edges[:1]
    gaps[np.arange(len(gaps))[:, None] >= lengths] = 0
    passed = np.cumsum(gaps, axis=0)
    whole = (passed[-1] if len(passed) else 0) + edges[1]
    return begin + (passed * (seconds / whole)).astype(np.int64)
