from datetime import UTC, datetime, timedelta
from importlib import import_module

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext

from envoys.models import AuditEvent, Envoy, User
from federated.errors import InvalidValueError
from publichealth.air import AQI_BANDS, aqi_band
from publichealth.models import AlertThreshold, HourlyFigures, Reading
from publichealth.services.health_training import newest_training
from publichealth.services.surveillance import Window, count_hours_again, surveillance
from publichealth.services.thresholds import (
    current_thresholds,
    reset_threshold,
    set_threshold,
)
from publichealth.tasks import watch_readings_task
from tests.factories import (
    make_assignment,
    make_envoy,
    make_participant,
    make_reading,
    make_round,
    make_run,
    make_update,
    make_user,
    make_version,
)
from training import services
from training.models import RoundAssignment, TrainingRound, TrainingRun

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
Figure = AlertThreshold.Figure


@pytest.fixture
def wearables():
    return make_envoy(name="Wearables", kind=Envoy.Kind.WEARABLES)


@pytest.fixture
def monitors():
    return make_envoy(name="Monitors", kind=Envoy.Kind.ENVIRONMENT)


def make_readings(envoy, number, *, city="Lahore", ago=MINUTE, **values):
    return [
        make_reading(envoy, city=city, measured_at=NOW - ago - n * timedelta(seconds=1), **values)
        for n in range(number)
    ]


def only_city(window=Window.QUARTER):
    (city,) = surveillance(window, now=NOW).cities
    return city


def alerts_of(window=Window.QUARTER):
    return [
        (alert.city, alert.threshold.figure, alert.value)
        for alert in surveillance(window, now=NOW).alerts
    ]


@pytest.mark.parametrize(
    ("aqi", "name"),
    [
        (0, "Good"),
        (50.4, "Good"),
        (50.5, "Moderate"),
        (100, "Moderate"),
        (101, "Unhealthy for sensitive groups"),
        (151, "Unhealthy"),
        (201, "Very unhealthy"),
        (300.4, "Very unhealthy"),
        (301, "Hazardous"),
        (1000, "Hazardous"),
    ],
)
def test_an_index_lies_in_the_band_that_epa_gives_it(aqi, name):
    assert aqi_band(aqi).name == name


def test_the_bands_leave_no_whole_number_out():
    assert AQI_BANDS[0].low == 0
    assert [band.high for band in AQI_BANDS[:-1]] == [band.low - 1 for band in AQI_BANDS[1:]]


def test_a_city_has_the_means_of_its_readings(monitors):
    make_readings(monitors, 15, risk_score=0.2, aqi=40, pm25=10)
    make_readings(monitors, 10, ago=2 * MINUTE, risk_score=0.7, aqi=90, pm25=20)
    city = only_city()
    assert (city.name, city.num_readings) == ("Lahore", 25)
    assert city.mean_risk == pytest.approx(0.4)  # (15 × 0.2 + 10 × 0.7) / 25
    assert city.share_high == pytest.approx(0.4)  # 10 of 25 are at 0.5, the threshold, or above
    assert city.mean_aqi == pytest.approx(60)
    assert city.mean_pm25 == pytest.approx(14)
    assert (city.latest_aqi, city.band.name) == (40, "Good")
    assert (city.age_seconds, city.age) == (60, "1 min 0 s ago")


@pytest.mark.parametrize("kind", [Envoy.Kind.WEARABLES, Envoy.Kind.CLINIC])
def test_ten_readings_may_be_of_one_person_of_whom_nothing_is_told_by_city(kind):
    people = make_envoy(kind=kind)
    for ago in (MINUTE, 3 * HOUR):
        make_readings(
            people, 12, ago=ago, city="Solo", subject_id="one", risk_score=0.9, aqi=160, pm25=60
        )
    assert count_hours_again(now=NOW) == 0
    for window in Window:
        figures = surveillance(window, now=NOW)
        assert (figures.has_any, figures.is_scored) == (False, False)
        assert (figures.cities, figures.heat_map, figures.alerts) == ([], [], [])
        assert not any(each.num_readings for each in figures.aqi_bands + figures.pm25_histogram)
        assert figures.breakdown.total is None
        assert all(point.mean_aqi is None for point in figures.trend)


