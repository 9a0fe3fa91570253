"""Which rows of which table belong to which feature."""

import numpy as np


def check_sizes(sizes):
    if not isinstance(sizes, dict) or not sizes:
        raise TypeError(
            "`sizes` must be a non-empty dict of feature name -> number of ids. "
            f"Received: `sizes={sizes}`"
        )
    for name, size in sizes.items():
        if not isinstance(size, (int, np.integer)) or size < 2:
            raise ValueError(
                f"The size of feature '{name}' must be an integer of at least 2 (0 is padding, 1 "
                f"out of vocabulary). Received: `sizes['{name}']={size}`"
            )


def check_shared(sizes, shared):
    for name, owner in shared.items():
        if name in sizes:
            raise ValueError(
                f"Feature '{name}' uses the rows of '{owner}', so it must not be in `sizes`. "
                f"Received: `shared={shared}`"
            )
        if owner not in sizes:
            raise ValueError(
                f"`shared['{name}']` must be one of the features in `sizes`, {sorted(sizes)}. "
                f"Received: `shared={shared}`"
            )


def width_of_each(sizes, shared, width):
    """Feature name -> width, for owners and those that share."""
    if isinstance(width, dict):
        missing = [name for name in sizes if name not in width]
        if missing:
            raise ValueError(
                f"`width` must name every feature, not {missing}. Received: `width={width}`"
            )
        widths = {name: width[name] for name in sizes}
    else:
        widths = dict.fromkeys(sizes, width)
    for name, value in widths.items():
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(
                f"The width of feature '{name}' must be a positive integer. "
                f"Received: `width={width}`"
            )
    widths = {name: int(value) for name, value in widths.items()}
    widths.update({name: widths[owner] for name, owner in shared.items()})
    if isinstance(width, dict):
        for name, value in width.items():
            if widths.get(name) != value:
                raise ValueError(
                    f"`width['{name}']` must belong to a known feature and equal the width of the "
                    f"rows that it shares. Received: `width={width}`"
                )
    return widths


def lay_out(sizes, widths):
    """Where each feature starts in its table, and how many rows each table has."""
    offsets, rows = {}, {}
    for name, size in sizes.items():
        offsets[name] = rows.get(widths[name], 0)
        rows[widths[name]] = offsets[name] + int(size)
    return offsets, rows
