import gzip
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from envoys.models import Envoy
from federated.errors import CohortError
from publichealth import importers
from publichealth.importers import FORMATS, import_readings
from publichealth.models import Reading
from publichealth.services.readings import Recorded
from tests.factories import make_envoy
from tests.shared_data import shared_data

pytestmark = pytest.mark.django_db

HEADER = "subject_id,measured_at,heart_rate,spo2,smoker,aqi,outcome,tier"
GOOD = f"{HEADER}\ns1,2026-01-01 08:00,70,97,0,,1,\ns2,2026-01-01T09:00:00+05:00,,,yes,120,,2\n"


def write(folder: Path, text: str | bytes, name: str = "readings.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def import_csv(path: Path, **options: object) -> importers.Imported:
    given = {"envoy": "Watches", "kind": Envoy.Kind.WEARABLES, **options}
    return import_readings(path, FORMATS["csv"], **given)  # type: ignore[arg-type]


def run(*arguments: str | Path) -> str:
    out = StringIO()
    call_command("import_readings", *map(str, arguments), stdout=out)
    return out.getvalue()


def test_a_file_is_imported_into_a_new_node_and_a_second_time_adds_nothing(tmp_path):
    path = write(tmp_path, GOOD)
    assert import_csv(path).recorded == {"Watches": Recorded(2, 0)}

    envoy = Envoy.objects.get()
    assert (envoy.name, envoy.slug, envoy.kind) == ("Watches", "watches", "WEARABLES")
    first, second = Reading.objects.order_by("subject_id")
    assert first.values == {"heart_rate": 70.0, "spo2": 97.0, "smoker": 0.0}
    assert (first.outcome, first.tier) == (1, None)
    assert first.measured_at == datetime(2026, 1, 1, 8, tzinfo=UTC)
    assert second.values == {"smoker": 1.0, "aqi": 120.0}
    assert (second.outcome, second.tier) == (None, 2)
    assert second.measured_at == datetime(2026, 1, 1, 4, tzinfo=UTC)

    assert import_csv(path).recorded == {"Watches": Recorded(0, 2)}
    assert Reading.objects.count() == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: text.replace("s1", '"s1"').replace("subject_id", '"Subject_Id"').encode(),
        lambda text: (text + "\n\n").encode(),
    ],
    ids=["byte order mark", "CRLF", "gzip", "quotes and capitals", "empty lines"],
)
def test_what_spreadsheets_and_packers_do_to_a_file_is_borne(tmp_path, change):
    assert import_csv(write(tmp_path, change(GOOD))).recorded == {"Watches": Recorded(2, 0)}
    assert set(Reading.objects.values_list("subject_id", flat=True)) == {"s1", "s2"}


def test_a_quoted_city_may_hold_a_comma_and_stands_for_who_was_measured(tmp_path):
    text = 'city,measured_at,pm25\n"Lahore, Punjab",2026-01-01,80.5\n'
    import_csv(write(tmp_path, text), kind=Envoy.Kind.ENVIRONMENT)
    reading = Reading.objects.get()
    assert (reading.subject_id, reading.city) == ("Lahore, Punjab", "Lahore, Punjab")
    assert reading.values == {"pm25": 80.5}


@pytest.mark.parametrize("word", ["", "NA", "NaN", "null", "n/a"])
def test_a_missing_value_is_left_out_however_it_is_written(tmp_path, word):
    import_csv(write(tmp_path, f"{HEADER}\ns1,2026-01-01,{word},97,{word},,,\n"))
    assert Reading.objects.get().values == {"spo2": 97.0}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("s9,2026-01-01,70,40,,,,", "spo2 lies between 50 and 100 %, not 40"),
        ("s9,2026-01-01,fast,97,,,,", "heart_rate 'fast' is no number between 20 and 250 bpm"),
        ("s9,2026-01-01,1_0,97,,,,", "heart_rate '1_0' is no number between 20 and 250 bpm"),
        ("s9,2026-01-01,,97,2,,,", "smoker is 0 (no) or 1 (yes), not '2'"),
        ("s9,2026-01-01,,,,,1,", "no input is there: it takes one at least of"),
        ("s9,,70,,,,,", "measured_at '' is no date and time (YYYY-MM-DD HH:MM:SS)"),
        ("s9,1.1.2026,70,,,,,", "measured_at '1.1.2026' is no date and time"),
        ("s9,2099-01-01,70,,,,,", "measured_at 2099-01-01 00:00 is in the future"),
        (",2026-01-01,70,,,,,", "subject_id is empty"),
        ("s9,2026-01-01,70,,,,maybe,", "outcome 'maybe' is no flag (0, 1 or empty)"),
        ("s9,2026-01-01,70,,,,,3", "tier '3' is no whole number from 0 to 2"),
        ("s9,2026-01-01,70", "3 fields, the header has 8"),
    ],
)
def test_a_bad_row_is_refused_by_file_line_column_and_unit_unless_it_is_left_out(
    tmp_path, row, words
):
    path = write(tmp_path, f"{GOOD}{row}\n")
    with pytest.raises(CohortError) as caught:
        import_csv(path)
    assert str(caught.value).startswith(f"{tmp_path.name}/readings.csv line 4: {words}")
    assert "s9" not in str(caught.value)
    assert not Reading.objects.exists()
    assert not Envoy.objects.exists()

    imported = import_csv(path, skip_bad=True)
    assert imported.num_bad == 1
    assert imported.recorded == {"Watches": Recorded(2, 0)}


