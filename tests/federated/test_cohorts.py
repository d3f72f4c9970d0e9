import gzip
import io
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.cohorts import (
    DIAGNOSES_HEADER,
    AdmissionRecord,
    CodedDiagnosis,
    EnvoyFiles,
    admission_order,
    check_envoy,
    find_envoys,
    first_places,
    iter_diagnoses,
    iter_outcomes,
    iter_snapshot,
    read_admissions,
    write_records,
)
from federated.errors import CohortError
from federated.targets import risk_tier
from tests.shared_data import shared_data

DIAGNOSES = """subject_id,hadm_id,seq_num,icd_code,icd_version
p1,11,1,I50.9,10
p1,11,2,E11.9,10
p1,12,1,250.00,9
p2,13,1,0389,9
"""
OUTCOMES = """subject_id,hadm_id,age,gender,los_days,readmit_30d,risk_tier,number_diagnoses,payer
p1,11,[50-60),Female,3,1,2,9,x
p1,12,61,,1.5,0,0,4,
p2,13,,M,,,1,,
"""


def write_envoy(folder: Path, diagnoses: str | bytes = DIAGNOSES, outcomes: str | bytes = ""):
    envoy = folder / "envoys" / "north"
    envoy.mkdir(parents=True, exist_ok=True)
    write(envoy / "diagnoses_icd.csv", diagnoses)
    if outcomes:
        write(envoy / "outcomes.csv", outcomes)
    return find_envoys(folder)[0]


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def problems_of(files) -> list[str]:
    with pytest.raises(CohortError) as caught:
        check_envoy(files)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def warnings_of(files) -> dict[str, int]:
    return {warning["kind"]: warning["count"] for warning in check_envoy(files).warnings}


# What is read


def test_a_cohort_is_read_as_one_record_an_admission(tmp_path):
    files = write_envoy(tmp_path, DIAGNOSES, OUTCOMES)
    summary = check_envoy(files)
    assert (summary.num_rows, summary.num_admissions, summary.num_diagnoses) == (7, 3, 4)
    assert read_admissions(files) == [
        AdmissionRecord(
            subject_id="p1",
            hadm_id="11",
            age=55.0,
            sex="F",
            los_days=3.0,
            readmit_30d=True,
            risk_tier=2,
            number_diagnoses=9,
            diagnoses=(CodedDiagnosis(1, "I509", 10), CodedDiagnosis(2, "E119", 10)),
        ),
        AdmissionRecord(
            subject_id="p1",
            hadm_id="12",
            age=61.0,
            sex="F",  # the patient's, though this row has none
            los_days=1.5,
            readmit_30d=False,
            risk_tier=0,
            number_diagnoses=4,
            diagnoses=(CodedDiagnosis(1, "25000", 9),),
        ),
        AdmissionRecord(
            subject_id="p2",
            hadm_id="13",
            sex="M",
            risk_tier=1,
            diagnoses=(CodedDiagnosis(1, "0389", 9),),
        ),
    ]


@pytest.mark.parametrize(
    "disguise",
    [
        lambda text: gzip.compress(text.encode()),  # though its name ends in .csv
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: "\n".join(
            ",".join(f'"{value}"' for value in line.split(",")) for line in text.splitlines()
        ),
        lambda text: text + "\n\n",
        lambda text: text.replace(",", " , "),
        lambda text: text.replace("subject_id", "SUBJECT_ID"),
    ],
    ids=["gzip", "bom", "crlf", "quoted", "empty lines", "spaces", "upper case"],
)
def test_a_file_may_be_written_in_several_ways(tmp_path, disguise):
    plain = read_admissions(write_envoy(tmp_path / "plain", DIAGNOSES, OUTCOMES))
    files = write_envoy(tmp_path / "other", disguise(DIAGNOSES), disguise(OUTCOMES))
    check_envoy(files)
    assert read_admissions(files) == plain


def test_a_packed_copy_is_the_same_source(tmp_path):
    files = write_envoy(tmp_path / "plain", DIAGNOSES, OUTCOMES)
    packed = write_envoy(tmp_path / "packed", gzip.compress(DIAGNOSES.encode()), OUTCOMES)
    changed = write_envoy(tmp_path / "changed", DIAGNOSES, OUTCOMES.replace("61", "62"))
    assert check_envoy(files).source_sha256 == check_envoy(packed).source_sha256
    assert check_envoy(files).source_sha256 != check_envoy(changed).source_sha256


