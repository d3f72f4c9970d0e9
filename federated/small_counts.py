"""From how many people on a count may be told; light enough for what every process imports."""

MIN_PATIENTS = 10  # a count below is not shown, nor is a figure of fewer
HIDDEN = f"under {MIN_PATIENTS}"


def shown(count: int) -> str:
    """A count of patients or of what is theirs in words: "1,234", or "under 10"."""
    return HIDDEN if count < MIN_PATIENTS else f"{count:,}"