def test_of_many_bad_rows_the_first_are_told_and_all_are_counted(tmp_path):
    rows = "".join(f"s{i},2026-01-01,5,,,,,\n" for i in range(50))
    with pytest.raises(CohortError) as caught:
        import_csv(write(tmp_path, f"{HEADER}\n{rows}"))
    assert len(caught.value.problems) == 20
    assert caught.value.num_problems == 50


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("subject_id,measured_at,mood\ns1,2026-01-01,1\n", "no column is an input: heart_rate, "),
        ("subject_id,heart_rate\ns1,70\n", "missing column measured_at"),
        (f"{HEADER}\n", "holds no reading"),
        (GOOD.replace(",", ";"), "is separated by semicolons, and must be by commas"),
        (b"\xff\xfe\x00s", "is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_readings_is_refused_in_words(tmp_path, text, words):
    with pytest.raises(CohortError, match=words):
        import_csv(write(tmp_path, text))
    assert not Envoy.objects.exists()


def test_more_rows_than_are_recorded_at_once_all_arrive_and_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(importers, "RECORDED_AT_ONCE", 3)
    rows = "".join(f"s{i},2026-01-01,70,,,,,\n" for i in range(8))
    steps = []
    imported = import_csv(
        write(tmp_path, f"{HEADER}\n{rows}"), on_progress=lambda *step: steps.append(step)
    )
    assert imported.recorded == {"Watches": Recorded(8, 0)}
    assert steps == [(3, 8), (6, 8), (8, 8)]


def test_the_command_says_what_it_ignores_does_and_leaves_out(tmp_path):
    path = write(tmp_path, "Mood," + GOOD.replace("\n", "\n,").removesuffix(","))
    said = run(path, "--envoy", "Watches", "--kind", "wearables")
    assert said == "Ignored, as no input is called so: mood\nWatches: 2 readings\n"

    bad = write(tmp_path, f"{GOOD}s3,2026-01-01,500,,,,,\n", "more.csv")
    with pytest.raises(CommandError) as caught:
        run(bad, "--envoy", "Watches")
    assert str(caught.value) == (
        f"{tmp_path.name}/more.csv line 4: heart_rate lies between 20 and 250 bpm, not 500\n"
        "Nothing was imported."
    )
    said = run(bad, "--envoy", "Watches", "--skip-bad")
    assert "Watches: 0 readings, 2 were there\n1 bad rows were left out. The first:" in said


def test_the_command_tells_of_each_bad_row_in_a_line(tmp_path):
    rows = "s3,2026-01-01,500,40,,,,\ns4,2026-01-01,fast,97,9,,,\n"
    path = write(tmp_path, f"{GOOD}{rows}")
    said = run(path, "--envoy", "Watches", "--kind", "wearables", "--skip-bad")
    place = f"  {tmp_path.name}/readings.csv line"
    assert said.splitlines() == [
        "Watches: 2 readings",
        "2 bad rows were left out. The first:",
        f"{place} 4: heart_rate lies between 20 and 250 bpm, not 500;"
        " spo2 lies between 50 and 100 %, not 40",
        f"{place} 5: heart_rate 'fast' is no number between 20 and 250 bpm;"
        " smoker is 0 (no) or 1 (yes), not '9'",
    ]


def test_the_command_asks_for_the_node_and_refuses_one_of_another_kind(tmp_path):
    path = write(tmp_path, GOOD)
    with pytest.raises(CommandError, match="--envoy names the node"):
        run(path)
    with pytest.raises(CommandError, match="'Watches' is new: --kind says what it is"):
        run(path, "--envoy", "Watches")
    make_envoy(name="General Hospital")
    with pytest.raises(CommandError, match="is here already, as 'Hospital'"):
        run(path, "--envoy", "General Hospital", "--kind", "clinic")
    assert not Reading.objects.exists()


NHANES_HEADER = (
    "ID,SurveyYr,Age,BMI,Pulse,Diabetes,SleepHrsNight,PhysActive,Smoke100,SmokeNow,envoy,risk_tier"
)


def test_nhanes_goes_into_a_clinic_for_each_site(tmp_path):
    text = f"{NHANES_HEADER}\n1,2009_10,34,32.2,70,No,4,Yes,Yes,Yes,site_1,1\n"
    text += "2,2011_12,60,,,Yes,,No,No,,site_0,\n3,2011_12,60,,,,,,Yes,No,site_0,2\n"
    write(tmp_path, gzip.compress(text.encode()), "nhanes_adults.csv.gz")
    assert run("--format", "nhanes", tmp_path) == (
        "NHANES site 0: 2 readings\nNHANES site 1: 1 readings\n"
    )

    first, second, third = Reading.objects.order_by("subject_id")
    assert (first.envoy.name, first.envoy.kind) == ("NHANES site 1", "CLINIC")
    assert first.values == {
        "heart_rate": 70.0,
        "sleep_hours": 4.0,
        "age": 34.0,
        "bmi": 32.2,
        "active": 1.0,
        "smoker": 1.0,
        "chronic": 0.0,
    }
    assert (first.tier, first.measured_at) == (1, datetime(2010, 1, 1, tzinfo=UTC))
    # Who never smoked was not asked whether they smoke now.
    assert second.values == {"age": 60.0, "active": 0.0, "smoker": 0.0, "chronic": 1.0}
    assert (second.tier, second.measured_at) == (None, datetime(2012, 1, 1, tzinfo=UTC))
    assert third.values == {"age": 60.0, "smoker": 0.0}


def test_fitbits_days_join_steps_and_sleep_and_name_nobody(tmp_path):
    write(
        tmp_path,
        "Id,ActivityDate,TotalSteps\n77,4/12/2016,13162\n77,4/13/2016,0\n78,4/13/2016,0\n",
        "dailyActivity_merged.csv",
    )
    write(
        tmp_path,
        "Id,SleepDay,TotalMinutesAsleep\n77,4/12/2016 0:00,327\n77,4/12/2016 0:00,327\n"
        "77,4/13/2016 0:00,420\n",
        "sleepDay_merged.csv",
    )
    assert run("--format", "fitbit", tmp_path) == "Fitbit: 2 readings\n"
    one, two = Reading.objects.order_by("measured_at")
    assert one.values == {"steps": 13162.0, "sleep_hours": 5.45}
    assert two.values == {"sleep_hours": 7.0}  # a tracker that lay in a drawer counts no steps
    assert one.subject_id == two.subject_id
    assert one.subject_id != "77"
    assert len(one.subject_id) == 16


def test_the_epas_counties_have_their_median(tmp_path):
    path = write(tmp_path, '"State","County","Median AQI"\n"Alabama","Baldwin",40\n')
    assert run("--format", "epa", path) == "EPA counties: 1 readings\n"
    reading = Reading.objects.get()
    assert (reading.city, reading.aqi) == ("Baldwin, Alabama", 40.0)
    assert reading.measured_at == datetime(2023, 7, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("nhanes", f"{NHANES_HEADER}\n1,1999_00,34,32,70,No,4,Yes,Yes,Yes,site_1,1\n", "no row of"),
        ("epa", "State,County,Median AQI\nAlabama,Clay,forty\n", "median aqi is no number"),
        ("epa", "State,County,Median AQI\nAlabama,Clay,4000\n", "aqi lies between 0 and 1000 AQI"),
        ("epa", "State,County\nAlabama,Clay\n", "missing column median aqi"),
    ],
)
def test_a_damaged_public_data_set_is_refused(tmp_path, name, text, words):
    with pytest.raises(CommandError, match=words):
        run("--format", name, write(tmp_path, text))
    assert not Reading.objects.exists()


@pytest.mark.parametrize(
    ("name", "folder", "num_envoys", "num_readings", "num_tiers"),
    [
        ("nhanes", "nhanes_2009_2012", 7, 12_391, 10_607),
        ("fitbit", "fitbit_2016", 1, 863, 0),
        ("epa", "epa_aqi_2023", 1, 949, 0),
    ],
)
def test_the_real_data_sets_are_imported_whole_and_once(
    name, folder, num_envoys, num_readings, num_tiers
):
    path = shared_data(folder)
    for _ in range(2):
        run("--format", name, path)
        assert Envoy.objects.count() == num_envoys
        assert Reading.objects.count() == num_readings
        assert Reading.objects.exclude(tier=None).count() == num_tiers
