"""Advice in words, from what was measured. General, cautious and no diagnosis.

Where a limit is not our own, its source stands beside it. Anything urgent comes first.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from publichealth.air import AQI_BANDS, AqiBand, aqi_band

DISCLAIMER = (
    "This is an estimate by a statistical model and general advice, not a diagnosis. If you feel"
    " unwell or are worried, talk to a doctor; in an emergency call your emergency number."
)


@dataclass(frozen=True)
class AirAdvice:
    """What to do in a band of the air quality index."""

    everybody: str
    sensitive: str


# By band, in the order of `air.AQI_BANDS`.
# Source: EPA, "Air Quality Guide for Particle Pollution" (AirNow).
AIR_ADVICE = (
    AirAdvice(
        "The air is good: a good day to be active outside.",
        "The air is good: a good day to be active outside.",
    ),
    AirAdvice(
        "The air is acceptable. Only unusually sensitive people need to take it easier outside.",
        "The air is acceptable. If you cough or get short of breath outside, do less and rest more.",
    ),
    AirAdvice(
        "The air is unhealthy for sensitive groups: children, older adults, and people with a heart"
        " or lung disease. Others can be active outside.",
        "The air is unhealthy for you. Make outdoor activity shorter and lighter, take breaks, and"
        " keep your medicine at hand.",
    ),
    AirAdvice(
        "The air is unhealthy. Make outdoor activity shorter and lighter.",
        "The air is unhealthy. Avoid long or intense activity outside; move it indoors.",
    ),
    AirAdvice(
        "The air is very unhealthy. Avoid long or intense activity outside; keep windows closed.",
        "The air is very unhealthy. Avoid all physical activity outside; keep windows closed.",
    ),
    AirAdvice(
        "The air is hazardous. Avoid all physical activity outside; keep windows closed.",
        "The air is hazardous. Stay indoors and keep activity low; keep windows closed.",
    ),
)
# The upper end of each band but the last as µg/m³ of PM2.5 over 24 hours, cut to one decimal.
# Source: EPA, 40 CFR part 58, appendix G, table 2, as amended in 2024.
PM25_BANDS_UPTO = (9.0, 35.4, 55.4, 125.4, 225.4)


def air_band(values: Mapping[str, float]) -> AqiBand | None:
    """In which band the air is, by its index or else by PM2.5; None where neither is known."""
    if "aqi" in values:
        return aqi_band(values["aqi"])
    if "pm25" in values:
        cut = math.floor(values["pm25"] * 10 + 1e-6) / 10
        return AQI_BANDS[sum(cut > upto for upto in PM25_BANDS_UPTO)]
    return None


def advice_for(
    values: Mapping[str, float], *, is_high: bool, drivers: Iterable[str] = ()
) -> list[str]:
    """What to do, the most urgent first; the last line says what this is not.

    Args:
        values: what was measured, by input.
        drivers: the inputs that raise the risk, the strongest first: what they say comes first
            among what is not urgent.
    """
    urgent = list(_urgent(values))
    by_input = _by_input(values)
    order = [name for name in drivers if name in by_input]
    order += [name for name in by_input if name not in order]
    lines = urgent + [by_input[name] for name in order]
    if is_high and not urgent:
        lines.insert(
            0,
            "The estimated risk is high. Take it easy today, and talk to a doctor if you feel"
            " unwell.",
        )
    return [*lines, DISCLAIMER]


def _urgent(values: Mapping[str, float]) -> Iterable[str]:
    spo2, breathless = values.get("spo2", 100), values.get("breathless") == 1
    # NHS England, "Pulse oximetry to detect early deterioration of patients with COVID-19 in
    # primary and community care settings", 2021: 92 % or less, emergency department; 93 or 94 %,
    # medical advice.
    if spo2 <= 92:
        yield (
            f"An oxygen saturation of {spo2:g} % is low. Warm your hand and measure again; if it"
            " stays at 92 % or below, see a doctor now or call your emergency number."
        )
    elif spo2 < 95:
        yield (
            f"An oxygen saturation of {spo2:g} % is lower than usual. Measure again within an"
            " hour; if it stays below 95 %, ask a doctor today."
        )
    # NHS, "Shortness of breath": when to call an ambulance.
    if breathless:
        yield (
            "If you struggle for breath at rest, or your chest feels tight or heavy, call your"
            " emergency number now; else ask a doctor today about the shortness of breath."
        )
    # British Heart Foundation, "Your heart rate": ask about more than 120 or less than 40 at rest.
    heart_rate = values.get("heart_rate", 75)
    if heart_rate > 120 or heart_rate < 40:
        yield (
            f"A heart rate of {heart_rate:g} at rest is unusual. Rest and measure again; if it"
            " stays, or you feel faint, see a doctor now."
        )


def _by_input(values: Mapping[str, float]) -> dict[str, str]:
    """What each input gives to advise, in a sensible order."""
    found: dict[str, str] = {}
    band = air_band(values)
    if band is not None:
        # EPA's sensitive groups: heart or lung disease, older adults, children and teenagers.
        age = values.get("age", 40)
        is_sensitive = (
            values.get("chronic") == 1 or values.get("breathless") == 1 or age >= 65 or age < 18
        )
        advice = AIR_ADVICE[band.level - 1]
        source = "aqi" if "aqi" in values else "pm25"
        found[source] = advice.sensitive if is_sensitive else advice.everybody
    if values.get("smoker") == 1:  # WHO, fact sheet "Tobacco"
        found["smoker"] = "Stopping smoking helps at any age, from the first day: ask for support."
    if values.get("chronic") == 1:
        found["chronic"] = "Take your medicine as agreed with your doctor, and keep it at hand."
    # NHS, "Cough": see a GP after three weeks, sooner with breathlessness, blood or weight loss.
    if values.get("cough") == 1:
        found["cough"] = (
            "Rest and drink enough. See a doctor if the cough lasts more than three weeks, gets"
            " worse, or you cough up blood."
        )
    heart_rate = values.get("heart_rate", 75)
    if 100 < heart_rate <= 120:  # NHS: 60 to 100 at rest
        found["heart_rate"] = (
            "A resting heart rate above 100 is faster than usual: rest for a while and measure"
            " again."
        )
    # Watson et al. 2015, "Recommended Amount of Sleep for a Healthy Adult" (AASM and SRS).
    if values.get("sleep_hours", 8) < 7:
        found["sleep_hours"] = "Adults do best with seven hours of sleep or more."
    # Tudor-Locke & Bassett 2004: below 5,000 steps a day is a sedentary life; WHO, "Physical
    # activity", 150 minutes a week.
    is_ill = values.get("breathless") == 1 or values.get("spo2", 100) <= 92
    if values.get("steps", 7500) < 5000 and not is_ill:
        found["steps"] = "Walk a little more: any step counts, 150 minutes a week are a good aim."
    if values.get("temperature", 20) >= 32:  # WHO, "Heat and health": keep below 32 °C by day
        found["temperature"] = "It is hot: drink enough, and stay in the shade or in a cool room."
    return found
