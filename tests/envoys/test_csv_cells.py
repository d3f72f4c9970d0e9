import csv

import pytest

from envoys.csv_cells import csv_lines, safe_cell


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1+1",
        "-1-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1+1",
        " =1",
        "\u3000=1",
        "＝1+1",
        "＋1",
        "－1",
        "＠A1",
    ],
)
def test_what_a_spreadsheet_would_run_is_text(text):
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["1-1", "", "a=b", "-1", -1, 1.5, None])
def test_everything_else_is_left_as_it_is(value):
    assert safe_cell(value) == value


def test_lines_are_csv_one_by_one():
    rows: list[list[object]] = [["a,b", '=HYPERLINK("x")'], ["c\nd", -2]]
    lines = csv_lines(["first", "second"], rows)
    assert next(lines) == "first,second\r\n"
    rest = list(lines)
    assert len(rest) == 2
    assert list(csv.reader(rest)) == [["a,b", '\'=HYPERLINK("x")'], ["c\nd", "-2"]]
