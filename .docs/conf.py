"""Sphinx makes the reference from the docstrings; `.ci/run` has the command."""

from __future__ import annotations

import importlib.metadata
import re
from typing import TYPE_CHECKING
from typing import Any

from sphinx.util import logging

import optuna_shape
from optuna_shape import families
from optuna_shape import measure

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "optuna_shape"
release = importlib.metadata.version(project)

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinxcontrib.typer",
]
myst_heading_anchors = 2
html_theme = "furo"
html_title = project

# Pages say where their names are imported from.
add_module_names = False
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 80
autodoc_member_order = "bysource"
# What Optuna calls of a sampler is described there.
autodoc_inherit_docstrings = False
autodoc_type_aliases = {"Floats": "Floats", "Indices": "Indices"}
napoleon_use_ivar = True

# A role that leads nowhere is a mistake, but for those into other packages: to look these up would
# take the network.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!optuna_shape\b)\w+\..*"),
    ("py:class", r"Any|Path|Study|Trial|ArrayLike|Floats|Indices|(.*\.)?T|.*\._.*"),
]


# Pages that begin with a file of the project, with links as they are from there.
FILES = {
    "index": "README.md",
    "results": "benchmarks/RESULTS.md",
    "limits": "benchmarks/LIMITS.md",
}
LINKS = {
    "](benchmarks/RESULTS.md": "](results.md",
    "](RESULTS.md": "](results.md",
    "](benchmarks/LIMITS.md": "](limits.md",
    "](LIMITS.md": "](limits.md",
    "](benchmarks/results/": "](../benchmarks/results/",
    "](results/": "](../benchmarks/results/",
}


def setup(app: Sphinx) -> None:
    app.connect("source-read", include_files)
    app.connect("autodoc-process-signature", unwrap_aliases)
    app.connect("env-check-consistency", check_completeness)


def include_files(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the text of the file before that of the page, where its links lead somewhere."""
    if page in FILES:
        text = (app.srcdir.parent / FILES[page]).read_text()
        for link, there in LINKS.items():
            text = text.replace(link, there)
        source[0] = f"{text}\n{source[0]}"


def unwrap_aliases(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, str]:
    """Show the name of a type's alias where Sphinx shows its own marker for it."""
    first, second = (
        text and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text)
        for text in (signature, returns)
    )
    return first, second


def check_completeness(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn, which fails the build, of a public name that is on no page."""
    documented = {name for name, *_ in env.domains["py"].get_objects()}
    for package in (optuna_shape, families, measure):
        for name in package.__all__:
            thing = getattr(package, name)
            home = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"
            if not documented & {f"{package.__name__}.{name}", home}:
                logging.getLogger(__name__).warning(
                    f"{package.__name__}.{name} is in no page of .docs. Add it to one."
                )