def test_an_admission_without_an_outcome_is_one_all_the_same(tmp_path):
    files = write_envoy(tmp_path, DIAGNOSES, OUTCOMES.rpartition("p2,")[0])
    assert warnings_of(files)["admission without an outcome"] == 1
    assert [record.hadm_id for record in iter_outcomes(files)] == ["11", "12", "13"]
    assert list(iter_outcomes(files))[-1] == AdmissionRecord("p2", "13")


def test_diagnoses_are_read_for_admissions_only_until_all_are_found(tmp_path):
    files = write_envoy(tmp_path, DIAGNOSES + "p3,14,1,I10,10\n", OUTCOMES)
    found = [record.hadm_id for record in iter_outcomes(files)]
    assert found == ["11", "12", "13", "14"]
    assert [record.hadm_id for record in iter_outcomes(files, num_admissions=4)] == found
    files.diagnoses.unlink()  # where the outcomes know every admission it is not read at all
    assert [record.hadm_id for record in iter_outcomes(files, num_admissions=3)] == found[:3]


def test_a_cohort_may_have_no_outcomes_at_all(tmp_path):
    files = write_envoy(tmp_path, DIAGNOSES)
    assert warnings_of(files)["no outcomes file"] == 3
    assert len(read_admissions(files)) == 3


def test_envoys_are_found_in_order_of_name_and_hidden_folders_are_not(tmp_path):
    for name in ("south", "North", ".tmp"):
        write(tmp_path / "envoys" / name / "diagnoses.csv", DIAGNOSES)
    assert [files.name for files in find_envoys(tmp_path)] == ["North", "south"]


@pytest.mark.parametrize(
    ("name", "client_id"),
    [("ward", "ward"), ("nospec_payer", "nospec_payer"), ("Süd West/2", "sud-west-2")],
)
def test_an_envoys_name_becomes_what_it_is_called_in_a_round(name, client_id):
    assert EnvoyFiles(name, Path("diagnoses.csv")).client_id == client_id


def test_a_name_without_a_latin_letter_is_called_by_its_hash():
    first, other = (EnvoyFiles(name, Path("diagnoses.csv")) for name in ("病院", "医院"))
    assert first.client_id.startswith("hospital-")
    assert first.client_id != other.client_id


def test_two_envoys_that_would_be_called_alike_are_refused(tmp_path):
    for name in ("Süd", "sud"):
        folder = tmp_path / "envoys" / name
        folder.mkdir(parents=True)
        (folder / "diagnoses.csv").write_text(f"{','.join(DIAGNOSES_HEADER)}\n1,1,1,I10,10\n")
    with pytest.raises(CohortError, match="'Süd' and 'sud' both become 'sud': rename one"):
        find_envoys(tmp_path)


def test_admissions_of_a_patient_go_by_date_and_then_by_hadm_id():
    records = [
        AdmissionRecord("p", "10"),
        AdmissionRecord("p", "9"),
        AdmissionRecord("p", "11", admitted_at="2151-01-01T00:00:00"),
        AdmissionRecord("p", "12", admitted_at="2150-01-01T00:00:00"),
    ]
    in_order = sorted(records, key=admission_order)
    assert [record.hadm_id for record in in_order] == ["12", "11", "9", "10"]


def test_progress_is_reported_by_rows(tmp_path):
    rows = "".join(f"p{n},{n},1,I10,10\n" for n in range(12_000))
    files = write_envoy(tmp_path, DIAGNOSES.splitlines()[0] + "\n" + rows)
    reported: list[int] = []
    check_envoy(files, on_progress=reported.append)
    assert reported == [5_000, 10_000]


