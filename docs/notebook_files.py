"""Shows each notebook of docs/notebooks as a page of the site; `python docs/notebook_files.py`
runs them anew.

A notebook is one .ipynb file, with what it printed and drew. Links lead to that file, so that they
work in the repository too; in the site they lead to its page."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "notebooks"
_TO_NOTEBOOK = re.compile(r"(\]\((?!https?:)[^)\s]*)\.ipynb\)")


def run(notebook: dict[str, Any], namespace: dict[str, object]) -> dict[str, Any]:
    """The notebook with what its cells print and draw now, run in order in one namespace."""
    cells = []
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            cells.append(cell)
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), namespace)
        outputs: list[dict[str, Any]] = []
        if text := printed.getvalue():
            outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(text)})
        outputs += [_shown(drawn, cell["metadata"]["alt"]) for drawn in _figures()]
        cells.append({**cell, "outputs": outputs})
    return {**notebook, "cells": cells}


def _figures() -> list[str]:
    """What matplotlib has drawn, which Jupyter would show below the cell."""
    from matplotlib import pyplot, rc_context

    drawn = []
    for number in pyplot.get_fignums():
        file = io.StringIO()
        with rc_context({"svg.hashsalt": "fastgaum"}):
            pyplot.figure(number).savefig(
                file, format="svg", bbox_inches="tight", metadata={"Date": None}
            )
        drawn.append(file.getvalue())
    pyplot.close("all")
    return drawn


def _shown(svg: str, alt: str) -> dict[str, Any]:
    kind = "image/svg+xml"
    data = {kind: _lines(svg)}
    return {"data": data, "metadata": {kind: {"alt": alt}}, "output_type": "display_data"}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def to_page(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, str]]:
    """A notebook's page in Markdown, and its figures by the names of their files."""
    parts, figures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
                continue
            ((kind, drawn),) = output["data"].items()
            file = f"{name}-{len(figures)}.svg"
            figures[file] = "".join(drawn)
            parts.append(f"![{output['metadata'][kind]['alt']}]({file})")
    parts.insert(1, f"[Download as a notebook](FILE/{name})")
    return "\n\n".join(parts), figures


def on_files(files: Any, *, config: Any) -> Any:
    """Add a page and its figures for each notebook."""
    from mkdocs.structure.files import File

    for path in sorted(FOLDER.glob("*.ipynb")):
        page, figures = to_page(json.loads(path.read_text(encoding="utf-8")), path.stem)
        for name, content in {f"{path.stem}.md": page, **figures}.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to a notebook lead to its page; the one below a notebook's title leads to the file."""
    markdown = _TO_NOTEBOOK.sub(r"\1.md)", markdown)
    return re.sub(r"\]\(FILE/([\w-]+)\)", r"](\1.ipynb)", markdown)


if __name__ == "__main__":
    import matplotlib as mpl

    mpl.use("agg")
    for path in sorted(FOLDER.glob("*.ipynb")):
        made = run(json.loads(path.read_text(encoding="utf-8")), {"__name__": "notebook"})
        text = json.dumps(made, ensure_ascii=False, indent=1)
        path.write_text(text + "\n", encoding="utf-8")