def test_people_in_a_city_with_a_monitor_change_none_of_its_figures(monitors, wearables):
    def found():
        return [surveillance(window, now=NOW) for window in Window]

    for ago in (MINUTE, 3 * HOUR):
        make_readings(monitors, 12, ago=ago, risk_score=0.2, aqi=40, pm25=10)
    before = found()
    for ago in (timedelta(), MINUTE, 3 * HOUR):  # newer, and at the same moments
        make_readings(wearables, 15, ago=ago, risk_score=0.9, aqi=400, pm25=200)
    assert found() == before
    count_hours_again(now=NOW)
    assert HourlyFigures.objects.count() == 23
    assert found() == before


def test_hours_kept_while_people_were_counted_are_forgotten():
    HourlyFigures.objects.create(starts_at=NOW, counted_at=NOW)
    migration = import_module("publichealth.migrations.0004_monitors_alone")
    migration.forget_hours(apps, None)
    assert not HourlyFigures.objects.exists()


def test_no_risk_is_told_of_fewer_than_ten_readings_but_the_air_is(monitors):
    make_readings(monitors, 9, risk_score=0.9, aqi=160, pm25=60)
    figures = surveillance(Window.QUARTER, now=NOW)
    (city,) = figures.cities
    assert (city.num_readings, city.readings) == (None, "under 10")
    assert (city.mean_risk, city.share_high, city.share_in_words) == (None, None, "–")
    assert (city.mean_aqi, city.mean_pm25) == (160, 60)
    assert figures.trend[-1].mean_risk is None
    assert figures.heat_map[0].risk[-1].value is None
    assert figures.breakdown.total is None
    assert [tier.num_readings for tier in figures.breakdown.tiers] == [None] * 3
    make_readings(monitors, 1, ago=2 * MINUTE, risk_score=0.9, aqi=160, pm25=60)
    city = only_city()
    assert (city.num_readings, city.mean_risk) == (10, pytest.approx(0.9))


def test_a_share_that_would_tell_a_small_count_is_given_as_a_bound(monitors):
    make_readings(monitors, 40, risk_score=0.1)
    make_readings(monitors, 10, ago=2 * MINUTE, risk_score=0.9)
    assert only_city().share_in_words == "20 %"
    Reading.objects.filter(risk_score=0.9)[0].delete()
    city = only_city()
    assert (city.share_high, city.share_in_words) == (None, "under 20 %")  # 10 / 49
    Reading.objects.update(risk_score=0.9)
    assert only_city().share_in_words == "over 80 %"


def test_risk_is_high_by_the_threshold_of_the_version_that_gave_it(monitors):
    from publichealth.models import Serving

    strict = make_version()
    Serving.objects.create(version=strict, threshold=0.2)
    make_readings(monitors, 12, risk_score=0.3, scored_with=strict)
    make_readings(monitors, 14, ago=2 * MINUTE, risk_score=0.3, scored_with=make_version())
    make_readings(monitors, 11, ago=3 * MINUTE, risk_score=0.05, scored_with=strict)
    breakdown = surveillance(Window.QUARTER, now=NOW).breakdown
    # Of a version that was never prepared the threshold is 0.5, from half of which it is medium.
    assert [tier.num_readings for tier in breakdown.tiers] == [11, 14, 12]
    assert breakdown.total == 37


def test_two_tiers_are_told_where_three_would_tell_a_small_count(monitors):
    make_readings(monitors, 30, risk_score=0.9)
    make_readings(monitors, 20, ago=2 * MINUTE, risk_score=0.1)
    make_readings(monitors, 3, ago=3 * MINUTE, risk_score=0.3)
    tiers = surveillance(Window.QUARTER, now=NOW).breakdown.tiers
    assert [(each.name, each.num_readings) for each in tiers] == [
        ("Low or medium", 23),
        ("High", 30),
    ]
    assert [each.percent for each in tiers] == pytest.approx([100 * 23 / 53, 100 * 30 / 53])
    Reading.objects.filter(risk_score=0.1).delete()
    breakdown = surveillance(Window.QUARTER, now=NOW).breakdown
    assert [tier.num_readings for tier in breakdown.tiers] == [None, None, None]


def test_a_window_looks_as_far_back_as_it_says(monitors):
    for ago in (timedelta(), 14 * MINUTE, 16 * MINUTE, 61 * MINUTE, 23 * HOUR, 25 * HOUR):
        make_reading(monitors, city="Lahore", measured_at=NOW - ago, aqi=10)
    make_reading(monitors, city="Lahore", measured_at=NOW + MINUTE, aqi=10)  # a clock that is fast
    make_reading(monitors, city="", measured_at=NOW, aqi=10)  # of no city
    found = {
        window: sum(b.num_readings for b in surveillance(window, now=NOW).aqi_bands)
        for window in Window
    }
    assert found == {Window.QUARTER: 2, Window.HOUR: 3, Window.DAY: 5}


