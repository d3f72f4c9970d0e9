"""Where figures go: words for people, a line of JSON for each figure."""

import json
import sys
from typing import Any


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def say_json(**figures: Any) -> None:
    """Floats to four digits: more are noise."""
    plain = {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in figures.items()
    }
    say(json.dumps(plain))


def verdict(value: float, bar: float | None) -> str:
    if bar is None:
        return "no bar"
    return f"{'within' if value <= bar else 'above'} {bar:g}"


def gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
