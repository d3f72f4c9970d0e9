"""A drift check as a page tells it."""

from dataclasses import dataclass
from typing import Any

from federated.readings import input_named
from publichealth.models import DriftCheck


@dataclass(frozen=True)
class InputRow:
    """An input of a check; a figure is None where too few readings know it."""

    title: str
    num_readings: int
    psi: float | None
    psi_limit: float
    shift: float | None
    shift_limit: float
    words: str
    is_alert: bool
    percent_of_limit: int  # of whichever figure is nearest to its limit; 100 at the most


def input_rows(check: DriftCheck) -> list[InputRow]:
    """What has drifted first, else in the order of the inputs."""
    rows = [_row(figures) for figures in check.figures]
    return sorted(rows, key=lambda row: not row.is_alert)


def _row(figures: dict[str, Any]) -> InputRow:
    pairs = (("psi", "psi_limit"), ("shift", "shift_limit"), ("share_known", "share_limit"))
    parts = [abs(figures[name] or 0) / figures[limit] for name, limit in pairs]
    return InputRow(
        title=input_named(figures["input"]).title,
        num_readings=figures["num_readings"],
        psi=figures["psi"],
        psi_limit=figures["psi_limit"],
        shift=figures["shift"],
        shift_limit=figures["shift_limit"],
        words=verdict(figures),
        is_alert=bool(figures["alerts"]),
        percent_of_limit=min(100, round(100 * max(parts))),
    )


def verdict(figures: dict[str, Any]) -> str:
    """What a check says of an input, in a few words."""
    alerts, found = figures["alerts"], []
    is_flag = input_named(figures["input"]).is_flag
    if "shift" in alerts:
        more, less = ("More often", "Less often") if is_flag else ("Higher", "Lower")
        found.append(more if figures["shift"] > 0 else less)
    elif "psi" in alerts:
        found.append("Spread differently")
    if "share_known" in alerts:
        more_often = figures["share_known"] > 0
        found.append("measured more often" if more_often else "measured less often")
    if found:
        words = ", ".join(found)
        return f"{words[0].upper()}{words[1:]} than before"
    if figures["psi"] is None and figures["shift"] is None:
        return "Too few to compare"
    return "As before"
