import csv
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from federated.cohorts import check_envoy, find_envoys, read_admissions
from federated.datasets import ClientDataset, build_dataset, concatenate
from federated.features import TEST, TRAIN
from federated.icd import CodeStatus, code_status
from federated.schemas import feature_schema
from federated.synthetic import HOSPITALS, code_table, write_synthetic_cohort
from federated.targets import risk_tier

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """The folder of a seed; each is written once."""

    @cache
    def of_seed(seed: int) -> Path:
        data_dir = tmp_path_factory.mktemp(f"seed{seed}")
        write_synthetic_cohort(data_dir, seed=seed)
        return data_dir

    return of_seed


def admissions_by_hospital(data_dir):
    return {files.name: read_admissions(files) for files in find_envoys(data_dir)}


def all_admissions(data_dir):
    return [record for records in admissions_by_hospital(data_dir).values() for record in records]


def file_bytes(data_dir):
    return {path.relative_to(data_dir): path.read_bytes() for path in data_dir.rglob("*.csv")}


def model_inputs(dataset: ClientDataset) -> np.ndarray:
    """The inputs that occur as 0/1 columns, and the standardised numbers."""
    used, columns = np.unique(dataset.indices, return_inverse=True)
    rows = np.repeat(np.arange(len(dataset.labels)), np.diff(dataset.offsets))
    present = np.zeros((len(dataset.labels), len(used)), np.float32)
    present[rows, columns] = 1
    centred = dataset.numeric - np.nanmean(dataset.numeric, axis=0)
    return np.hstack([present, np.nan_to_num(centred / np.nanstd(centred, axis=0))])


def rule_of_thumb(dataset: ClientDataset) -> np.ndarray:
    train = dataset.rows(TRAIN)
    in_band = [dataset.labels[train][dataset.bands[train] == band] for band in range(3)]
    frequencies = [np.bincount(labels, minlength=3) / len(labels) for labels in in_band]
    return np.array(frequencies)[dataset.bands[dataset.rows(TEST)]]


@pytest.mark.parametrize("seed", SEEDS)
def test_codes_and_age_predict_the_outcome_and_the_number_of_diagnoses_hardly_does(cohort, seed):
    schema = feature_schema("risk_tier")
    hospitals = admissions_by_hospital(cohort(seed)).values()
    dataset = concatenate(build_dataset(records, schema) for records in hospitals)
    train, test = dataset.rows(TRAIN), dataset.rows(TEST)
    inputs = model_inputs(dataset)

    model = LogisticRegression(C=0.1, tol=1e-3, max_iter=300)
    model.fit(inputs[train], dataset.labels[train])

    pooled = model.predict_proba(inputs[test])
    assert 0.75 <= roc_auc_score(dataset.labels[test], pooled, multi_class="ovr") <= 0.85
    rule = rule_of_thumb(dataset)
    assert 0.5 < roc_auc_score(dataset.labels[test], rule, multi_class="ovr") < 0.65


@pytest.mark.parametrize("seed", SEEDS)
def test_the_largest_hospital_has_ten_times_the_admissions_of_the_smallest(cohort, seed):
    sizes = [len(records) for records in admissions_by_hospital(cohort(seed)).values()]
    assert len(sizes) == 5
    assert min(sizes) >= 300
    assert max(sizes) >= 10 * min(sizes)
    assert sum(sizes) == pytest.approx(12_000, rel=0.05)


def test_hospitals_differ_in_case_mix_and_in_how_often_it_goes_badly(cohort):
    hospitals = admissions_by_hospital(cohort(0))

    def share_with(name, chapter):
        records = hospitals[name]
        return np.mean([any(d.icd_code.startswith(chapter) for d in r.diagnoses) for r in records])

    general = "aspenfell-general"
    assert share_with("cedarfjord-heart", "I") > 1.3 * share_with(general, "I")
    assert share_with("lindelow-cancer", "C") > 3 * share_with(general, "C")
    assert share_with("birkemoor-women-and-children", "O") > 3 * share_with(general, "O")
    high = [np.mean([r.risk_tier == 2 for r in records]) for records in hospitals.values()]
    assert max(high) > 2 * min(high) > 0.1


