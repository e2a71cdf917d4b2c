"""Whatever the code cites is in the project: sections of ``docs/spec``, rules and headings of ``docs/design.md``."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOPS = ("benchmarks", "clients", "deploy", "engine", "kernels", "server", "tests", "training")
SPEC = ROOT / "docs" / "spec"
DOCUMENTS = sorted(path.stem for path in SPEC.glob("*.md") if path.stem != "README")
UNNAMED = ("hiar", "training")
"""What a citation without a document's name means; their sections have different numbers."""

NUMBER = r"\d+(?:\.\d+)*"
NUMBERS = rf"{NUMBER}(?:(?: \([^()]*\))?(?:, | and | to |-){NUMBER})*"
NAME = rf"(?:``(?P<name>[\w-]+)(?:\.md)?``|(?P<plain>{'|'.join(DOCUMENTS)}))"
SECTION = rf"sections? (?P<numbers>{NUMBERS})(?:, item (?P<item>\d+))?"
CITATIONS = (
    re.compile(rf"(?:{NAME},? )?\b[Ss]pec(?:ification)?,? {SECTION}"),
    re.compile(rf"[Ss]pec {NAME},? {SECTION}"),
    re.compile(rf"{NAME},? {SECTION}"),
    re.compile(rf"\b[Ss]pec, (?P<name>[a-z]+) (?P<numbers>{NUMBERS})"),
)
LAWS = re.compile(rf"\bdesign, laws? (?P<numbers>{NUMBERS})")
HEADINGS = re.compile(r'\bdesign, "(?P<heading>[^"]+)"')
DESIGN = re.compile(r"(?<!by )\bdesign, |(?<=[(])design\b|\bdesign asks\b")
ANY_SECTION = re.compile(r"\b[Ss]ections? \d")
PUBLIC = re.compile(r"ITU-R|arXiv|RFC|ISO/IEC|et al\.")
NEAR = 100
"""Characters before a section's number in which a publication that has it is named."""


@dataclass(frozen=True)
class Citation:
    """One section that a file cites."""

    path: str
    line: int
    text: str
    documents: tuple[str, ...]
    section: str
    item: str | None


@dataclass(frozen=True)
class Source:
    """A file as one line: a citation may be broken over lines of a comment or a docstring."""

    path: str
    text: str
    starts: tuple[int, ...]
    """Where each line of the file begins in ``text``."""

    def line(self, at: int) -> int:
        return sum(start <= at for start in self.starts)

    def cited(self, pattern: re.Pattern[str]) -> Iterator[tuple[int, str, list[str]]]:
        for match in pattern.finditer(self.text):
            yield self.line(match.start()), match[0], spelled_out(match["numbers"])


def source(path: str, text: str) -> Source:
    joined, starts = "", []
    for line in text.splitlines():
        starts.append(len(joined))
        joined += f"{line.strip().removeprefix('#').lstrip()} "
    return Source(path, joined, tuple(starts))


def spelled_out(numbers: str) -> list[str]:
    """``5.1 (constants), 5.3 to 5.5`` as ``5.1, 5.3, 5.4, 5.5``."""
    found: list[str] = []
    for before, number in re.findall(rf"( to |-)?({NUMBER})", re.sub(r" \([^()]*\)", "", numbers)):
        if before:
            chapter, _, last = number.rpartition(".")
            first = int(found[-1].rpartition(".")[2])
            found += [f"{chapter}.{n}".lstrip(".") for n in range(first + 1, int(last))]
        found.append(number)
    return found


def citations(file: Source) -> Iterator[Citation]:
    taken: set[int] = set()
    for pattern in CITATIONS:
        for match in pattern.finditer(file.text):
            if taken.intersection(range(*match.span())):
                continue
            taken.update(range(*match.span()))
            groups = match.groupdict()
            name = groups.get("name") or groups.get("plain")
            for section in spelled_out(match["numbers"]):
                documents = UNNAMED if name is None else (name,)
                yield Citation(file.path, file.line(match.start()), match[0], documents, section, groups.get("item"))


def uncited(file: Source) -> Iterator[str]:
    """Sections of which neither a document here nor a publication nearby is named."""
    known = [match.span() for pattern in CITATIONS for match in pattern.finditer(file.text)]
    for match in ANY_SECTION.finditer(file.text):
        is_known = any(start <= match.start() < end for start, end in known)
        if not is_known and not PUBLIC.search(file.text, max(0, match.start() - NEAR), match.start()):
            yield f"{file.path}:{file.line(match.start())}: {file.text[max(0, match.start() - 40) : match.end() + 10]}"


