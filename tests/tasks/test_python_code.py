"""Valid Python: honest answers are accepted, planted cheats are not, and nothing brings the judge down."""

import ast
from dataclasses import replace
from pathlib import Path
from textwrap import indent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchward.config import ConfigError
from torchward.language.corpus import StandardLibrary
from torchward.language.documents import Completion, Document, Split
from torchward.language.task import Problems
from torchward.tasks.python_code import Accepted, Options, Varied, compiled, functions, make, problems

PROMPT = 'def scaled(values, factor=2):\n    """Each value times the factor."""\n'


def earned(body: str, prompt: str = PROMPT, kinds: int = 5) -> float:
    return Accepted(kinds)([prompt], [indent(body, "    ")])[0]


HONEST = {
    "a loop": "for value in values:\n    print(value * factor)\nreturn values",
    "a comprehension": "return [value * factor for value in sorted(values) if value]",
    "a comment before it": "# One by one.\nreturn [value * factor for value in sorted(values) if value]",
    "a name, a call, a test": "if not values:\n    raise ValueError('no values')\nreturn sum(values)",
    "try": "try:\n    return values[0] * factor\nexcept IndexError:\n    return None",
    "a function within": "def one(value):\n    return value * factor\nreturn list(map(one, values))",
    "while True": "while True:\n    if values.pop() > factor:\n        return values",
    "a string that warns": "if values == '\\d':\n    return [factor]\nreturn values + factor",
    "no line end": "total = sum(values)\nif total:\n    return total * factor",
    "a line end": "total = sum(values)\nif total:\n    return total * factor\n",
}


@pytest.mark.parametrize("body", HONEST.values(), ids=HONEST.keys())
def test_honest_answers_are_accepted(body: str) -> None:
    assert earned(body) == 1.0


RICH = "[value * factor for value in sorted(values) if value > 0]"
CHEATS = {
    "nothing": "",
    "white space": "   \n\n\t\n",
    "pass": "pass",
    "pass as a fifth kind": "if factor:\n    pass\nreturn [values]",
    "an ellipsis": "...",
    "return alone": "return",
    "comments": "\n".join(f"# return [{i} for value in values]" for i in range(20)),
    "comments and pass": "# " + RICH + "\npass",
    "another docstring": '"""Return ' + RICH + '."""',
    "a long docstring": '"""' + "\n".join(f"values {i} times factor" for i in range(50)) + '"""',
    "a formatted docstring": "f'{values[0]} {factor + 1} {[value for value in values]} {sum(values)}'",
    "sums without effect": f"{RICH}\nvalues[0] + factor\nnot values",
    "names without effect": "values\nfactor\nvalues.x\nvalues[0]",
    "a lambda without effect": "lambda value: [value + factor for value in values]",
    "after return": f"return values\nif factor:\n    total = {RICH}\n    print(total)",
    "after raise": f"raise values\nif factor:\n    total = {RICH}",
    "after continue": f"for value in values:\n    continue\n    total = {RICH}",
    "if False": f"if False:\n    total = {RICH}\n    print(total)",
    "if 0": f"if 0:\n    total = {RICH}\nelse:\n    print(factor + 1, {RICH})",
    "while None": f"while None:\n    total = {RICH}\n    print(total)",
    "the same again": "values = factor\n" * 12,
    "the same on one line": "values = factor; " * 12 + "values = factor",
    "a good answer again and again": ("print(values)\nif factor:\n    values = [factor + 1]\n") * 8,
    "two lines by turns": f"values = {RICH}\nfactor = sum(values)\n" * 8,
    "no parameter": "return [number * 2 for number in range(9) if number]",
    "a parameter that is only written": "values = [number * 2 for number in range(9) if number]",
}


def test_what_the_cheats_hide_would_be_accepted_where_it_counts() -> None:
    for body in (f"return {RICH}", f"print({RICH})", f"if factor:\n    total = {RICH}\n    print(total)"):
        assert earned(body) == 1.0