def test_the_importer_finds_nothing_to_refuse_or_to_warn_of(cohort):
    envoys = find_envoys(cohort(0))
    assert [files.name for files in envoys] == [hospital.name for hospital in HOSPITALS]
    assert [check_envoy(files).warnings for files in envoys] == [[]] * len(envoys)


def test_every_code_is_a_current_leaf_of_the_public_list_and_occurs(cohort):
    codes = set(code_table().icd_codes)
    assert [code for code in sorted(codes) if code_status(code, 10) is not CodeStatus.LEAF] == []
    recorded = {d.icd_code for record in all_admissions(cohort(0)) for d in record.diagnoses}
    assert recorded == codes


def test_the_outcome_columns_agree_with_the_definition_of_the_tier(cohort):
    for record in all_admissions(cohort(0)):
        if record.died_in_hospital or record.readmit_30d:
            expected = 2
        elif not record.discharged_home or record.los_days >= 7:
            expected = 1
        else:
            expected = 0
        assert risk_tier(record) == record.risk_tier == expected
        assert not (record.died_in_hospital and (record.readmit_30d or record.discharged_home))
        assert record.los_days > 0


def test_an_admission_has_a_primary_diagnosis_and_each_code_once(cohort):
    for record in all_admissions(cohort(0)):
        diagnoses = record.diagnoses
        assert [d.seq_num for d in diagnoses] == list(range(1, record.number_diagnoses + 1))
        assert len({d.icd_code for d in diagnoses}) == len(diagnoses)


def test_a_patients_admissions_follow_each_other_in_time_and_end_with_death(cohort):
    stays: dict[str, list[Any]] = {}
    for record in sorted(all_admissions(cohort(0)), key=lambda record: int(record.hadm_id)):
        stays.setdefault(record.subject_id, []).append(record)
    assert max(map(len, stays.values())) > 2
    for records in stays.values():
        assert len({record.sex for record in records}) == 1
        ages = [record.age for record in records]
        assert ages == sorted(ages)
        assert ages[-1] <= ages[0] + 1
        assert not any(record.died_in_hospital for record in records[:-1])
        for num_earlier, record in enumerate(records):
            assert record.number_inpatient is None or record.number_inpatient >= num_earlier


def test_nobody_has_a_disease_of_the_other_sex_or_of_another_age(cohort):
    for record in all_admissions(cohort(0)):
        for diagnosis in record.diagnoses:
            chapter = diagnosis.icd_code[0]
            if chapter == "O" or diagnosis.icd_code == "D259":
                assert record.sex == "F"
            if chapter == "O":
                assert 15 <= record.age <= 50
            if diagnosis.icd_code in ("C61", "N400"):
                assert record.sex == "M"
            if chapter == "P" or diagnosis.icd_code.startswith("Z38"):
                assert record.age == 0


def test_conditions_come_together(cohort):
    """Diabetes is more common among those whose heart fails than among the other adults."""
    adults = [record for record in all_admissions(cohort(0)) if record.age >= 18]
    has_diabetes = np.array([any(d.icd_code[:3] == "E11" for d in r.diagnoses) for r in adults])
    heart_fails = np.array([any(d.icd_code[:3] == "I50" for d in r.diagnoses) for r in adults])
    assert has_diabetes[heart_fails].mean() > 1.5 * has_diabetes[~heart_fails].mean()


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        write_synthetic_cohort(tmp_path / name, seed=seed, scale=0.05)
    first = file_bytes(tmp_path / "first")
    assert len(first) == 10
    assert file_bytes(tmp_path / "again") == first
    other = file_bytes(tmp_path / "other")
    assert all(other[path] != content for path, content in first.items())


def test_the_scale_sets_the_number_of_patients_and_the_names_are_returned(tmp_path):
    names = write_synthetic_cohort(tmp_path, scale=0.1)
    assert names == sorted(hospital.name for hospital in HOSPITALS)
    for hospital in HOSPITALS:
        with (tmp_path / "envoys" / hospital.name / "outcomes.csv").open(newline="") as file:
            patients = {row["subject_id"] for row in csv.DictReader(file)}
        assert len(patients) == round(hospital.num_patients * 0.1)
