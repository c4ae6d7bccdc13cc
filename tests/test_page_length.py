"""README and pages are short, and say one thing after the other: words of each page and of all,
sentences of a paragraph, and the share of sentences that are too short to hold a thought.

Not counted are the tables that bench/readme.py makes, code, comments and addresses of links;
README alone counts its tables and the comments in its code. docs/index.md is README, and
docs/learned.md is a diary that is read by looking up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastgaum.bench.excerpts import NUMBER

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = sorted(
    {*(ROOT / "docs").rglob("*.md")} - {ROOT / "docs" / name for name in ("index.md", "learned.md")}
)
READ_IN_ORDER = [README, *(page for page in PAGES if page.parent.name in ("guide", "concepts"))]

BLOCK = re.compile(r"^<!-- (.+):begin -->$.*?^<!-- \1:end -->$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`]+`")
CODE_COMMENT = re.compile(r"(?<!\S)#+ (.+)$", re.MULTILINE)
WORD = re.compile(r"\S*\w\S*")
ITEM = re.compile(r"^ *(?:[-*]|\d+\.) +", re.MULTILINE)
# a full stop of these ends no sentence
ABBREVIATED = re.compile(r"\b(et al|e\.g|i\.e|vs|cf|No)\.")
SENTENCE_END = re.compile(r"(?<=[.!?])[*)\"]*\s+(?=[*\"(\[]*[A-Z0-9`])")
SHORT = 8


def prose_of(text: str) -> str:
    """What a reader of a page reads beside code and generated tables."""
    text = FENCE.sub("", BLOCK.sub("", text))
    text = NUMBER.sub(lambda found: re.findall(r"-->(.*)<!--", found[0])[0], text)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^:::.*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\]\([^)\s]*\)", "]", re.sub(r"<[^>]+>", " ", text))


def words_of(text: str) -> int:
    return len(WORD.findall(CODE.sub("", prose_of(text))))


def words_of_readme(text: str) -> int:
    """With its tables and the comments in its code."""
    comments = [one for block in FENCE.finditer(text) for one in CODE_COMMENT.findall(block[0])]
    shown = re.sub(r"^<!-- .+:(begin|end) -->$", "", text, flags=re.MULTILINE)
    return words_of(shown) + sum(len(WORD.findall(one)) for one in comments)


def paragraphs_of(text: str) -> list[list[str]]:
    """Sentences of each paragraph and each item of a list."""
    paragraphs = []
    for part in re.split(r"\n\s*\n", prose_of(text)):
        if re.match(r"\s*(#|\||!\[|    )", part) or not part.strip():
            continue
        for item in ITEM.split(part):
            whole = CODE.sub(lambda code: re.sub(r"[.!?]", "_", code[0]), item.strip())
            whole = ABBREVIATED.sub(r"\1", whole)
            # headings of tables and fragments have no end
            sentences = [one for one in SENTENCE_END.split(whole) if re.search(r"[.!?:]\W*$", one)]
            if sentences:
                paragraphs.append(sentences)
    return paragraphs


def share_of_short(paragraphs: list[list[str]]) -> float:
    lengths = [len(WORD.findall(one)) for sentences in paragraphs for one in sentences]
    return sum(length <= SHORT for length in lengths) / max(len(lengths), 1)


def test_the_readme_is_short_and_begins_with_code() -> None:
    text = README.read_text(encoding="utf-8")
    assert words_of_readme(text) <= 1_200
    before, code, _ = text.partition("\n```")
    assert code
    assert words_of(before) <= 60


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_short(page: Path) -> None:
    assert words_of(page.read_text(encoding="utf-8")) <= 2_500


def test_all_pages_together_are_short() -> None:
    assert sum(words_of(page.read_text(encoding="utf-8")) for page in PAGES) <= 25_000


@pytest.mark.parametrize("page", READ_IN_ORDER, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_paragraph_has_five_sentences_at_most(page: Path) -> None:
    paragraphs = paragraphs_of(page.read_text(encoding="utf-8"))
    assert [" ".join(one)[:80] for one in paragraphs if len(one) > 5] == []


@pytest.mark.parametrize("page", READ_IN_ORDER, ids=lambda page: str(page.relative_to(ROOT)))
def test_few_sentences_are_too_short_to_hold_a_thought(page: Path) -> None:
    assert share_of_short(paragraphs_of(page.read_text(encoding="utf-8"))) <= 0.15


def test_what_is_counted() -> None:
    text = (
        "# Two words\n\nOne *sentence* of [six words](a.md) here. And `a. B` two!\n\n"
        "| a | table |\n\n- An item: it is one sentence by Ie et al. of 2019.\n\n"
        "<!-- t:begin -->\n\n| not |\n\n<!-- t:end -->\n\n```python\ncode()  # three more words\n```\n"
        "<!--= log > a : .1f -->0.5<!--/--> of it.\n"
    )
    assert words_of(text) == 2 + 6 + 2 + 2 + 12 + 3
    assert words_of_readme(text) == words_of(text) + 1 + 3
    assert [len(one) for one in paragraphs_of(text)] == [2, 1, 1]
    assert share_of_short(paragraphs_of(text)) == 3 / 4
