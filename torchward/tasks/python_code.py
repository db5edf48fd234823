"""Valid Python: a prompt is the beginning of a function, and an answer that makes a whole of it is accepted.

Everything comes from the standard library of the Python that runs. Its functions and methods are what a model is
pretrained on; those of some modules are held out, whole modules at a time. A prompt is a function's signature with its
docstring, the rest of the function is the demonstration.

What is accepted is said at :class:`Accepted`. That is syntax and no more: a model can learn one snippet that always
passes, and write it behind every prompt. No such check can tell it from honest work; that it happens is seen in how
different the answers are from each other (distinct n-grams) and in how far the model went (its KL divergence). So an
answer earns more, the less of it others have (``variety``).
"""

import ast
import gc
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from torchward.config import ConfigError
from torchward.data.random import derive
from torchward.language.bpe import BPE
from torchward.language.corpus import StandardLibrary
from torchward.language.documents import Completion, Document, Prompt, Split
from torchward.language.task import Problems, TokenizerChoice
from torchward.tasks.questions import between

LONGEST = 4_000
"""Characters that are looked at: of longer texts Python's own parser may run out of stack."""


@dataclass(frozen=True)
class Options:
    """Which functions, and when an answer is accepted."""

    kinds: int = 5
    """How many kinds of statements and expressions an answer must have."""
    variety: float = 0.9
    """The part of an accepted answer's reward that depends on how little of it stands in the other answers that are
    judged with it; 0: whoever is accepted earns 1. A policy is judged by what is accepted, whatever this is."""
    longest_function: int = 1_000
    """Characters of the longest functions that are learnt from."""
    longest_prompt: int = 200
    """Characters of the longest prompts."""
    longest_answer: int = 200
    """Bytes of the longest answers, in demonstrations and those that are sampled."""
    problems: int = 2_000
    """How many prompts are learnt from by reward, and by their functions' own rest."""
    test: int = 200
    """How many prompts are held out."""
    validation: float = 0.15
    """The part of the modules that is held out, on average. Which, their text alone decides."""
    tokenizer: TokenizerChoice = field(default_factory=lambda: BPE(1024))
    """The tokenizer of a model that is made for it."""
    data_seed: int = 0
    """Which functions are taken as problems follows from it."""

    def __post_init__(self) -> None:
        between("kinds", self.kinds, 1)
        for name in ("longest_function", "longest_prompt", "longest_answer", "problems", "test"):
            between(name, getattr(self, name), 1)
        between("variety", self.variety, 0.0, 1.0)
        if not 0.0 < self.validation < 1.0:
            raise ConfigError(f"expected validation above 0 and below 1, got {self.validation}")


@dataclass(frozen=True)
class Accepted:
    """A reward: 1 for an answer that is accepted, else 0. Nothing is ever executed.

    Prompt and answer together must compile, and be one function and nothing else: the answer continues the prompt,
    and whatever stands behind it on the margin is none of it. The answer must read a parameter of the function, if it
    has any. And it must have at least ``kinds`` kinds of statements and expressions, such as If, Call, Name.

    What might be tried instead, and does not count:

    - nothing, `pass`, comments: they are no kinds;
    - docstrings, f-strings, numbers or sums that stand as statements of their own and have no effect;
    - statements behind return, raise, break or continue, and under `if False` or `while 0`;
    - the same again and again: a kind counts once, and of the lines more than half must differ.
    """

    kinds: int = 5

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        return [float(self.accepts(*each)) for each in zip(prompts, completions, strict=True)]

    def accepts(self, prompt: str, completion: str) -> bool:
        """Whether the answer is accepted. It begins where a line of the prompt ends, before its "\\n" or behind it."""
        lines = [line.strip() for line in completion.splitlines() if line.strip()]
        if 2 * len(set(lines)) <= len(lines):
            return False
        function = compiled(prompt + completion)
        if function is None:
            return False
        asked = prompt.count("\n") + (not prompt.endswith("\n"))
        nodes = list(_effective(statement for statement in function.body if statement.lineno > asked))
        if len({type(node) for node in nodes if isinstance(node, ast.stmt | ast.expr)} - {ast.Pass}) < self.kinds:
            return False
        parameters = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
        read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        return not parameters or not parameters.isdisjoint(read)


@dataclass(frozen=True)
class Varied:
    """A reward: an accepted answer earns ``1 - variety``, and ``variety`` times how rare it is. Who writes the same
    snippet behind every prompt earns little more than the first part.

    How rare: of its runs of one, two and three words or signs, over how many accepted answers each stands in, the mean.
    The answers are those that are judged together, a rollout's. After Li et al. 2025 (DARLING), who multiply by the
    number of kinds of answers that a learnt classifier tells apart."""

    accepted: Accepted
    variety: float

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        earned = self.accepted(prompts, completions)
        runs = [_runs(text) if reward else set() for text, reward in zip(completions, earned, strict=True)]
        among = Counter(run for each in runs for run in each)
        rare = [sum(1.0 / among[run] for run in each) / max(1, len(each)) for each in runs]
        return [reward * (1.0 - self.variety + self.variety * part) for reward, part in zip(earned, rare, strict=True)]


def words(text: str) -> list[str]:
    """The words and signs of a text; white space is none."""
    return re.findall(r"\w+|[^\w\s]", text)


def _runs(text: str) -> set[tuple[str, ...]]:
    parts = words(text)
    return {run for n in (1, 2, 3) for run in zip(*(parts[i:] for i in range(n)), strict=False)}


