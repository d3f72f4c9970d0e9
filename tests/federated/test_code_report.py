import json

import pytest

from federated import icd
from federated.code_report import (
    MOST_SHOWN,
    CodeKind,
    code_report,
    kinds_of,
    seen_from_outside,
    sex_of,
)
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
        assert found(of_man, OTHER_SEX) == [(code, version, 1)]
    assert found([make_record(sex="F", codes=("N401",))], OTHER_SEX) == [("N401", 10, 1)]
    # 752 of ICD-9 holds the genital organs of either.
    both = [make_record(sex=sex, codes=("752",), icd_version=9) for sex in "FM"]
    assert found(both, OTHER_SEX) == []


# All codes of these categories are in CMS's "Definitions of Medicare Code Edits" v37, section 5A or
# 5C; of the others some are, or none.
ONE_SEX = {
    "F": "A34 C51 C58 D06 D25 D28 D39 E28 F53 N70 N77 N80 N98 O00 O9A Q50 Q52 Q96 Q97 R87 Y76 Z33"
    " Z34 Z36 Z37 Z39 Z3A",
    "M": "C60 C63 D29 D40 E29 N40 N53 Q53 Q55 R86",
    "": "B37 C50 C79 D05 D07 D24 D41 E27 E30 F52 I86 L29 M83 N35 N39 N60 N65 N99 P54 P83 Q56 Q98"
    " Q99 R85 R88 R97 S37 T83 Z30 Z31 Z32 Z38 Z40 Z90",
}


@pytest.mark.parametrize("sex", ONE_SEX)
def test_categories_are_of_one_sex_where_the_list_of_medicare_says_so_of_all_their_codes(sex):
    for category in ONE_SEX[sex].split():
        assert icd.leaves_of(category, 10), category
        assert sex_of(category, 10) == sex, category


def test_a_code_of_newborns_is_suspicious_at_adults():
    ages = {0.0: [], 17.9: [], None: [], 18.0: [("P073", 10, 1)], 80.0: [("P073", 10, 1)]}
    for age, expected in ages.items():
        assert found([make_record(age=age, codes=("P073",))], CodeKind.NEWBORN) == expected


def test_patients_are_counted_once():
    def admissions(num_patients):
        for number in range(num_patients):
            for stay in range(3):
                yield make_record(f"p{number}", str(stay), codes=("I50", "I50"))

    for num_patients in (1, 9, 10):
        assert found(admissions(num_patients), CodeKind.UNSPECIFIC) == [("I50", 10, num_patients)]


def test_outside_the_hospital_no_count_under_ten_is_shown_and_no_text_that_is_in_no_list():
    def admissions(num_patients, *codes):
        return [make_record(f"{codes}{number}", codes=codes) for number in range(num_patients)]

    # Like a name: U0JOHN is of no category, I50JANE within a known one.
    records = admissions(9, "I50", "U0JOHN", "I50JANE") + admissions(10, "E11", "U0JACK")
    report = code_report(records).to_json()
    own = {code["code"]: code["num_patients"] for kind in report["kinds"] for code in kind["codes"]}
    assert own == {"I50": 9, "E11": 10, "U0JOHN": 9, "I50JANE": 9, "U0JACK": 10}
    kinds = {kind["kind"]: kind for kind in seen_from_outside(report["kinds"])}
    assert not any(name in json.dumps(kinds) for name in ("JOHN", "JANE", "JACK"))
    shown = {
        name: [(code["code"], code["num_patients"]) for code in kind["codes"]]
        for name, kind in kinds.items()
        if kind["codes"]
    }
    assert shown == {"unspecific": [("E11", 10), ("I50", None)], "unknown": [("", 10)]}
    # How many codes there are says nothing of a patient.
    assert (kinds["unknown"]["num_codes"], kinds["retired"]["num_codes"]) == (2, 1)


def test_a_code_that_only_the_other_list_has_is_shown_outside_with_the_title_it_has_there():
    report = code_report([make_record(codes=("V3000",))]).to_json()
    (code,) = (code for kind in seen_from_outside(report["kinds"]) for code in kind["codes"])
    assert (code["code"], code["icd_version"]) == ("V3000", 10)
    assert code["title"] == icd.title_of("V3000", 9) != ""


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