# What is refused


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (",icd_version", ",version", "missing column icd_version"),
        ("p1,11,2,", "p1,11,1,", "line 3: seq_num 1 of its hadm_id stands in line 2 already"),
        ("p2,13,1", "p2,12,1", "line 5: its hadm_id belongs to two subject_ids"),
        ("p1,11,2", ",11,2", "line 3: subject_id is empty"),
        ("p1,11,2", "p1,,2", "line 3: hadm_id is empty"),
        ("p1,11,2", f"p1,{'9' * 65},2", "line 3: hadm_id has 65 characters, 64 is the most"),
        ("E11.9", "diabetes", "line 3: icd_code 'diabetes' is no ICD-10 code"),
        ("E11.9", "", "line 3: icd_code is empty"),
        ("E11.9,10", "E11.9,11", "line 3: icd_version '11' is no version of ICD (9 or 10)"),
        ("11,2,", "11,two,", "line 3: seq_num 'two' is no whole number from 0 to 65535"),
        ("11,2,", "11,,", "line 3: seq_num is empty"),
        ("11,2,", "11,-2,", "line 3: seq_num '-2' is no whole number from 0 to 65535"),
        ("E11.9,10", "E11.9", "line 3: 4 fields, the header has 5"),
        ("E11.9", '"E11"9', "line 3: ',' expected after '\"'"),
    ],
)
def test_a_bad_diagnosis_is_refused_naming_file_line_and_value(tmp_path, old, new, problem):
    check_envoy(write_envoy(tmp_path, DIAGNOSES))
    (found,) = problems_of(write_envoy(tmp_path, DIAGNOSES.replace(old, new)))
    assert found.startswith("north/diagnoses_icd.csv")
    assert found.endswith(problem)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("hadm_id", "stay_id", "missing column hadm_id"),
        ("p1,12", "p1,11", "line 3: its hadm_id is there twice"),
        ("age,", "gender,", "line 1: the column gender is there twice"),
        ("61", "sixty", "line 3: age 'sixty' is no number from 0 to 130"),
        ("61", "nan", "line 3: age 'nan' is no number from 0 to 130"),
        ("61", "-1", "line 3: age '-1' is no number from 0 to 130"),
        ("61", "131", "line 3: age '131' is no number from 0 to 130"),
        ("61", "[60-50)", "line 3: age '[60-50)' is no age"),
        ("1.5", "inf", "line 3: los_days 'inf' is no number from 0 to 36525"),
        ("Female", "girl", "line 2: gender 'girl' is no gender (F, Female, M, Male or empty)"),
        ("1.5,0,", "1.5,2,", "line 3: readmit_30d '2' is no flag (0, 1 or empty)"),
        ("3,1,2,9", "3,1,3,9", "line 2: risk_tier '3' is no whole number from 0 to 2"),
        ("3,1,2,9", "3,1,2,9.5", "line 2: number_diagnoses '9.5' is no whole number from 0 to"),
    ],
)
def test_a_bad_outcome_is_refused_naming_file_line_and_value(tmp_path, old, new, problem):
    (found,) = problems_of(write_envoy(tmp_path, DIAGNOSES, OUTCOMES.replace(old, new, 1)))
    assert found.startswith("north/outcomes.csv")
    assert problem in found


def test_several_problems_are_told_at_once_but_not_more_than_twenty(tmp_path):
    rows = "".join(f"p{n},{n},1,none,10\n" for n in range(100, 130))
    assert len(problems_of(write_envoy(tmp_path, DIAGNOSES + rows))) == 20
    assert len(problems_of(write_envoy(tmp_path, DIAGNOSES.replace(",10\n", ",11\n")))) == 2


def test_no_problem_names_a_patient_or_an_admission(tmp_path):
    secret = DIAGNOSES.replace("p1", "SECRET").replace("11,2", "11,1").replace("13", "12")
    outcomes = OUTCOMES.replace("p1", "SECRET").replace("p2,13", "SECRET,11")
    found = problems_of(write_envoy(tmp_path, secret, outcomes))
    assert len(found) == 3
    assert not any("SECRET" in problem for problem in found)