def sections(document: str) -> dict[str, str]:
    """Text of each section by its number; that of a chapter includes its sections'."""
    path = SPEC / f"{document}.md"
    if not path.is_file():
        return {}
    text = path.read_text()
    found = list(re.finditer(rf"^(#+) ({NUMBER})\.? .+$", text, re.MULTILINE))
    texts = {}
    for here in found:
        ends = [after.start() for after in found if after.start() > here.start() and len(after[1]) <= len(here[1])]
        texts[here[2]] = text[here.end() : min(ends, default=len(text))]
    assert len(texts) == len(found), f"{path} has a number twice"
    return texts


FILES = [path for top in TOPS for path in sorted((ROOT / top).rglob("*.py")) if path.name != "test_spec.py"]
SOURCES = [source(str(path.relative_to(ROOT)), path.read_text()) for path in FILES]
CITED = [citation for file in SOURCES for citation in citations(file)]
TEXTS = {document: sections(document) for document in DOCUMENTS}
DESIGN_TEXT = (ROOT / "docs" / "design.md").read_text()
LAW = DESIGN_TEXT.partition("\n## The law\n")[2].partition("\n## ")[0]
RULES = set(re.findall(r"^(\d+)\. ", LAW, re.MULTILINE))


def problem(citation: Citation) -> str | None:
    """Why a citation leads nowhere, or None."""
    texts = [TEXTS[name][citation.section] for name in citation.documents if citation.section in TEXTS.get(name, {})]
    where = f"{citation.path}:{citation.line} cites {citation.text!r}:"
    if not texts:
        return f"{where} docs/spec/{citation.documents[0]}.md has no section {citation.section}"
    if citation.item and not re.search(rf"^ *{citation.item}\. ", texts[0], re.MULTILINE):
        return f"{where} section {citation.section} has no item {citation.item}"
    return None


@pytest.mark.parametrize("citation", CITED, ids=lambda citation: f"{citation.path}:{citation.line}-{citation.section}")
def test_what_is_cited_exists(citation: Citation) -> None:
    assert problem(citation) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('"""A cache (spec section 1.99)."""', "hiar.md has no section 1.99"),
        ('"""Sizes (``vae`` spec\n    sections 5.1 (words), 5.3 to 5.7)."""', "vae.md has no section 5.7"),
        ("# Positions (spec section 1.3, item 40)", "section 1.3 has no item 40"),
        ('"""Spec ``weather.md``, section 2."""', "docs/spec/weather.md has no section 2"),
        ('"""As in spec section 2.1 and ``gears`` section 3."""', "docs/spec/gears.md has no section 3"),
        ('"""Die with the front (spec, operations 1.77)."""', "operations.md has no section 1.77"),
    ],
)
def test_a_made_up_citation_is_found(text: str, complaint: str) -> None:
    (found,) = filter(None, map(problem, citations(source("made_up.py", text))))
    assert complaint in found


def test_every_section_is_of_a_document_that_is_named() -> None:
    assert [line for file in SOURCES for line in uncited(file)] == []


def test_laws_are_rules_of_the_design() -> None:
    cited = [(file.path, line, rule) for file in SOURCES for line, _, rules in file.cited(LAWS) for rule in rules]
    assert cited and RULES
    assert [law for law in cited if law[2] not in RULES] == []


def test_the_design_is_cited_by_law_or_heading() -> None:
    for file in SOURCES:
        for match in DESIGN.finditer(file.text):
            heading = HEADINGS.match(file.text, match.start())
            assert LAWS.match(file.text, match.start()) or heading, f"{file.path}:{file.line(match.start())}"
            assert heading is None or f"\n## {heading['heading']}\n" in DESIGN_TEXT, f"{file.path}: {heading[0]}"


def test_every_document_is_cited_and_in_the_index() -> None:
    index = (SPEC / "README.md").read_text()
    named = {name for citation in CITED for name in citation.documents if citation.section in TEXTS[name]}
    assert set(DOCUMENTS) == named
    assert set(re.findall(r"\]\((\w+)\.md\)", index)) == set(DOCUMENTS)
