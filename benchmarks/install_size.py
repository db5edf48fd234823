"""What `pip install .` adds to torch, without extras, and how long `torchward --help` takes there.

    python -m benchmarks.install_size

A fresh virtual environment gets torch, then torchward from this directory; the files of its site-packages are counted
before and after, byte for byte, compiled ones included. The help is timed 10 times, once its files are in the cache.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import MISSING, ROOT, Failed, Results, Row, Work, markdown, measure, parser, spread, verdict

NAME = "install_size"
ASKED, AIM = (200.0, 1.0), (120.0, 0.3)
TORCH = "torch>=2.7,<2.14"


def settings(torch: str = TORCH) -> dict[str, Any]:
    return {"torch": torch, "times": 10}


def measured(torch: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "venv"
        run([sys.executable, "-m", "venv", home])
        python = home / "bin" / "python"
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        site = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
        run([*pip, torch])
        before = sizes(site)
        run([*pip, ROOT], cwd=Path(place))
        after = sizes(site)
        grown = {name: size - before.get(name, 0) for name, size in after.items()}
        seconds = []
        for _ in range(11):
            start = time.perf_counter()
            run([home / "bin" / "torchward", "--help"], cwd=Path(place))
            seconds.append(time.perf_counter() - start)
        packages = run([python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]).split()
    return {
        "added_mb": round(sum(grown.values()) / 1e6, 2),
        "torch_mb": round(sum(before.values()) / 1e6, 2),
        "largest_mb": {n: round(s / 1e6, 2) for n, s in sorted(grown.items(), key=lambda item: -item[1])[:12] if s > 0},
        "help_seconds": [round(second, 4) for second in seconds[1:]],
        "packages": packages,
    }


def sizes(site: Path) -> dict[str, int]:
    """Bytes of the files below each entry of site-packages; libraries of a package count as its own."""
    found: dict[str, int] = {}
    for folder, _, files in os.walk(site):
        parts = Path(folder).relative_to(site).parts
        for file in files:
            name = re.sub(r"(-[\d.]+)?\.(dist-info|libs)$", "", parts[0] if parts else file)
            found[name] = found.get(name, 0) + (Path(folder) / file).lstat().st_size
    return found


def run(command: list[Any], cwd: Path = ROOT) -> str:
    """What a command prints. Its environment has no Python path, so that nothing but what is installed is found."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in command]
    ended = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise Failed(f"`{' '.join(words)}` ended with {ended.returncode}:\n{ended.stderr[-3000:]}")
    return ended.stdout


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    found = Results(NAME, *([directory] if directory else [])).read("install", settings())
    size, speed = MISSING, MISSING
    if found is not None:
        added, middle = found["added_mb"], statistics.median(found["help_seconds"])
        most = ", ".join(f"{name} {mb:.0f}" for name, mb in list(found["largest_mb"].items())[:4])
        beside = f"{added:.0f} MB beside torch's {found['torch_mb']:.0f} ({most})"
        size = f"{beside}; {verdict(added <= ASKED[0], added <= AIM[0])}"
        speed = f"{spread(found['help_seconds'], 2)} s; {verdict(middle <= ASKED[1], middle <= AIM[1])}"
    command = f"python -m benchmarks.{NAME}"
    return [
        Row("what `pip install .` adds to torch, without extras", f"{ASKED[0]:g} MB", f"{AIM[0]:g} MB", size, command),
        Row("`torchward --help`, median of 10", f"{ASKED[1]:g} s", f"{AIM[1]:g} s", speed, command),
    ]


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--torch", default=TORCH, help="what pip is asked for as torch")
    given = options.parse_args()
    if given.table:
        print(markdown(rows(given.results)))
        return
    results = Results(NAME, given.results)
    if given.fresh:
        results.clear()
    work = Work(
        "install", settings(given.torch), partial(measured, given.torch),
        lambda result: f"{result['added_mb']:.0f} MB, {statistics.median(result['help_seconds']):.2f} s",
    )  # fmt: skip
    measure(results, [work])
    print(markdown(rows(given.results)))


if __name__ == "__main__":
    main()
