import sys

from federated.cohorts import find_envoys
from federated.outcome_codes import (
    Figure,
    OutcomeCodes,
    compare_outcome_codes,
    main,
    num_patients_with,
    table,
)
from tests.federated.builders import make_record, small_plan


def write_cohort(data_dir, numbers=range(90)):
    """Of each hospital's patients every third died, and has the code of cardiac arrest."""
    for name in ("north", "south"):
        envoy = data_dir / "envoys" / name
        envoy.mkdir(parents=True)
        diagnoses, outcomes = [], []
        for number in numbers:
            patient, died = f"{name}{number}", number % 3 == 0
            diagnoses.append(f"{patient},{patient},1,I10,10")
            diagnoses.append(f"{patient},{patient},2,{'I469' if died else 'I119'},10")
            diagnoses.append(f"{patient},{patient},3,I119,10")
            outcomes.append(f"{patient},{patient},{int(died)}")
        header = "subject_id,hadm_id,seq_num,icd_code,icd_version"
        (envoy / "diagnoses_icd.csv").write_text("\n".join([header, *diagnoses]))
        header = "subject_id,hadm_id,died_in_hospital"
        (envoy / "outcomes.csv").write_text("\n".join([header, *outcomes]))
    return data_dir


def test_patients_with_a_code_that_defines_death_are_counted_once():
    codes = [("p1", "I469"), ("p1", "Z515"), ("p2", "Z66"), ("p3", "I10"), ("p4", "XXX")]
    assert num_patients_with(make_record(p, codes=(code,)) for p, code in codes) == 2
    assert num_patients_with([make_record("p5", codes=("4275", "V667"), icd_version=9)]) == 1


def test_a_model_that_is_given_the_outcome_knows_it_and_the_study_is_not_given_it(tmp_path):
    hospitals = {files.client_id: files for files in find_envoys(write_cohort(tmp_path))}
    found = compare_outcome_codes(hospitals, small_plan(target="died_in_hospital"), seed=0)
    assert found.num_patients == 60
    assert found.with_codes.auroc == 1
    assert found.without.auroc == 0.5  # but for the code that is dropped, all are alike


def test_of_under_ten_test_patients_no_auroc_is_told(tmp_path):
    plan = small_plan(target="died_in_hospital")
    told = []
    for numbers in (range(7, 31), range(90)):  # six of the first are test patients
        data_dir = write_cohort(tmp_path / str(numbers), numbers)
        hospitals = {files.client_id: files for files in find_envoys(data_dir)}
        found = compare_outcome_codes(hospitals, plan, seed=0)
        told.append((found.without.auroc is not None, found.with_codes.interval is not None))
    assert told == [(False, False), (True, True)]


def test_few_patients_and_undefined_figures_are_not_shown_as_numbers():
    text = table(OutcomeCodes(None, Figure(None, None), Figure(0.875, None)))
    assert text.startswith("fewer than ten patients")
    assert "–" in text
    assert "0.8750" in text


def test_both_figures_are_printed_by_one_command(tmp_path, monkeypatch, capsys):
    data = str(write_cohort(tmp_path))
    report = tmp_path / "report.json"
    monkeypatch.setattr(
        sys, "argv", ["outcome", "--data", data, "--rounds", "1", "--json", str(report)]
    )
    main()
    assert "60 patients have a code that defines death" in capsys.readouterr().out
    assert report.exists()