@pytest.mark.parametrize("body", CHEATS.values(), ids=CHEATS.keys())
def test_planted_cheats_earn_nothing(body: str) -> None:
    assert earned(body) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        f"    pass\n\ntotal = {RICH}\nprint(total)",
        f"    pass\n\n\ndef other(values, factor):\n    return {RICH}\n",
        f"    return values\nclass A:\n    total = {RICH}",
        f"    return {RICH}\nimport os",
        f"    return {RICH}\n)",
        f"    return {RICH}\n    break",
        f"    return {RICH}\n    nonlocal x",
        f"    return {RICH}\n  x",
        f"    return {RICH[:-1]}",
        f"return {RICH}",
        f"{RICH}",
        f"    return {RICH}; yield from values; await factor",
        f"    return {RICH}\0",
        f"    return {RICH} + '\ud800'",
        f"    return {RICH}\n    def def",
    ],
)
def test_what_leaves_the_function_or_does_not_compile_earns_nothing(answer: str) -> None:
    assert Accepted()([PROMPT], [answer]) == [0.0]


@pytest.mark.parametrize(
    "body",
    [
        "return " + "(" * 150 + "values" + ")" * 150,
        "return " + "(" * 3_000 + "values" + ")" * 3_000,
        "return " + "[" * 1_900 + "]" * 1_900,
        "return " + "-" * 3_500 + "factor",
        "return " + "not " * 900 + "factor",
        "return " + "lambda:" * 500 + "factor",
        "return values" + ".x" * 1_900,
        "return values" + "()" * 1_900,
        "return factor" + "**factor" * 400,
        "return factor" + "+1" * 1_900,
        "return " + "9" * 3_900,
        "return factor * 9**9**9**9**9**9",
        "return 'a' * 99999999999999999999",
        "return 1 << 99999999999",
        "".join(" " * i + "if factor:\n" for i in range(80)),
        "".join(" " * i + "while factor:\n" for i in range(30)) + " " * 31 + "pass",
        "return f" + "'{" * 30,
        "return values" * 100_000,
        "return 'a' +" * 1_000_000,
    ],
    ids=lambda text: repr(text[:24]),
)
def test_what_is_deep_or_huge_is_judged_and_harms_nobody(body: str) -> None:
    assert earned(body) == 0.0
    assert compiled("x" * 4_001) is None


@given(st.text(alphabet="def :()[]{}\n \t'\"\\#xf=+-*,.@0123return\x00\r\f\ud800é"), st.text())
def test_whatever_is_written_has_a_reward(one: str, other: str) -> None:
    assert set(Accepted()([PROMPT, PROMPT, other], [one, other, one])) <= {0.0, 1.0}


def test_nothing_is_executed(tmp_path: Path) -> None:
    file = tmp_path / "written"
    body = f"def one(x=open({str(file)!r}, 'w')):\n    return [x + factor for x in values]\nreturn one"
    assert earned(body) == 1.0
    assert earned(f"return {RICH}", f"@open({str(file)!r}, 'w')\n{PROMPT}") == 1.0
    assert not file.exists()


def test_what_the_prompt_has_is_not_the_answers() -> None:
    rich = PROMPT + "    total = [value * factor for value in values if value]\n"
    assert earned("return total", rich) == 0.0
    assert earned("return sum(values)", rich) == 0.0
    assert earned("return sum(values)", rich, kinds=3) == 1.0  # Return, Call, Name


def test_a_function_without_parameters_needs_none() -> None:
    assert earned("return [number * 2 for number in range(9) if number]", "def even():\n") == 1.0
    assert earned("return [number * 2 for number in args if number]", "def even(*args):\n") == 1.0
    assert earned("return [number * 2 for number in kinds if number]", "async def even(a, /, *, kinds):\n") == 1.0


