"""Style that no other tool looks at: sizes, names, first lines, and files that end as they should."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
LONGER_FILES: dict[str, str] = {}
"""Files that may be longer, and why. Empty, and meant to stay so."""

NOT_OURS = {".git", ".venv", ".cache", "__pycache__", "state", "build", "dist"}
"""Folders that hold nothing written by hand."""

VAGUE_WORDS = {"manager", "managers", "helper", "helpers", "util", "utils", "utilities", "misc", "common"}
UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E|X[X]X|HAC[K])\b")


def files() -> list[Path]:
    """Every file of the project that a person wrote."""
    found: list[Path] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            each for each in folders if each not in NOT_OURS and not each.endswith(("_cache", ".hypothesis", "-info"))
        ]
        found += [Path(folder, name) for name in names]
    return sorted(file for file in found if file.is_file() and not file.is_symlink() and file.suffix != ".secret")


def text_of(file: Path) -> str | None:
    """The file's text; None when it is not text."""
    data = file.read_bytes()
    try:
        return None if b"\0" in data else data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def is_python(file: Path, text: str) -> bool:
    """By its name, or for a script by its first line."""
    return file.suffix == ".py" or (not file.suffix and text.startswith("#!") and "python" in text.partition("\n")[0])


def words_of(name: str) -> set[str]:
    """`BufferPool`, `buffer_pool`: buffer and pool."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def untidy_text(file: Path, text: str) -> Iterator[str]:
    """What is wrong with any text file."""
    if text and not text.endswith("\n"):
        yield "does not end with a line end"
    if text.endswith("\n\n"):
        yield "ends with empty lines"
    if "\r" in text:
        yield "has carriage returns"
    if VAGUE_WORDS & words_of(file.stem):
        yield f"is named {file.stem}, which says nothing"
    for number, line in enumerate(text.splitlines(), 1):
        if UNFINISHED.search(line):
            yield f"line {number} leaves something to do"
        if line and line[-1].isspace() and file.suffix != ".md":
            yield f"line {number} ends with white space"


def untidy_python(name: str, text: str) -> Iterator[str]:
    """What is wrong with a Python file of this name, relative to the project."""
    lines = text.count("\n")
    if lines > FILE_LINES_MAX and name not in LONGER_FILES:
        yield f"has {lines} lines, more than {FILE_LINES_MAX}"
    if "\t" in text:
        yield "has tabs"
    tree = ast.parse(text)
    if ast.get_docstring(tree) is None:
        yield "does not say in its first lines what its concern is"
    for node in statements(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if VAGUE_WORDS & words_of(node.name):
            yield f"line {node.lineno}: {node.name} says nothing"
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if not isinstance(node, ast.ClassDef) and length > FUNCTION_LINES_MAX:
            yield f"line {node.lineno}: {node.name} has {length} lines, more than {FUNCTION_LINES_MAX}"
    if name.startswith("arrayd/"):
        yield from undocumented(tree)


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """What is below it but expressions, in which no function is defined that has a name."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.expr):
            yield node
            yield from statements(node)


def undocumented(scope: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Public classes and functions without a docstring; what is inside a private class is private."""
    for node in scope.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        overloaded = any(
            "overload" in ast.unparse(each) or "setter" in ast.unparse(each) for each in node.decorator_list
        )
        if ast.get_docstring(node) is None and not overloaded:
            yield f"line {node.lineno}: {node.name} has no docstring"
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node)


@pytest.mark.parametrize("file", [str(file.relative_to(ROOT)) for file in files()])
def test_file_is_tidy(file: str) -> None:
    text = text_of(ROOT / file)
    if text is None:
        return
    wrong = list(untidy_text(ROOT / file, text))
    if is_python(ROOT / file, text):
        wrong += untidy_python(file, text)
    assert wrong == []


@pytest.mark.parametrize(
    "file", [file for file in files() if not file.suffix and file.parent in (ROOT / "scripts", ROOT / ".ci")]
)
def test_script_is_executable(file: Path) -> None:
    assert os.access(file, os.X_OK)
    assert file.read_bytes().startswith(b"#!")


def test_longer_files_are_longer() -> None:
    assert [file for file in LONGER_FILES if (ROOT / file).read_text().count("\n") <= FILE_LINES_MAX] == []


@pytest.mark.parametrize(
    "text",
    [
        "no docstring = 1\n".replace(" ", "_", 1),
        '"""Concern."""\nclass SessionManager:\n    """Doc."""\n',
        '"""Concern."""\ndef open_util():\n    """Doc."""\n',
        '"""Concern."""\ndef public():\n    pass\n',
        '"""Concern."""\nclass Public:\n    """Doc."""\n\n    def method(self): ...\n',
        '"""Concern."""\nif True:\n\tpass\n',
        '"""Concern."""\n' + "\n" * FILE_LINES_MAX,
        '"""Concern."""\ndef long():\n    """Doc."""\n' + "    pass\n" * FUNCTION_LINES_MAX,
    ],
)
def test_the_checker_sees_untidy_python(text: str) -> None:
    assert list(untidy_python("arrayd/thing.py", text))


@pytest.mark.parametrize("text", ["no end", "a\n\n", "a\r\n", f"# TO{'DO'}: later\n", "space \n"])
def test_the_checker_sees_untidy_text(text: str) -> None:
    assert list(untidy_text(Path("thing.py"), text))


def test_the_checker_sees_vague_file_names() -> None:
    assert list(untidy_text(Path("scsi_helpers.py"), ""))
