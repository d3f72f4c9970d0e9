import json

import pytest

from federated.code_report import MOST_SHOWN, CodeKind, code_report, kinds_of
from tests.federated.builders import make_record

OTHER_SEX = CodeKind.OTHER_SEX


def found(records, kind):
    (odd,) = (odd for odd in code_report(records).kinds if odd.kind is kind)
    return [(code.code, code.icd_version, code.num_patients) for code in odd.codes]


@pytest.mark.parametrize(
    ("code", "icd_version", "kinds"),
    [
        ("I509", 10, ()),
        ("4280", 9, ()),
        ("I50", 10, (CodeKind.UNSPECIFIC,)),
        ("250", 9, (CodeKind.UNSPECIFIC,)),
        ("E1199", 10, (CodeKind.RETIRED,)),
        ("E119", 9, (CodeKind.OTHER_VERSION,)),
        ("V3000", 10, (CodeKind.OTHER_VERSION,)),
        ("A999", 10, (CodeKind.RETIRED,)),
        ("U999", 10, (CodeKind.UNKNOWN,)),
        ("E7999", 9, (CodeKind.UNKNOWN,)),
    ],
)
def test_what_the_tables_tell_of_a_code(code, icd_version, kinds):
    assert kinds_of(code, icd_version) == kinds


def test_a_code_of_one_sex_is_suspicious_at_the_other_alone():
    for code, version in (("O80", 10), ("N92", 10), ("65651", 9), ("656", 9)):
        assert found([make_record(sex="F", codes=(code,), icd_version=version)], OTHER_SEX) == []
        assert found([make_record(sex="", codes=(code,), icd_version=version)], OTHER_SEX) == []
        of_man = [make_record(sex="M", codes=(code,), icd_version=version)]
        assert found(of_man, OTHER_SEX) == [(code, version, None)]
    assert found([make_record(sex="F", codes=("N401",))], OTHER_SEX) == [("N401", 10, None)]
    # 752 of ICD-9 holds the genital organs of either.
    both = [make_record(sex=sex, codes=("752",), icd_version=9) for sex in "FM"]
    assert found(both, OTHER_SEX) == []


def test_a_code_of_newborns_is_suspicious_at_adults():
    ages = {0.0: [], 17.9: [], None: [], 18.0: [("P073", 10, None)], 80.0: [("P073", 10, None)]}
    for age, expected in ages.items():
        assert found([make_record(age=age, codes=("P073",))], CodeKind.NEWBORN) == expected


def test_patients_are_counted_once_and_fewer_than_ten_are_not_shown():
    def admissions(num_patients):
        for number in range(num_patients):
            for stay in range(3):
                yield make_record(f"p{number}", str(stay), codes=("I50", "I50"))

    assert found(admissions(9), CodeKind.UNSPECIFIC) == [("I50", 10, None)]
    assert found(admissions(10), CodeKind.UNSPECIFIC) == [("I50", 10, 10)]


def test_the_most_frequent_come_first_and_the_order_of_rare_ones_is_that_of_the_codes():
    codes = [f"A{number:02}" for number in range(0, 10)] + [f"I{n}" for n in range(20, 53)]
    records = [make_record("p1", codes=codes), make_record("p2", codes=codes[-1:])]
    records += [make_record(f"q{number}", codes=("I50",)) for number in range(10)]
    (odd,) = (o for o in code_report(records).kinds if o.kind is CodeKind.UNSPECIFIC)
    assert odd.num_codes > MOST_SHOWN == len(odd.codes)
    assert (odd.codes[0].code, odd.codes[0].num_patients) == ("I50", 11)
    rare = [code.code for code in odd.codes[1:]]
    assert rare == sorted(rare)


def test_a_report_names_every_kind_and_no_patient():
    report = code_report([make_record("someone", codes=("E1199", "I509"))]).to_json()
    assert report["num_codes"] == 2
    assert [kind["kind"] for kind in report["kinds"]] == [kind.name.lower() for kind in CodeKind]
    assert {kind["group"] for kind in report["kinds"]} == {"unknown", "retired", "suspicious"}
    assert "someone" not in json.dumps(report)
