"""Modules and functions stay short, which no linter checks."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("tlcli", "tests", "benchmarks", "docs", "sample_data")
MODULE_LINES, FUNCTION_LINES = 300, 60


def functions(text):
    """Return each function with its number of lines. Decorators, which may hold tables of cases, do not count."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = (node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds))
    return [(node.name, node.end_lineno - node.lineno + 1) for node in found]


def test_modules_and_functions_are_short():
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    assert len(paths) > 300
    too_long = []
    for path in paths:
        text, name = path.read_text(encoding="utf8"), path.relative_to(ROOT)
        if (lines := text.count("\n")) > MODULE_LINES:
            too_long.append(f"{name} has {lines} lines, of at most {MODULE_LINES}")
        too_long += [
            f"{function} of {name} has {lines} lines, of at most {FUNCTION_LINES}"
            for function, lines in functions(text)
            if lines > FUNCTION_LINES
        ]
    assert not too_long, "\n".join(too_long)
