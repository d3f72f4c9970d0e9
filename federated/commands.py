"""What every command of this package does alike: it says what it cannot do, and ends with status 2."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from federated.errors import FederatedError

REFUSED = 2  # as argparse, which refuses what it can by itself


@contextmanager
def refusals(command: str) -> Iterator[None]:
    """End a command in one line of words, without a traceback, for what its user can put right."""
    try:
        yield
    except (FederatedError, OSError) as error:
        sys.stderr.write(f"{command}: {error}\n")
        sys.exit(REFUSED)


def output_file(text: str) -> Path:
    """An option's value; one that cannot be written is refused at once, not after the work."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} cannot be written: name a file in a folder")
    return path
