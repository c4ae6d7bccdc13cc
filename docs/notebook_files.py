"""Puts each notebook of docs/notebooks beside its page as an .ipynb file, for readers to download.

A notebook is kept as the markdown of its page (jupytext's form): one text to read, to review and to
test. What it printed and drew stands in the page between two comments, and is not in the file: a
reader's own run makes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jupytext
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

FOLDER = "notebooks/"
_OUTPUT = re.compile(r"<!-- output -->\n.*?<!-- /output -->\n+", re.DOTALL)
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]*\)")


def to_ipynb(text: str) -> str:
    """The .ipynb file of a page's text: code cells without outputs, and prose whose links to other
    pages are plain words, since those pages do not lie beside the file."""
    without = _LINK.sub(r"\1", _OUTPUT.sub("", text))
    return jupytext.writes(jupytext.reads(without, fmt="md"), fmt="ipynb")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a file for each notebook."""
    for file in list(files.documentation_pages()):
        if file.src_uri.startswith(FOLDER):
            name = file.src_uri.removesuffix(".md") + ".ipynb"
            files.append(File.generated(config, name, content=to_ipynb(file.content_string)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Lead to the file, below the title."""
    if not page.file.src_uri.startswith(FOLDER):
        return markdown
    title, _, rest = markdown.lstrip().partition("\n")
    return f"{title}\n\n[Download as a notebook]({Path(page.file.src_uri).stem}.ipynb)\n{rest}"
