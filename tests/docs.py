"""What a page of Markdown says of the code, and whether it is true. The checks of tests/test_docs.py.

Each check takes a page and returns its faults, one sentence each.
"""

import ast
import dataclasses
import importlib
import posixpath
import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SHELLS = ("bash", "sh", "shell", "console")


class Block(NamedTuple):
    """A fenced block of code."""

    language: str
    text: str


class Page(NamedTuple):
    """Markdown taken apart."""

    prose: str  # without code and formulas
    spans: list[str]  # inline code
    blocks: list[Block]
    headings: list[tuple[int, str]]


def read(source: str) -> Page:
    """Take Markdown apart."""
    blocks, lines, fence, language, code = [], [], "", "", list[str]()
    for line in source.splitlines():
        mark = re.match(r"\s*(`{3,}|~{3,})\s*([\w+-]*)", line)
        if not fence and mark:
            fence, language, code = mark[1], mark[2].lower(), []
        elif fence and mark and mark[1].startswith(fence) and not mark[2]:
            blocks.append(Block(language, textwrap.dedent("\n".join(code))))
            fence = ""
        elif fence:
            code.append(line)
        else:
            lines.append(line)
    if fence:
        raise ValueError(f"A code block opened by {fence}{language} is never closed.")
    text = "\n".join(lines)
    headings = [(len(marks), title) for marks, title in re.findall(r"^(#{1,6})\s+(.+?)\s*#*$", text, re.MULTILINE)]
    spans = [span for _, span in re.findall(r"(`+)(.+?)\1", text, re.DOTALL)]
    prose = re.sub(r"(`+).+?\1", "", text, flags=re.DOTALL)
    prose = re.sub(r"<!--.*?-->|\$\$.*?\$\$|(?<![\\$])\$[^$\n]+\$", "", prose, flags=re.DOTALL)
    return Page(prose, spans, blocks, headings)


def links(page: Page) -> list[str]:
    """Targets of links and images, as written."""
    patterns = (
        r"\]\(\s*<?([^)\s>]+)",
        r"<(?:img|a|source)\b[^>]*?\b(?:src|srcset|href)=[\"']([^\"']+)",
        r"^\[[^\]]+\]:\s*(\S+)",
    )
    return [target for pattern in patterns for target in re.findall(pattern, page.prose, re.MULTILINE)]


def images(page: Page) -> list[str]:
    """Sources of images, in order."""
    found = re.finditer(r"!\[[^\]]*\]\(\s*([^)\s]+)|<img\b[^>]*?\bsrc=[\"']([^\"']+)", page.prose)
    return [match[1] or match[2] for match in found]


