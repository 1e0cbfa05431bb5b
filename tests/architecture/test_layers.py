"""The folder list is the architecture: imports never point up, libraries have owners."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "conforma"

# Lowest first. Modules directly in the package that everybody may use share
# the first level, where each may import those before it by name only.
FOUNDATION = [
    "errors",
    "cancellation",
    "gojson",
    "gotext",
    "schema_check",
    "schema_errors",
    "yamljson",
    "findings",
]
LAYERS = [
    "foundation",
    "oci",
    "cache",
    "trust",
    "policy",
    "validate",
    "report",
    "mirror",
    "ledger",
    "serve",
    "cli",
]
OWNERS = {
    "httpx": {"oci", "policy"},
    "http.client": {"oci"},
    "diskcache": {"cache"},
    "filelock": {"cache", "oci", "trust", "ledger"},
    "sigstore": {"trust"},
    "tuf": {"trust", "ledger"},
    "securesystemslib": {"trust", "ledger"},
    "cryptography": {"trust", "ledger", "serve"},
    "lightkube": {"policy"},
    "rich": {"cli"},
    "click": {"cli"},
}


def own_modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__main__.py")


def imports_of(path: Path) -> Iterator[str]:
    """Every imported module, whether at the top, in a function or for types only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(dotted: str) -> str:
    parts = dotted.split(".")
    if len(parts) == 1 or parts[1] in FOUNDATION or parts[1].startswith("__"):
        return "foundation"
    return parts[1]


def dotted_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


@pytest.mark.parametrize("path", own_modules(), ids=dotted_name)
def test_imports_never_point_up(path: Path) -> None:
    own = layer(dotted_name(path).removesuffix(".__init__"))
    assert own in LAYERS, f"{path} is in no layer"
    for target in imports_of(path):
        if target == "conforma" or target.startswith("conforma."):
            reached = layer(target)
            if reached not in LAYERS:
                continue  # a name of the package itself, such as __version__
            assert LAYERS.index(reached) <= LAYERS.index(own), f"{path} reaches up to {target}"


@pytest.mark.parametrize("path", own_modules(), ids=dotted_name)
def test_third_party_libraries_stay_with_their_owner(path: Path) -> None:
    own = layer(dotted_name(path).removesuffix(".__init__"))
    for target in imports_of(path):
        for library, owners in OWNERS.items():
            if target == library or target.startswith(library + "."):
                assert own in owners, f"{path} imports {library}, which belongs to {owners}"


@pytest.mark.parametrize("path", own_modules(), ids=dotted_name)
def test_every_module_opens_with_its_idea(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), (
        f"{path} has no docstring"
    )


def test_modules_stay_small_enough_to_have_one_idea() -> None:
    too_long = {
        str(p.relative_to(PACKAGE)): n
        for p in own_modules()
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not too_long
