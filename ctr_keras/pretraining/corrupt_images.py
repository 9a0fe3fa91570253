"""Images that cannot be decoded: an error, or passed over and reported."""

from ctr_keras.sources import Report

_NAMED = 5


class CorruptImages:
    """Those that were met among some images.

    Args:
        skip: Whether they are passed over; otherwise the first is an error.

    Attributes:
        names: Of those that were met.
    """

    def __init__(self, skip: bool):
        self.skip = skip
        self.names: list[str] = []

    def add(self, name: str, error: str) -> None:
        """Note an image.

        Args:
            name: Its path, or row.
            error: What is wrong with it, as `ImageEncoder.try_encode` says it.

        Raises:
            ValueError: they are not passed over.
        """
        if not self.skip:
            raise ValueError(f"{name} {error}; `skip_corrupt` passes over it")
        self.names.append(name)

    def tell(self, count: int, report: Report) -> None:
        """Report how many of `count` images they are, and name some."""
        if self.names:
            shown = ", ".join(self.names[:_NAMED]) + (", ..." if self.names[_NAMED:] else "")
            report(f"{len(self.names):,} of {count:,} images cannot be decoded: {shown}")
