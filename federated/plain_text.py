"""Text that shows what it says: nothing hidden, and nothing that turns its order around."""

import re
import unicodedata

from federated.errors import InvalidValueError

# Letters of Persian and of Indic scripts are joined and parted by these two.
JOINERS = {"\u200c", "\u200d"}
LINES = {"\n", "\r", "\t"}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# What a spreadsheet takes for the start of a formula.
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def check_plain(text: str, what: str, *, has_lines: bool = False) -> str:
    """Refuse control characters, NUL among them, and marks that are not seen but change how text reads.

    A bidirectional override makes "gpj.exe" look like "exe.jpg" and one hospital like another.

    Args:
        what: the text is called in the refusal, which never shows it.
        has_lines: it may have line breaks and tabs.
    Raises:
        InvalidValueError: it names the character by its number.
    Source: Unicode Technical Report 36, "Unicode Security Considerations", section 2.
    """
    allowed = JOINERS | LINES if has_lines else JOINERS
    for character in text:
        if unicodedata.category(character) in _HIDDEN and character not in allowed:
            raise InvalidValueError(
                f"{what} has a character that is not seen, U+{ord(character):04X}: type it again"
            )
    return text


def is_formula(text: str) -> bool:
    """Whether a spreadsheet that opens this as a cell would calculate it; a number is none."""
    return bool(_FORMULA.match(text)) and not _NUMBER.fullmatch(text)
