"""Text of another encoding, where others' errors are pages long or name no line."""

import gzip
import pathlib


def is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def not_utf8(path: pathlib.Path) -> str | None:
    """What is wrong with a text file, or a `.gz` of it, that is not UTF-8; `None` of one that is.

    The first such byte is named, and its line from 1.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                fault = f"byte 0x{line[error.start]:02x} at line {number}"
                return f"{path} is not UTF-8 ({fault}): convert it"
    return None
