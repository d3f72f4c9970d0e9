"""Text that shows what it says."""

import pytest

from federated.cohorts.values import parse_id
from federated.errors import InvalidValueError
from federated.plain_text import check_plain, is_formula


@pytest.mark.parametrize(
    "text", ["Zoë Ångström", "محمد", "می‌خواهم", "O'Brien-Łuk", "李 小龍", "👩‍⚕️"]
)
def test_names_of_all_scripts_are_plain(text):
    assert check_plain(text, "the name") == text


@pytest.mark.parametrize(
    ("character", "number"),
    [
        ("\0", "U+0000"),
        ("\x1b", "U+001B"),
        ("\n", "U+000A"),
        ("\u202e", "U+202E"),  # right-to-left override
        ("\u2066", "U+2066"),  # left-to-right isolate
        ("\u200f", "U+200F"),  # right-to-left mark
        ("\u200b", "U+200B"),  # zero-width space
        ("\ufeff", "U+FEFF"),
        ("\u2028", "U+2028"),
        ("\ud800", "U+D800"),
        ("\ue000", "U+E000"),  # private use
        ("\U000e0041", "U+E0041"),  # a tag: text within text
    ],
)
def test_a_hidden_character_is_refused_by_its_number_and_without_the_text(character, number):
    with pytest.raises(InvalidValueError) as refused:
        check_plain(f"Ada{character}Lovelace", "the name")
    assert (
        str(refused.value) == f"the name has a character that is not seen, {number}: type it again"
    )


def test_a_text_may_have_lines_where_it_is_said_so():
    assert check_plain("one\r\n\ttwo", "the reason", has_lines=True) == "one\r\n\ttwo"
    with pytest.raises(InvalidValueError, match=r"U\+0000"):
        check_plain("one\0two", "the reason", has_lines=True)


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-1+1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n=1", "＝1"]
)
def test_what_a_spreadsheet_would_calculate_is_a_formula_and_no_identifier(text):
    assert is_formula(text)
    with pytest.raises(InvalidValueError):
        parse_id(text, "subject_id")


@pytest.mark.parametrize("text", ["", "a=1", "12", "-12", "+4.5", "H12-3", "p@x"])
def test_numbers_and_words_are_no_formula(text):
    assert not is_formula(text)
    if text:
        assert parse_id(text, "subject_id") == text
