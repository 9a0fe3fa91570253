"""Text files of another encoding, where others' errors are pages long or name no line."""

import gzip
import pathlib


def not_utf8(path: pathlib.Path) -> str | None:
    """The first byte of a text file, or of a `.gz` of it, that is not UTF-8, and its line from 1;
    `None` where all are."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"byte 0x{line[error.start]:02x} at line {number}"
    return None
