"""The package as a tree, a line a module, and which package imports which; imports in functions and for types count.

    python scripts/import_graph.py             the tree
    python scripts/import_graph.py --imports   what each package, and module of the root, imports

Exit code 1 if modules import each other in a circle.
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path


PACKAGE = Path(__file__).resolve().parents[1] / "distjudge_trl"


def find_modules() -> dict[str, Path]:
    """Full names of all modules, and their files."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = path
    return names


def imports_of(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Full names of the modules that a file imports anywhere, in functions and for types, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def make_graph(modules: dict[str, Path]) -> dict[str, set[str]]:
    """Modules of the package to those that they import; without the package itself, which resolves public names."""
    inner = {name: path for name, path in modules.items() if name != "distjudge_trl"}
    return {name: {other for other in imports_of(path, modules) if other in inner} for name, path in inner.items()}


def summary(path: Path) -> str:
    """The first sentence or so of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def tree(modules: dict[str, Path]) -> Iterator[str]:
    for name, path in modules.items():
        depth = name.count(".")
        shown = name.rpartition(".")[2] + ("/" if path.name == "__init__.py" else "")
        yield f"{'  ' * depth}{shown:{34 - 2 * depth}} {summary(path)}"


def imports_between(graph: dict[str, set[str]]) -> Iterator[str]:
    between: dict[str, set[str]] = {}
    for name, others in graph.items():
        here = name.split(".")[1]
        between.setdefault(here, set()).update(other.split(".")[1] for other in others)
    for name, others in sorted(between.items()):
        yield f"{name:14} {', '.join(sorted(others - {name})) or '-'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imports", action="store_true", help="packages, and what they import")
    args = parser.parse_args()
    modules = find_modules()
    graph = make_graph(modules)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        print(f"A circle: {' -> '.join(error.args[1])}", file=sys.stderr)
        return 1
    # At once: a reader that stops early, as `head` does, breaks no pipe.
    print("\n".join(imports_between(graph) if args.imports else tree(modules)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
