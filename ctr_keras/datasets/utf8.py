"""Text files of another encoding, found before DuckDB answers with pages of advice."""

import gzip
import pathlib


def check_utf8(path: pathlib.Path) -> None:
    """Refuse a text file, or a `.gz` of it, that is not UTF-8.

    Raises:
        ValueError: names the first byte at fault and its line, from 1.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} is not UTF-8 (byte 0x{line[error.start]:02x} at line {number}): "
                    "convert it"
                ) from None