def test_a_truncated_gzip_is_refused(tmp_path):
    rows = "".join(f"p{n},{n},1,I{n % 90 + 10},10\n" for n in range(100, 5_000))
    packed = gzip.compress((DIAGNOSES + rows).encode())
    check_envoy(write_envoy(tmp_path, packed))
    (found,) = problems_of(write_envoy(tmp_path, packed[: len(packed) // 2]))
    assert found.startswith("north/diagnoses_icd.csv: truncated or damaged gzip")


def test_every_wrong_field_of_a_row_is_a_problem(tmp_path):
    diagnoses = DIAGNOSES.replace("p1,11,2,E11.9,10", ",11,1,,11").replace("13,1,", "13,x,")
    outcomes = OUTCOMES.replace("p1,12,61,,1.5,0", "p1,11,61 years,?,inf,no").replace("M,", "X,")
    problems = problems_of(write_envoy(tmp_path, diagnoses, outcomes))
    assert [problem.removeprefix("north/")[:40] for problem in problems] == [
        "outcomes.csv line 3: age '61 years' is n",
        "outcomes.csv line 3: gender '?' is no ge",
        "outcomes.csv line 3: los_days 'inf' is n",
        "outcomes.csv line 3: readmit_30d 'no' is",
        "outcomes.csv line 3: its hadm_id is ther",
        "outcomes.csv line 4: gender 'X' is no ge",
        "diagnoses_icd.csv line 3: subject_id is ",
        "diagnoses_icd.csv line 3: icd_version '1",
        "diagnoses_icd.csv line 3: icd_code is em",
        "diagnoses_icd.csv line 5: seq_num 'x' is",
    ]


def test_a_wrong_row_is_still_compared_with_the_others(tmp_path):
    diagnoses = DIAGNOSES.replace("11,2,E11.9", "11,1,none").replace("p2,13", "p2,12")
    assert problems_of(write_envoy(tmp_path, diagnoses.replace("0389", "none"))) == [
        "north/diagnoses_icd.csv line 3: icd_code 'none' is no ICD-10 code",
        "north/diagnoses_icd.csv line 3: seq_num 1 of its hadm_id stands in line 2 already",
        "north/diagnoses_icd.csv line 5: its hadm_id belongs to two subject_ids",
        "north/diagnoses_icd.csv line 5: icd_code 'none' is no ICD-9 code",
    ]


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.booleans()), min_size=1, max_size=30
    )
)
def test_places_are_compared_however_the_rows_of_admissions_are_mixed(rows):
    expected, admissions = [], set()
    first_lines: dict[tuple[str, int], int] = {}
    for line, (hadm_id, seq_num, is_right) in enumerate(rows, start=2):
        admissions.add(hadm_id)
        if not is_right:
            expected.append(f"diagnoses.csv line {line}: icd_code 'none' is no ICD-10 code")
        first_line = first_lines.setdefault((hadm_id, seq_num), line)
        if first_line != line:
            expected.append(
                f"diagnoses.csv line {line}: seq_num {seq_num} of its hadm_id stands in line"
                f" {first_line} already"
            )
    text = "".join(f"p,{h},{n},{'I10' if is_right else 'none'},10\n" for h, n, is_right in rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "diagnoses.csv")
        path.write_text(",".join(DIAGNOSES_HEADER) + "\n" + text)
        files = EnvoyFiles("north", path)
        if expected:
            with pytest.raises(CohortError) as caught:
                check_envoy(files, num_told=100)
            assert [each.partition("/")[2] for each in caught.value.problems] == expected
            return
        summary = check_envoy(files)
    assert (summary.num_admissions, summary.num_diagnoses) == (len(admissions), len(rows))
    assert [each["kind"] for each in summary.warnings] == ["no outcomes file"]


@pytest.mark.parametrize(
    ("separator", "words"), [(";", "semicolons"), ("\t", "tabs"), ('";"', "semicolons")]
)
def test_another_separator_is_named(tmp_path, separator, words):
    diagnoses, outcomes = (
        "".join(
            f'"{line}"\n'.replace(",", separator)
            if '"' in separator
            else f"{line}\n".replace(",", separator)
            for line in text.splitlines()
        )
        for text in (DIAGNOSES, OUTCOMES)
    )
    files = write_envoy(tmp_path, diagnoses, outcomes)
    (problem,) = problems_of(files)
    assert problem == f"north/outcomes.csv: is separated by {words}, and must be by commas"
    with pytest.raises(CohortError) as caught:
        check_envoy(files, num_told=9)
    assert len(caught.value.problems) == 2


def test_swapped_files_are_told_apart_from_wrong_ones(tmp_path):
    (problem,) = problems_of(write_envoy(tmp_path, OUTCOMES, DIAGNOSES))
    assert "the two files are swapped" in problem


def test_a_file_that_is_not_utf8_is_refused_naming_the_line(tmp_path):
    latin = DIAGNOSES.replace("E11.9", "Diabète").encode("latin-1")
    (found,) = problems_of(write_envoy(tmp_path, latin))
    assert found.startswith("north/diagnoses_icd.csv line 3: is not UTF-8")