def test_a_city_that_has_fallen_silent_is_still_there(monitors):
    make_reading(monitors, city="Quetta", measured_at=NOW - 3 * HOUR, aqi=55)
    city = only_city()
    assert (city.mean_aqi, city.latest_aqi, city.age) == (None, 55, "3 h 0 min ago")


def test_an_alert_is_a_mean_at_or_above_its_threshold(monitors):
    make_readings(monitors, 10, city="Multan", risk_score=0.7, aqi=150, pm25=55.4)
    make_readings(monitors, 10, city="Quetta", risk_score=0.69, aqi=149, pm25=55.3)
    assert alerts_of() == [
        ("Multan", Figure.RISK, pytest.approx(0.7)),
        ("Multan", Figure.AQI, 150),
        ("Multan", Figure.PM25, pytest.approx(55.4)),
    ]


def test_a_threshold_that_is_set_applies_until_it_is_taken_back(monitors):
    officer = make_user(User.Role.PUBLIC_HEALTH)
    make_readings(monitors, 10, aqi=120)
    assert alerts_of() == []
    set_threshold(Figure.AQI, value=120, set_by=officer)
    assert alerts_of() == [("Lahore", Figure.AQI, 120)]
    row = AlertThreshold.objects.get()
    assert (row.value, row.set_by) == (120, officer)
    assert [each.is_default for each in current_thresholds()] == [True, False, True]
    for _ in range(2):
        assert reset_threshold(Figure.AQI, reset_by=officer).value == 150
    assert alerts_of() == []
    assert AuditEvent.objects.filter(target=f"alertthreshold:{row.pk}").count() == 2


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_threshold_that_no_figure_can_reach_is_refused(value):
    with pytest.raises(InvalidValueError, match="Mean risk lies between 0 and 1"):
        set_threshold(Figure.RISK, value=value, set_by=make_user(User.Role.PUBLIC_HEALTH))
    assert not AlertThreshold.objects.exists()


def test_the_heat_map_has_a_cell_for_each_city_and_hour(monitors):
    make_readings(monitors, 10, city="Karachi", ago=5 * HOUR, risk_score=0.85, aqi=30)
    make_readings(monitors, 10, city="Lahore", risk_score=0.05, aqi=310)
    figures = surveillance(Window.QUARTER, now=NOW)
    assert len(figures.hours) == 24
    assert (figures.hours[0], figures.hours[-1]) == (
        datetime(2026, 3, 13, 16, tzinfo=UTC),
        datetime(2026, 3, 14, 15, tzinfo=UTC),
    )
    karachi, lahore = figures.heat_map
    assert [(n, c.level) for n, c in enumerate(karachi.risk) if c.level] == [(18, 5)]
    assert [(n, c.level) for n, c in enumerate(karachi.aqi) if c.level] == [(18, 1)]
    assert [(n, c.level) for n, c in enumerate(lahore.risk) if c.level] == [(23, 1)]
    assert [(n, c.level) for n, c in enumerate(lahore.aqi) if c.level] == [(23, 6)]


def test_the_trend_is_over_all_cities_and_names_the_worst(monitors):
    make_readings(monitors, 30, city="Karachi", risk_score=0.1, aqi=40)
    make_readings(monitors, 10, city="Lahore", risk_score=0.5, aqi=80)
    *before, now = surveillance(Window.QUARTER, now=NOW).trend
    assert now.mean_risk == pytest.approx(0.2)  # (30 × 0.1 + 10 × 0.5) / 40
    assert now.mean_aqi == pytest.approx(50)
    assert now.highest_risk == ("Lahore", pytest.approx(0.5))
    assert now.highest_aqi == ("Lahore", 80)
    assert all((p.mean_risk, p.mean_aqi, p.highest_aqi) == (None, None, None) for p in before)


def test_distributions_count_each_reading_once(monitors):
    for aqi, pm25 in ((50.4, 0), (50.5, 24.9), (300.5, 25), (None, 225), (7, None), (1000, 1000)):
        make_reading(monitors, city="Lahore", measured_at=NOW, aqi=aqi, pm25=pm25)
    figures = surveillance(Window.QUARTER, now=NOW)
    assert [b.num_readings for b in figures.aqi_bands] == [2, 1, 0, 0, 0, 2]
    assert [b.num_readings for b in figures.pm25_histogram] == [2, 1, *[0] * 7, 2]
    assert sum(b.share for b in figures.pm25_histogram) == pytest.approx(1)