def anchor(title: str) -> str:
    """The fragment by which a code host reaches a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def link_faults(path: Path, root: Path) -> list[str]:
    """Relative links and images whose file, or whose heading, does not exist under ``root``."""
    faults = []
    for target in links(read(path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, fragment = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if name.startswith("/") or not file.is_relative_to(root) or not file.exists():
            faults.append(f"{path.name}: the target of the link {target} does not exist")
        elif fragment and file.suffix == ".md":
            anchors = [anchor(title) for _, title in read(file.read_text(encoding="utf-8")).headings]
            if fragment.lower() not in anchors:
                faults.append(f"{path.name}: {target} names a heading that {file.name} does not have")
    return faults


def name_faults(source: str, root: Path) -> list[str]:
    """Names ``torchward.x.y``, imports and paths ``torchward/x.py`` that the code does not have."""
    page = read(source)
    code = "\n".join([*page.spans, *(block.text for block in page.blocks)])
    everything = f"{page.prose}\n{code}"
    names = set(re.findall(r"(?<![\w./-])torchward(?:\.[A-Za-z_]\w*)+", everything))
    faults = []
    for block in page.blocks:
        if block.language in {"python", "py"}:
            try:
                names |= set(_imported(ast.parse(block.text)))
            except SyntaxError as error:
                faults.append(f"a block of Python does not parse: {error.msg}: {block.text.splitlines()[0]!r} ...")
    faults += [f"the name {name} does not exist" for name in sorted(names) if not exists(name)]
    paths = set(re.findall(r"(?<![\w./-])(?:torchward|tests|benchmarks|docs)/[\w./-]*[\w/]", code))
    faults += [f"the path {path} does not exist" for path in sorted(paths) if not (root / path).exists()]
    return faults


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "torchward")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "torchward":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def exists(name: str) -> bool:
    """Whether a dotted name is a module, something in one, or a field or method of that."""
    module, *rest = name.split(".")
    found: Any = importlib.import_module(module)
    while rest:
        try:
            found = importlib.import_module(f"{module}.{rest[0]}")
        except ModuleNotFoundError as error:
            if error.name != f"{module}.{rest[0]}":
                raise
            break
        module = f"{module}.{rest.pop(0)}"
    for index, attribute in enumerate(rest):
        fields = {field.name for field in dataclasses.fields(found)} if dataclasses.is_dataclass(found) else set()
        if attribute in fields | set(getattr(found, "__annotations__", {})):
            return index == len(rest) - 1
        if not hasattr(found, attribute):
            return False
        found = getattr(found, attribute)
    return True


def commands(page: Page) -> list[list[str]]:
    """The commands in blocks of shell, as words; assignments before them, pipes and continuations resolved."""
    found = []
    for block in page.blocks:
        if block.language not in SHELLS:
            continue
        for line in re.sub(r"\\\n", " ", block.text).splitlines():
            if block.language == "console" and not line.lstrip().startswith("$ "):
                continue  # what the command printed
            lexer = shlex.shlex(re.sub(r"^\s*\$ ", "", line), posix=True, punctuation_chars=";&|()")
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if set(word) <= set(";&|()"):
                    if words:
                        found.append(words)
                    words = []
                elif words or not (re.match(r"\w+=", word) or word in {"time", "nohup", "env", "exec"}):
                    words.append(word)
    return found


def command_faults(
    source: str, known: Collection[str], algorithms: Collection[str], targets: Collection[str]
) -> list[str]:
    """Lines that call a command of torchward, an algorithm or a target of make that there is not."""
    faults = []
    for words in commands(read(source)):
        program = posixpath.basename(words[0])
        if program.startswith("python") and words[1:3] == ["-m", "torchward"]:
            program, words = "torchward", words[2:]
        if program == "make":
            named = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
            faults += [f"make has no target {word}: {shlex.join(words)}" for word in named if word not in targets]
        if program != "torchward" or len(words) == 1 or words[1] in {"--help", "-h", "--version", "COMMAND"}:
            continue
        if words[1] not in known:
            faults.append(f"torchward has no command {words[1]}: {shlex.join(words)}")
        elif words[1] in {"train", "sweep"} and len(words) > 2:
            name = words[2]  # or a file of the user's, an option, a placeholder in capitals
            if re.fullmatch(r"[a-z0-9_]+", name) and name not in algorithms:
                faults.append(f"torchward has no algorithm {name}: {shlex.join(words)}")
    return faults


def twin_faults(source: str, translation: str) -> list[str]:
    """In what a page and its translation differ, beyond the language: headings, code, pictures, numbers."""
    one, two = read(source), read(translation)
    faults = []
    if [level for level, _ in one.headings] != [level for level, _ in two.headings]:
        faults.append(f"the headings differ: {[t for _, t in one.headings]} and {[t for _, t in two.headings]}")
    if len(one.blocks) != len(two.blocks):
        faults.append(f"{len(one.blocks)} blocks of code and {len(two.blocks)}")
    for block, other in zip(one.blocks, two.blocks, strict=False):
        if block.language != other.language or _bare(block.text) != _bare(other.text):
            faults.append(f"a block of code differs:\n{block.text}\nand\n{other.text}")
    if images(one) != images(two):
        faults.append(f"the pictures differ: {images(one)} and {images(two)}")
    if numbers(one) != numbers(two):
        faults.append(f"the numbers differ: {numbers(one) - numbers(two)} and {numbers(two) - numbers(one)}")
    return faults


def _bare(code: str) -> list[str]:
    """Code without its comments, which are translated."""
    return [line for line in (re.sub(r"(^|\s+)#\s.*$", "", line).rstrip() for line in code.splitlines()) if line]


def numbers(page: Page) -> Counter[str]:
    """The numbers of the prose and the tables, without those of link targets."""
    text = re.sub(r"\]\([^)]*\)|<[^>]+>", "]", "\n".join([page.prose, *page.spans]))
    return Counter(re.findall(r"(?<![\w.])\d+(?:[.,]\d+)*", re.sub(r"[\u4e00-\u9fff]", " ", text)))