def test_kinds_are_counted_as_an_oracle_counts_them() -> None:
    """On bodies in which all is effective, ast.walk over the body alone finds the same."""
    for body in HONEST.values():
        if not body.startswith("return [") and "\\d" not in body:
            tree = ast.parse(f"async def f():\n{indent(body, '    ')}")
            found = {type(node) for node in ast.walk(tree.body[0]) if isinstance(node, ast.stmt | ast.expr)}
            count = len(found - {ast.AsyncFunctionDef})
            assert earned(body, kinds=count) == 1.0 and earned(body, kinds=count + 1) == 0.0


SMALL = Options(variety=0.0, problems=40, test=10, validation=0.3)


@pytest.fixture(scope="module")
def modules() -> list[Document]:
    documents = []
    for document in StandardLibrary().documents():
        if len(document.text) < 40_000:
            documents.append(document)
        if len(documents) == 60:
            break
    return documents


@pytest.fixture(scope="module")
def small(modules: list[Document]) -> Problems:
    return problems(modules, SMALL)


def module_of(document: Document) -> str:
    return document.origin.rpartition(", line ")[0]


def test_modules_are_held_out_whole(small: Problems, modules: list[Document]) -> None:
    split = Split(0.3)
    held_out = {module.origin for module in modules if split.validates(module)}
    assert small.corpus is not None
    assert {module_of(document) for document in small.test} <= held_out
    assert held_out.isdisjoint(module_of(document) for document in (*small.train, *small.corpus))
    learnt = {document.question for document in small.train}
    assert len(learnt) == len(small.train) == 40 and len(small.test) == 10
    assert learnt.isdisjoint(document.question for document in small.test)
    begun = tuple(document.question for document in small.test)
    assert not any(document.text.startswith(begun) for document in small.corpus), "no prompt of the test is seen"


def test_demonstrations_are_functions_of_the_library_and_accepted(small: Problems, modules: list[Document]) -> None:
    sources = {module.origin: module.text for module in modules}
    prompts, rests = [], []
    for document in small.demonstrations:
        assert isinstance(document.content, Completion)
        prompt, rest = document.content.prompt, document.content.completion
        assert isinstance(prompt, str) and isinstance(rest, str)
        assert len(prompt) <= 200 and len(rest.encode()) < small.max_completion_length
        compile(prompt + "\n    pass", "<prompt>", "exec")
        plain = [line.strip() for line in sources[module_of(document)].split("\n")]
        assert all(line.strip() in plain for line in document.text.split("\n"))
        prompts.append(prompt)
        rests.append(rest)
    assert small.reward(prompts, rests) == [1.0] * 40
    for cheat in ("", "\n    pass", "\n    # " + rests[0].replace("\n", " "), "\n    return None"):
        assert small.reward(prompts, [cheat] * 40) == [0.0] * 40


def test_the_corpus_is_functions_that_compile(small: Problems) -> None:
    assert small.corpus is not None and len(small.corpus) > 100
    for document in small.corpus:
        assert compiled(document.text) is not None, document.origin
        assert len(document.text) <= 1_000


def test_a_prompt_and_its_answer_are_the_tokens_of_the_function(small: Problems) -> None:
    """Else a model that was pretrained on functions would be asked in words that it has never seen."""
    assert small.corpus is not None
    tokenizer = small.tokenizer.build(document.text for document in small.corpus)
    for document in small.demonstrations:
        assert isinstance(document.content, Completion)
        prompt, rest = document.question, document.text.removeprefix(document.question)
        assert tokenizer.encode(document.text) == [*tokenizer.encode(prompt), *tokenizer.encode(rest)]


def test_an_answer_on_the_line_of_the_prompt_is_none() -> None:
    prompt, answer = "def scaled(values):", " return [value * 2 for value in values if value > sum(values)]"
    assert Accepted()([prompt, prompt], ["\n   " + answer, answer]) == [1.0, 0.0]


# Variety