def test_an_empty_hospital_is_refused(tmp_path):
    header = DIAGNOSES.splitlines()[0] + "\n"
    (found,) = problems_of(write_envoy(tmp_path, header))
    assert found == "north: an empty hospital: its files hold no rows"
    assert "missing columns subject_id" in problems_of(write_envoy(tmp_path, b""))[0]


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is unreadable to root")
def test_an_unreadable_file_is_refused(tmp_path):
    files = write_envoy(tmp_path)
    files.diagnoses.chmod(0)
    assert "cannot be read" in problems_of(files)[0]


def test_a_folder_without_a_cohort_is_refused(tmp_path):
    with pytest.raises(CohortError, match="no cohort"):
        find_envoys(tmp_path)
    (tmp_path / "envoys" / "north").mkdir(parents=True)
    with pytest.raises(CohortError, match=r"north: diagnoses_icd or diagnoses.csv .* is missing"):
        find_envoys(tmp_path)


def test_two_files_that_could_both_be_meant_are_refused(tmp_path):
    write_envoy(tmp_path)
    write(tmp_path / "envoys" / "north" / "diagnoses.csv.gz", DIAGNOSES)
    with pytest.raises(CohortError, match="remove all but one"):
        find_envoys(tmp_path)


# What is taken with a warning


def test_a_stay_that_cannot_be_is_taken_with_a_warning(tmp_path):
    outcomes = """subject_id,hadm_id,admitted_at,discharged_at,discharged_home,died_in_hospital
p1,11,2026-03-02 08:00:00,2026-03-02 07:59:59,,
p1,12,2026-03-02,2026-03-02,0,1
p2,13,,2026-03-01,1,1
"""
    summary = check_envoy(write_envoy(tmp_path, DIAGNOSES, outcomes))
    assert summary.warnings == [
        {
            "kind": "stay whose discharge is before its admission",
            "count": 1,
            "example": "north/outcomes.csv line 2",
        },
        {
            "kind": "stay that ended both with a death in hospital and with a discharge home",
            "count": 1,
            "example": "north/outcomes.csv line 4",
        },
    ]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("I50,10", "category or other ICD code that is not a leaf"),
        ("250,9", "category or other ICD code that is not a leaf"),
        ("S030XXA,10", "retired or unknown ICD code"),
        ("I5X,10", "ICD code of an unknown category"),
        ("38.9,9", "leading zeros of an ICD-9 code restored"),
    ],
)
def test_a_suspicious_code_is_taken_with_a_warning(tmp_path, code, kind):
    files = write_envoy(tmp_path, DIAGNOSES.replace("E11.9,10", code), OUTCOMES)
    summary = check_envoy(files)
    (warning,) = summary.warnings
    assert warning["kind"] == kind
    assert warning["count"] == 1
    assert "north/diagnoses_icd.csv line 3" in warning["example"]


def test_a_file_that_has_probably_lost_its_leading_zeros_is_noticed(tmp_path):
    header = DIAGNOSES.splitlines()[0] + "\n"
    rows = "".join(f"p{n},{n},1,4280,9\n" for n in range(100))
    kind = "no ICD-9 code has a leading zero: they have probably been lost"
    assert warnings_of(write_envoy(tmp_path, header + rows))[kind] == 100
    assert kind not in warnings_of(write_envoy(tmp_path, header + rows + "p,p,1,0389,9\n"))
    assert kind not in warnings_of(write_envoy(tmp_path, header + rows.partition("\n")[2]))


def test_patients_whose_sex_differs_are_counted_and_the_first_admission_counts(tmp_path):
    outcomes = OUTCOMES.replace("61,,", "61,M,")
    files = write_envoy(tmp_path, DIAGNOSES, outcomes)
    assert warnings_of(files) == {"patient whose sex differs between admissions": 1}
    assert [record.sex for record in read_admissions(files)] == ["F", "F", "M"]


def test_an_outcome_without_diagnoses_is_counted(tmp_path):
    files = write_envoy(tmp_path, DIAGNOSES, OUTCOMES + "p3,14,,,,,,,\n")
    assert warnings_of(files) == {"outcome without diagnoses": 1}
    assert read_admissions(files)[-1] == AdmissionRecord("p3", "14")