class Piece(NamedTuple):
    """A function of the standard library, at the margin."""

    prompt: str
    """Decorators, signature and docstring, without the white space behind them: tokens of byte pairs put that together
    with the space before the next line, so a prompt that had it would be of other tokens than what is pretrained on."""
    rest: str
    origin: str


def make(options: Options) -> Problems:
    """The functions of the standard library. Raises ConfigError where there are not so many."""
    return problems(StandardLibrary().documents(), options)


def problems(modules: Iterable[Document], options: Options) -> Problems:
    """The same with the functions of any modules."""
    split = Split(options.validation)
    learnt: list[Piece] = []
    held_out: list[Piece] = []
    collects = gc.isenabled()
    gc.disable()  # syntax trees hold no cycles, and looking for some takes half of the time
    try:
        for module in modules:
            (held_out if split.validates(module) else learnt).extend(functions(module))
    finally:
        if collects:
            gc.enable()
    accepted = Accepted(options.kinds)
    corpus = [
        Document(piece.prompt + piece.rest, piece.origin)
        for piece in learnt
        if len(piece.prompt) + len(piece.rest) <= options.longest_function
    ]
    train = _chosen(learnt, options.problems, options, accepted, set(), "train")
    known = {part for piece in learnt for part in (piece.prompt, piece.rest)}
    test = _chosen(held_out, options.test, options, accepted, known, "test")
    for name, wanted, found in (("problems", options.problems, train), ("test", options.test, test)):
        if len(found) < wanted:
            raise ConfigError(
                f"expected {name} of at most {len(found):,}, got {wanted:,}: no more functions are fit for it"
            )
    return Problems(
        name="python_code",
        train=[Document(Completion(piece.prompt, piece.rest), piece.origin) for piece in train],
        test=[Document(Prompt(piece.prompt), piece.origin) for piece in test],
        reward=Varied(accepted, options.variety) if options.variety else accepted,
        metric=accepted,
        tokenizer=options.tokenizer,
        max_completion_length=options.longest_answer + 1,
        corpus=corpus,
    )


def compiled(source: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The one function that a source is; None where it is anything else or does not compile. It is not executed."""
    if len(source) > LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python has to say on strings such as "\d"
            tree = ast.parse(source)
            compile(tree, "<answer>", "exec", dont_inherit=True)  # also finds `break` outside a loop, and the like
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError):
        return None
    match tree.body:
        case [ast.FunctionDef() | ast.AsyncFunctionDef() as function]:
            return function
    return None


def _effective(statements: Iterable[ast.stmt]) -> Iterator[ast.AST]:
    """All nodes of the statements but those that have no effect or are never reached. Without recursion."""
    waiting: list[ast.AST] = _reached(statements)
    while waiting:
        node = waiting.pop()
        yield node
        for _, part in ast.iter_fields(node):
            if isinstance(part, ast.AST):
                waiting.append(part)
            elif isinstance(part, list):
                waiting += _reached(each for each in part if isinstance(each, ast.AST))


def _reached(nodes: Iterable[ast.AST]) -> list[ast.AST]:
    """Of a block of statements those that are reached and do something; of anything else all."""
    found: list[ast.AST] = []
    for node in nodes:
        match node:
            case ast.Expr(value=value) if not isinstance(value, ast.Call | ast.Await | ast.Yield | ast.YieldFrom):
                continue
            case ast.If(test=ast.Constant(value=value)) | ast.While(test=ast.Constant(value=value)) if not value:
                continue
        found.append(node)
        if isinstance(node, ast.Return | ast.Raise | ast.Break | ast.Continue):
            break
    return found


def functions(module: Document) -> Iterator[Piece]:
    """The functions and methods of a module, those within functions left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            waiting: list[ast.stmt] = ast.parse(module.text).body
        except SyntaxError:
            return  # the standard library has templates that are no Python yet
    lines = module.text.split("\n")
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.ClassDef):
            waiting = node.body + waiting
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            begin = _first_line(node) - 1
            if body and (cut := _first_line(body[0]) - 1) > node.lineno - 1:
                margin = lines[begin][: node.col_offset]
                own = [line.removeprefix(margin) for line in lines[begin : node.end_lineno]]
                prompt = "\n".join(own[: cut - begin]).rstrip()
                yield Piece(prompt, "\n".join(own)[len(prompt) :], f"{module.origin}, line {node.lineno}")


def _first_line(statement: ast.stmt) -> int:
    match statement:
        case ast.ClassDef(decorator_list=[first, *_]) | ast.FunctionDef(decorator_list=[first, *_]):
            return first.lineno
        case ast.AsyncFunctionDef(decorator_list=[first, *_]):
            return first.lineno
    return statement.lineno


def _chosen(
    pieces: list[Piece], count: int, options: Options, accepted: Accepted, known: set[str], name: str
) -> list[Piece]:
    """Some pieces that are short enough and whose own rest is accepted, each prompt once; of what is known neither the
    prompt nor the rest."""
    order = list(pieces)
    Random(derive(options.data_seed, f"python_code {name}")).shuffle(order)
    prompts: set[str] = set()
    found: list[Piece] = []
    for piece in order:
        if len(found) == count:
            break
        short = len(piece.prompt) <= options.longest_prompt and len(piece.rest.encode()) <= options.longest_answer
        new = piece.prompt not in prompts and known.isdisjoint((piece.prompt, piece.rest))
        if short and new and accepted.accepts(piece.prompt, piece.rest):
            prompts.add(piece.prompt)
            found.append(piece)
    return found