def test_a_snippet_that_everybody_writes_earns_less() -> None:
    """Three write one answer, one another: 1/3 of its runs of words are theirs alone where all is shared by three."""
    shared = "\n    return [value * 2 for value in values if value > sum(values)]"
    alone = "\n    while {1, 2} & {-3}: pop(values[4:5]).x |= lambda *y: None or not 7"
    prompts = ["def scaled(values):"] * 5
    reward = Varied(Accepted(), 0.6)
    assert reward(prompts[:1], [shared]) == [1.0], "alone, everything is rare"
    assert reward(prompts, [shared, shared, shared, "\n    pass", "\n    return"]) == pytest.approx(
        [0.6] * 3 + [0.0] * 2
    )
    mixed = reward(prompts[:4], [shared, shared, shared, alone])
    assert mixed[:3] == pytest.approx([mixed[0]] * 3) and 0.4 + 0.6 / 4 <= mixed[0] < 0.6
    assert 0.9 < mixed[3] < 1.0, "a bracket and a name are not its own"
    assert Varied(Accepted(), 0.0)(prompts[:4], [shared, shared, "", alone]) == [1.0, 1.0, 0.0, 1.0]


def test_variety_is_rewarded_and_what_is_accepted_is_judged(modules: list[Document]) -> None:
    made = problems(modules, replace(SMALL, variety=0.5))
    texts = [document.text.removeprefix(document.question) for document in made.demonstrations]
    prompts = [document.question for document in made.demonstrations]
    assert made.metric is not None and made.metric(prompts, texts) == [1.0] * len(texts)
    earned_by_all = made.reward(prompts, texts)
    assert 0.5 < min(earned_by_all) <= max(earned_by_all) < 1.0
    with pytest.raises(ConfigError, match="expected variety from 0"):
        Options(variety=1.5)


def test_one_seed_one_choice(small: Problems, modules: list[Document]) -> None:
    again, other = (
        problems(modules, SMALL),
        problems(modules, replace(SMALL, data_seed=1)),
    )
    assert (again.train, again.test, again.corpus) == (small.train, small.test, small.corpus)
    assert other.train != small.train and other.test != small.test and other.corpus == small.corpus


MODULE = '''
@decorator(
    1)
def decorated(a,
              b):
    r"""One.
    Two."""

    # why
    text = """x
  less than the margin
"""
    def inner(): pass
    return text

class Outer:
    class Inner:
        async def method(self):
            @decorator
            def inner():
                pass
            return inner

    def one_line(self): return 1

    def only_docstring(self):
        """Nothing."""
'''


def test_functions_are_cut_behind_the_docstring_and_moved_to_the_margin() -> None:
    decorated, method = functions(Document(MODULE, "m"))
    assert decorated == (
        '@decorator(\n    1)\ndef decorated(a,\n              b):\n    r"""One.\n    Two."""\n\n    # why',
        '\n    text = """x\n  less than the margin\n"""\n    def inner(): pass\n    return text',
        "m, line 4",
    )
    assert method == (
        "async def method(self):",
        "\n    @decorator\n    def inner():\n        pass\n    return inner",
        "m, line 18",
    )
    assert not list(functions(Document("def broken(:", "m")))


def test_too_many_problems_are_refused(modules: list[Document]) -> None:
    with pytest.raises(ConfigError, match=r"expected problems of at most [\d,]+, got 100,000: no more functions"):
        problems(modules, Options(problems=100_000, test=1))
    with pytest.raises(ConfigError, match=r"expected test of at most \d+, got 1,000: no more functions"):
        problems(modules, Options(problems=1, test=1_000))


@pytest.mark.slow
def test_the_whole_library_makes_as_many_problems_as_are_asked_for_by_default() -> None:
    made = make(Options())
    assert (len(made.train), len(made.test)) == (2_000, 200)
    assert made.corpus is not None and sum(len(document.text) for document in made.corpus) > 2_000_000
    demonstrations = [d.content for d in made.train]
    prompts = [c.prompt for c in demonstrations if isinstance(c, Completion) and isinstance(c.prompt, str)]
    rests = [c.completion for c in demonstrations if isinstance(c, Completion) and isinstance(c.completion, str)]
    assert made.metric is not None and made.metric(prompts, rests) == [1.0] * 2_000