def test_places_of_admissions_name_file_and_line_only(tmp_path):
    files = write_envoy(tmp_path, DIAGNOSES, OUTCOMES.rpartition("p2,")[0])
    assert first_places(files, {"12", "13", "99"}) == [
        "north/outcomes.csv line 3",
        "north/diagnoses_icd.csv line 5",
    ]


# The layout of MIMIC-IV

PATIENTS = """subject_id,gender,anchor_age,anchor_year,dod
p1,F,60,2150,2151-03-01
p2,M,40,2150,
"""
ADMISSIONS = """subject_id,hadm_id,admittime,dischtime,discharge_location,hospital_expire_flag
p1,12,2151-02-01 12:00:00,2151-02-11 12:00:00,REHAB,0
p1,11,2151-01-01 00:00:00,2151-01-04 12:00:00,HOME HEALTH CARE,0
p2,13,2150-06-01 00:00:00,2150-06-02 00:00:00,DIED,1
"""


def write_mimic(folder: Path, patients: str = PATIENTS, admissions: str = ADMISSIONS) -> Path:
    write(folder / "hosp" / "diagnoses_icd.csv", DIAGNOSES)
    write(folder / "hosp" / "patients.csv", patients)
    write(folder / "hosp" / "admissions.csv", admissions)
    return folder


def test_outcomes_are_derived_from_the_tables_of_mimic(tmp_path):
    (files,) = find_envoys(write_mimic(tmp_path))
    check_envoy(files)
    first, second, died = (replace(record, diagnoses=()) for record in read_admissions(files))
    assert first == AdmissionRecord(
        subject_id="p1",
        hadm_id="11",
        age=61.0,
        sex="F",
        admitted_at="2151-01-01T00:00:00",
        discharged_at="2151-01-04T12:00:00",
        los_days=3.5,
        discharged_home=True,
        died_in_hospital=False,
        died_30d_after_discharge=False,
        readmit_30d=True,
    )
    assert (second.readmit_30d, second.died_30d_after_discharge) == (False, True)
    assert second.discharged_home is False
    assert (died.died_in_hospital, died.readmit_30d) == (True, None)


def test_what_derived_outcomes_gives_stands_above_the_tables_and_splits_them(tmp_path):
    derived = "subject_id,hadm_id,envoy,age,risk_tier\np1,12,ward,77,2\np2,13,icu,,1\n"
    write(write_mimic(tmp_path) / "derived_outcomes.csv", derived)
    icu, ward = find_envoys(tmp_path)
    assert (icu.name, ward.name) == ("icu", "ward")
    (record,) = read_admissions(ward)
    assert (record.age, record.risk_tier, record.los_days) == (77.0, 2, 10.0)
    assert record.diagnoses == (CodedDiagnosis(1, "25000", 9),)
    assert [hadm_id for _, hadm_id, _ in iter_diagnoses(icu)] == ["13"]
    assert check_envoy(icu).source_sha256 != check_envoy(ward).source_sha256
    assert warnings_of(ward)["diagnosis of an admission that belongs to no envoy"] == 2


@pytest.mark.parametrize(
    ("patients", "admissions", "problem"),
    [
        (PATIENTS.replace("2150,2", "x,2"), ADMISSIONS, "hosp/patients.csv line 2: anchor_year"),
        (PATIENTS, ADMISSIONS.replace("2150-06-02", "2150-06-32"), "admissions.csv line 4: disch"),
        (PATIENTS, ADMISSIONS + "p2,13,,,,\n", "admissions.csv line 5: its hadm_id is there twice"),
        (PATIENTS, ADMISSIONS.replace("p2,13", "p1,13"), "its hadm_id belongs to two subject_ids"),
    ],
)
def test_bad_tables_of_mimic_are_refused(tmp_path, patients, admissions, problem):
    (files,) = find_envoys(write_mimic(tmp_path, patients, admissions))
    assert problem in problems_of(files)[0]


def test_a_missing_table_of_mimic_is_named(tmp_path):
    (write_mimic(tmp_path) / "hosp" / "patients.csv").unlink()
    with pytest.raises(CohortError, match=r"hosp: patients.csv or \.csv\.gz is missing"):
        find_envoys(tmp_path)


