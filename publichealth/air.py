"""Air quality in words, and the classes in which its figures are counted."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AqiBand:
    """A band of the air quality index; both ends belong to it, in whole numbers."""

    name: str
    low: int
    high: int | None  # None: there is no upper end

    @property
    def level(self) -> int:
        """1 for the best air to 6 for the worst."""
        return AQI_BANDS.index(self) + 1

    @property
    def range(self) -> str:
        return f"{self.low}+" if self.high is None else f"{self.low}–{self.high}"


# Source: US EPA, 40 CFR part 58, appendix G, table 2; in AirNow's words.
AQI_BANDS = (
    AqiBand("Good", 0, 50),
    AqiBand("Moderate", 51, 100),
    AqiBand("Unhealthy for sensitive groups", 101, 150),
    AqiBand("Unhealthy", 151, 200),
    AqiBand("Very unhealthy", 201, 300),
    AqiBand("Hazardous", 301, None),
)
# The lower end of each band; the index is a whole number, so another is rounded to one.
AQI_STEPS = tuple(max(0.0, band.low - 0.5) for band in AQI_BANDS)
# Of the histogram of PM2.5 in µg/m³: the lower end of each class, the last open above.
PM25_STEPS = tuple(25.0 * step for step in range(10))


def aqi_band(aqi: float) -> AqiBand:
    """The band in which an index lies; it is not negative."""
    return next(
        band for band, low in zip(AQI_BANDS[::-1], AQI_STEPS[::-1], strict=True) if aqi >= low
    )
