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
    """Modules of the package that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (name for name in (inner if inner in modules else node.module,) if name in modules)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)


def summary(path: Path) -> str:
    """The first sentence or so of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def print_tree(modules: dict[str, Path]) -> None:
    for name, path in modules.items():
        depth = name.count(".")
        shown = name.rpartition(".")[2] + ("/" if path.name == "__init__.py" else "")
        print(f"{'  ' * depth}{shown:{34 - 2 * depth}} {summary(path)}")


def print_imports(graph: dict[str, set[str]]) -> None:
    between: dict[str, set[str]] = {}
    for name, others in graph.items():
        here = name.split(".")[1]
        between.setdefault(here, set()).update(other.split(".")[1] for other in others)
    for name, others in sorted(between.items()):
        print(f"{name:14} {', '.join(sorted(others - {name})) or '-'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imports", action="store_true", help="packages, and what they import")
    args = parser.parse_args()
    modules = find_modules()
    inner = {name: path for name, path in modules.items() if name != "distjudge_trl"}
    graph = {name: {*imports_of(path, modules)} - {name, "distjudge_trl"} for name, path in inner.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        print(f"A circle: {' -> '.join(error.args[1])}", file=sys.stderr)
        return 1
    print_imports(graph) if args.imports else print_tree(modules)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