def test_the_mimic_demo_is_read_as_its_readme_says():
    envoys = find_envoys(shared_data("mimic_iv_demo"))
    summaries = {files.name: check_envoy(files) for files in envoys}
    sizes = {name: summary.num_admissions for name, summary in summaries.items()}
    assert sizes == {"cardiac": 35, "medical": 25, "surgical": 68, "ward": 147}
    assert sum(summary.num_diagnoses for summary in summaries.values()) == 4506
    records = [record for files in envoys for record in read_admissions(files)]
    assert Counter(record.risk_tier for record in records) == {0: 78, 1: 123, 2: 74}


def test_the_tiers_derived_from_the_mimic_demo_are_the_published_ones():
    split = find_envoys(shared_data("mimic_iv_demo"))
    given = {record.hadm_id: record for files in split for record in read_admissions(files)}
    whole = replace(split[0], name="whole", is_split=False, outcomes=None)
    for record in read_admissions(whole):
        assert risk_tier(record) == given[record.hadm_id].risk_tier
        assert record.age == given[record.hadm_id].age


# What is written is read again


def exported(folder: Path, records: list[AdmissionRecord]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "diagnoses.csv").open("w", encoding="utf-8", newline="") as diagnoses,
        (folder / "outcomes.csv").open("w", encoding="utf-8", newline="") as outcomes,
    ):
        write_records(records, diagnoses, outcomes)
    return folder


def full_records() -> list[AdmissionRecord]:
    return [
        AdmissionRecord(
            subject_id='p"1,',
            hadm_id="é",
            age=1 / 3,
            sex="F",
            admitted_at="2151-01-01T00:00:00",
            discharged_at="2151-01-04T12:00:00",
            los_days=3.5,
            discharged_home=True,
            died_in_hospital=False,
            died_30d_after_discharge=False,
            readmit_30d=True,
            risk_tier=0,
            clinician_risk_level=2,
            number_diagnoses=16,
            number_inpatient=0,
            number_emergency=1,
            number_outpatient=42,
            diagnoses=(CodedDiagnosis(1, "0389", 9), CodedDiagnosis(3, "S020XXB", 10)),
        ),
        AdmissionRecord("p2", "9"),
        AdmissionRecord("p2", "10", diagnoses=(CodedDiagnosis(1, "I10", 10),)),
    ]


def test_an_export_is_a_cohort_folder_of_the_same_records(tmp_path):
    folder = exported(tmp_path / "north", full_records())
    (files,) = find_envoys(folder)
    check_envoy(files)
    assert files.name == "north"
    assert read_admissions(files) == full_records()


def test_a_snapshot_is_streamed_as_the_same_records(tmp_path):
    folder = exported(tmp_path, full_records())
    with (
        (folder / "diagnoses.csv").open("rb") as diagnoses,
        (folder / "outcomes.csv").open("rb") as outcomes,
    ):
        assert list(iter_snapshot(diagnoses, outcomes)) == full_records()


def test_a_snapshot_whose_files_are_sorted_differently_is_refused(tmp_path):
    folder = exported(tmp_path, full_records())
    first, *rows = (folder / "diagnoses.csv").read_bytes().splitlines(keepends=True)
    shuffled = io.BytesIO(b"".join([first, *reversed(rows)]))
    with (
        (folder / "outcomes.csv").open("rb") as outcomes,
        pytest.raises(CohortError, match="sorted"),
    ):
        list(iter_snapshot(shuffled, outcomes))


def test_reading_a_cohort_loads_neither_numpy_nor_torch():
    program = "import sys, federated.cohorts\nprint(*{'numpy', 'torch'}.intersection(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_stay_and_readmission_follow_from_dates_where_they_are_not_given(tmp_path):
    outcomes = """subject_id,hadm_id,admitted_at,discharged_at
p1,11,2020-01-01 08:00:00,2020-01-03 08:00:00
p1,12,2020-01-20 08:00:00,2020-01-21 20:00:00
p2,13,2020-02-01 08:00:00,
"""
    first, second, still_there = read_admissions(write_envoy(tmp_path, outcomes=outcomes))
    assert (first.los_days, first.readmit_30d) == (2.0, True)
    assert (second.los_days, second.readmit_30d) == (1.5, False)
    assert (still_there.los_days, still_there.readmit_30d) == (None, None)