def test_kept_hours_say_what_the_readings_say(monitors):
    for n, city in enumerate(("Karachi", "Lahore")):
        for hours in range(0, 30, 3):
            make_readings(
                monitors, 11 + hours, city=city, ago=hours * HOUR, risk_score=0.3 + n / 10, aqi=60
            )
    before = {window: surveillance(window, now=NOW) for window in Window}
    assert count_hours_again(now=NOW) == 23
    assert HourlyFigures.objects.count() == 23
    assert {window: surveillance(window, now=NOW) for window in Window} == before


def test_a_past_hour_is_counted_again_after_a_minute_and_forgotten_after_a_day(monitors):
    make_readings(monitors, 1, ago=3 * HOUR, aqi=10)
    count_hours_again(now=NOW)
    make_readings(monitors, 1, ago=3 * HOUR + MINUTE, aqi=30)  # has come late
    assert count_hours_again(now=NOW + 59 * timedelta(seconds=1)) == 0
    assert only_city(Window.DAY).mean_aqi == 10
    for _ in range(23):  # one at a time
        assert count_hours_again(now=NOW + MINUTE) == 1
    assert count_hours_again(now=NOW + MINUTE) == 0
    assert only_city(Window.DAY).mean_aqi == 20
    assert count_hours_again(now=NOW + 30 * HOUR) == 23
    oldest = HourlyFigures.objects.order_by("starts_at")[0]
    assert oldest.starts_at == datetime(2026, 3, 14, 22, tzinfo=UTC)


def test_where_there_are_no_readings_no_hour_is_kept():
    assert count_hours_again(now=NOW) == 0
    assert not HourlyFigures.objects.exists()


def test_the_beat_counts_the_hours(monitors, queue):
    make_reading(monitors, city="Lahore", aqi=10)
    watch_readings_task()
    assert HourlyFigures.objects.count() == 23


@pytest.mark.parametrize("window", list(Window))
def test_the_number_of_queries_grows_neither_with_readings_nor_with_cities(monitors, window):
    def num_queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            surveillance(window, now=NOW)
        return len(queries)

    make_readings(monitors, 10, risk_score=0.5, aqi=10)
    count_hours_again(now=NOW)
    few = num_queries()
    for n in range(5):
        make_readings(monitors, 20, city=f"City {n}", risk_score=0.5, aqi=10)
        make_readings(monitors, 20, city=f"City {n}", ago=5 * HOUR, risk_score=0.5, aqi=10)
    assert num_queries() == few <= 5


@pytest.fixture
def health_run(wearables):
    run = make_run(
        TrainingRun.Status.FINISHED,
        study=services.study_for("health_risk"),
        num_rounds=2,
        finished_at=NOW,
    )
    clinic = make_envoy(name="Clinic", kind=Envoy.Kind.CLINIC)
    for envoy in (wearables, clinic):
        make_participant(run, envoy)
    for number in (1, 2):
        training_round = make_round(run, number=number, status=TrainingRound.Status.AGGREGATED)
        for envoy, loss in ((wearables, 0.6), (clinic, 0.4)):
            make_update(
                make_assignment(training_round, envoy, status=RoundAssignment.Status.SUBMITTED),
                metrics={
                    "train_loss": loss / number,
                    "validation_loss": 0.8 / number,
                    "validation_auroc": 0.7 + number / 10,
                    "num_validation": 30,
                },
            )
    return run


def test_the_training_is_that_of_the_newest_finished_run_of_readings(health_run):
    make_run(TrainingRun.Status.FINISHED, finished_at=NOW + HOUR)  # of hospitals
    training = newest_training(make_user(User.Role.PUBLIC_HEALTH))
    assert training is not None
    assert training.run == health_run
    assert {node.name: node.train_loss for node in training.nodes} == {
        "Wearables": [0.6, 0.3],
        "Clinic": [0.4, 0.2],
    }
    assert training.curves.validation_loss == [0.8, 0.4]
    assert training.curves.validation_auroc["Clinic"] == pytest.approx([0.8, 0.9])


def test_before_a_run_of_readings_has_finished_there_is_no_training():
    make_run(TrainingRun.Status.FINISHED, finished_at=NOW)
    make_run(study=services.study_for("health_risk"))
    assert newest_training(make_user(User.Role.PUBLIC_HEALTH)) is None
