"""The table of benchmarks/README.md, from the raw data of all benchmarks.

python -m benchmarks.table              print it
python -m benchmarks.table --write      put it into README.md, between its markers
python -m benchmarks.table --check      end with 1 where README.md has another one
"""

import argparse
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

from benchmarks.common import MISSING, RESULTS, Results, Row, markdown

BENCHMARKS = (
    "ppo_speed", "off_policy_speed", "overlap", "sac_update", "time_to_475", "defaults", "returns", "exploration",
    "pong", "gpu_pong", "tabular", "lstm", "replay", "generation", "language_speed", "gpu_language", "grpo_step",
    "preference_step", "preferences", "addition", "guess_number", "valid_python", "random_walks", "dialogue",
    "distillation", "resume", "install_size",
)  # fmt: skip
"""In the order of the table. Each has `rows(directory) -> list[Row]`."""
README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table: python -m benchmarks.table --write -->", "<!-- end of the table -->"


def table(directory: Path = RESULTS) -> str:
    """The whole table, and the machines that its figures come from."""
    rows = [row for name in BENCHMARKS for row in rows_of(name, directory)]
    head = "| what | asked | aim | measured | command |\n|---|---|---|---|---|"
    return f"{head}\n{markdown(rows)}\n\n{machines(directory)}"


def rows_of(name: str, directory: Path) -> list[Row]:
    """The rows of one benchmark; a line that says so where it has none."""
    try:
        found = getattr(import_module(f"benchmarks.{name}"), "rows", None)
    except ModuleNotFoundError as error:
        if error.name != f"benchmarks.{name}":
            raise
        found = None
    return [Row(name, "", "", MISSING, f"python -m benchmarks.{name}")] if found is None else list(found(directory))


def machines(directory: Path = RESULTS) -> str:
    """Where and when it was measured, as the raw data says."""
    found = [machine for name in BENCHMARKS for machine in Results(name, directory).machines()]
    if not found:
        return "No raw data is there yet."
    kinds = Counter(
        f"{m['cpu']}, {m['cores']} cores, {', '.join(f'{n} {v}' for n, v in m['versions'].items() if v)}" for m in found
    )
    dates = sorted(machine["date"][:10] for machine in found)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return f"Measured {when} on: {'; '.join(kind for kind, _ in kinds.most_common())}."


def main() -> None:
    options = argparse.ArgumentParser("python -m benchmarks.table", description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--write", action="store_true", help="put it into README.md")
    options.add_argument("--check", action="store_true", help="only say whether README.md has it")
    options.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where raw data lies")
    given = options.parse_args()
    made = table(given.results)
    if not given.write and not given.check:
        print(made)
        return
    text = README.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{README} has no place for the table: it stands between {BEGIN} and {END}")
    new = f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"
    if given.check:
        sys.exit(0 if new == text else f"{README} does not have the table of the raw data: `--write` brings it")
    README.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
