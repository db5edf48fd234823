"""What README and book say of the code is true: names, links, pictures, commands; and the two READMEs are one."""

import re
from pathlib import Path

import pytest

from tests.docs import command_faults, exists, link_faults, name_faults, numbers, read, twin_faults

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")])
ALGORITHMS = {path.stem for path in ROOT.glob("torchward/algorithms/[a-z]*.py")}
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


@each_page
def test_every_link_and_picture_of_a_page_exists(path: Path) -> None:
    assert not (faults := link_faults(path, ROOT)), "\n".join(faults)


@each_page
def test_every_name_and_path_on_a_page_exists(path: Path) -> None:
    assert not (faults := name_faults(path.read_text(encoding="utf-8"), ROOT)), "\n".join(faults)


@each_page
def test_every_command_on_a_page_exists(path: Path) -> None:
    from torchward.cli import COMMANDS

    faults = command_faults(path.read_text(encoding="utf-8"), COMMANDS, ALGORITHMS, TARGETS)
    assert not faults, "\n".join(faults)


def test_the_chinese_readme_is_the_twin_of_the_english_one() -> None:
    english, chinese = (ROOT / name for name in ("README.md", "README.zh-CN.md"))
    faults = twin_faults(english.read_text(encoding="utf-8"), chinese.read_text(encoding="utf-8"))
    assert not faults, "\n".join(faults)


# The checks themselves, on planted faults.

PAGE = """# Title

Text with `code` and a [link](docs/a.md#second-part), 3.5 times in 1,000 steps, $a[i](j)$ for PPO2.

![curve](docs/curve.png)

## Second part!

```bash
torchward train ppo CartPole-v1 --n-steps 128  # learn
```
"""


def test_a_page_is_taken_apart() -> None:
    page = read(PAGE)
    assert page.headings == [(1, "Title"), (2, "Second part!")]
    assert page.spans == ["code"]
    assert [block.language for block in page.blocks] == ["bash"]
    assert dict(numbers(page)) == {"3.5": 1, "1,000": 1}
    with pytest.raises(ValueError, match="never closed"):
        read("```python\nx = 1")


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page, other = tmp_path / "README.md", tmp_path / "docs" / "a.md"
    other.parent.mkdir()
    page.write_text(PAGE)
    other.write_text("# A\n\n## Second part\n\n[back](../README.md#title) [web](https://example.org/x) `[no](link)`\n")
    assert link_faults(page, tmp_path) == ["README.md: the target of the link docs/curve.png does not exist"]
    assert link_faults(other, tmp_path) == []
    (tmp_path / "docs" / "curve.png").touch()
    assert link_faults(page, tmp_path) == []
    for target in ("../README.md#nowhere", "gone.md", "/README.md", "../../outside.md", "#b"):
        other.write_text(f"# A\n\n[text]({target})\n")
        assert len(link_faults(other, tmp_path)) == 1, target
    other.write_text('# A\n\n<img src="gone.png" width="300">\n\n[text][1]\n\n[1]: gone.md\n')
    assert len(link_faults(other, tmp_path)) == 2


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("See `torchward.functional.no_such`.", "the name torchward.functional.no_such does not exist"),
        ("See torchward.no_such.", "the name torchward.no_such does not exist"),
        ("`torchward.data.rollout.Rollout.no_such`", "the name torchward.data.rollout.Rollout.no_such does not exist"),
        ("`torchward/no_such.py`", "the path torchward/no_such.py does not exist"),
        ("```python\nfrom torchward.data import tree, no_such\n```", "the name torchward.data.no_such does not exist"),
        ("```python\nx = = 1\n```", "a block of Python does not parse"),
    ],
)
def test_a_name_that_is_not_there_is_found(source: str, sentence: str) -> None:
    (fault,) = name_faults(source, ROOT)
    assert fault.startswith(sentence)


def test_names_that_are_there_are_no_fault() -> None:
    assert exists("torchward.data.rollout.Rollout.reward")  # a field without a default
    assert exists("torchward.data.protocols.Acted.log_prob")
    assert exists("torchward.functional.returns")
    assert not exists("torchward.data.rollout.Rollout.reward.no_such")
    source = (
        "`torchward/data/tree.py` `runs/x/torchward/a` https://x.org/torchward.html\n\n```python\nimport torchward\n```"
    )
    assert name_faults(source, ROOT) == []


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("torchward trian ppo CartPole-v1", "torchward has no command trian"),
        ("OMP_NUM_THREADS=1 time .venv/bin/torchward walk", "torchward has no command walk"),
        ("cd x && python -m torchward walk | tee log", "torchward has no command walk"),
        ("torchward train \\\n  pqo CartPole-v1", "torchward has no algorithm pqo"),
        ("make dinner", "make has no target dinner"),
    ],
)
def test_a_command_that_is_not_there_is_found(line: str, sentence: str) -> None:
    (fault,) = command_faults(f"```bash\n{line}\n```", {"train", "watch"}, {"ppo"}, {"test"})
    assert fault.startswith(sentence)


@pytest.mark.parametrize(
    "line",
    [
        "torchward --help; torchward",
        "torchward train ./mine.py CartPole-v1 && torchward watch runs/x  # torchward walk",
        "torchward train ALGORITHM TASK",
        "git clone https://example.org/torchward && cd torchward",
        "make test PYTEST_ARGS='-k returns'",
    ],
)
def test_commands_that_are_there_are_no_fault(line: str) -> None:
    assert command_faults(f"```bash\n{line}\n```", {"train", "watch"}, {"ppo"}, {"test"}) == []


def test_what_a_command_printed_is_no_command() -> None:
    page = "```console\n$ torchward watch runs/x\ntorchward walk\n```\n\n```text\ntorchward walk\n```"
    assert command_faults(page, {"watch"}, set(), set()) == []


TRANSLATION = (
    PAGE.replace("Title", "标题")
    .replace("Second part!", "第二部分")
    .replace("learn", "学习")
    .replace("3.5 times in 1,000 steps", "1,000步内3.5倍")
)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("## 第二", "### 第二", "the headings differ"),
        ("3.5", "3.6", "the numbers differ"),
        ("--n-steps 128", "--n-steps 64", "a block of code differs"),
        ("```bash", "```sh", "a block of code differs"),
        ("docs/curve.png", "docs/other.png", "the pictures differ"),
        ("## 第二", "```bash\nls\n```\n\n## 第二", "1 blocks of code and 2"),
    ],
)
def test_a_translation_that_has_drifted_is_found(old: str, new: str, sentence: str) -> None:
    assert twin_faults(PAGE, TRANSLATION) == []
    (fault, *_) = twin_faults(PAGE, TRANSLATION.replace(old, new))
    assert fault.startswith(sentence)
