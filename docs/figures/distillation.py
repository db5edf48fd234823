"""What each divergence makes of a teacher with two minds and a student that can have only one.

python docs/figures/distillation.py
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchward.functional.distillation import divergence

DOCS = Path(__file__).resolve().parents[1]
PLACES = torch.arange(-60, 61, dtype=torch.float64) / 10.0
OBJECTIVES = {"forward KL": 0.0, "Jensen-Shannon 0.5": 0.5, "Jensen-Shannon 0.9": 0.9, "reverse KL": 1.0}
STEPS = 300


def bell(centre: float | Tensor, width: float | Tensor) -> Tensor:
    """The log of a discretised Gaussian over PLACES, normalised."""
    return (-0.5 * ((PLACES - centre) / width).square()).log_softmax(0)


def teacher() -> Tensor:
    """Three fifths of what it says lies about -2, the rest about 2."""
    both = torch.stack([bell(-2.0, 0.6) + torch.tensor(0.6).log(), bell(2.0, 0.6) + torch.tensor(0.4).log()])
    return both.logsumexp(0)


def student(beta: float) -> Tensor:
    """The one Gaussian that lies nearest: the best of descents from a wide one and from one on either side."""
    log_p, found = teacher(), list[tuple[float, Tensor]]()
    for start in ([0.0, 1.0], [-2.0, -0.5], [2.0, -0.5]):
        shape = torch.tensor(start, dtype=torch.float64, requires_grad=True)  # centre, and logarithm of the width
        optimizer = torch.optim.Adam([shape], lr=0.05)
        for _ in range(STEPS):
            optimizer.zero_grad()
            apart = divergence(log_p, bell(shape[0], shape[1].exp()), beta)
            apart.backward()
            optimizer.step()
        found.append((float(apart.detach()), bell(shape[0].detach(), shape[1].detach().exp())))
    return min(found, key=lambda each: each[0])[1]


def minds() -> list[dict[str, Any]]:
    """Of each student: where it stands, how wide it is, and how much of what it says the teacher hardly would."""
    rows = []
    log_p = teacher()
    rare = log_p.exp() < 0.02 * log_p.exp().max()
    for name, beta in OBJECTIVES.items():
        log_q = student(beta)
        probs = log_q.exp()
        mean = float((probs * PLACES).sum())
        rows.append(
            {
                "objective": name, "mean": mean, "width": float((probs * (PLACES - mean).square()).sum().sqrt()),
                "never said": float(probs[rare].sum()), "probs": probs.tolist(),
                **{key: float(divergence(log_p, log_q, at)) for key, at in (("forward", 0.0), ("reverse", 1.0))},
            }
        )  # fmt: skip
    return rows


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """The teacher in grey, and each student over it."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, panels = plt.subplots(1, len(rows), sharey=True)
    top = 1.05 * max(max(row["probs"]) for row in rows)
    for number, (axes, row) in enumerate(zip(panels, rows, strict=True)):
        axes.fill_between(PLACES, teacher().exp(), color="0.8", label="teacher")
        axes.plot(PLACES, row["probs"], color=f"C{number}", linewidth=2.2, label="student")
        axes.set(title=row["objective"], xlabel="what is said", yticks=[], ylim=(0, top))
    panels[0].set(ylabel="probability")
    panels[-1].legend(loc="upper right")
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Compute, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "distillation.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "distillation.json")
    options = parser.parse_args(args)
    rows = minds()
    print(f"{'the student that has the least':<32}{'mean':>7}{'width':>7}{'KL(p||q)':>10}{'KL(q||p)':>10}{'odd':>7}")
    for row in rows:
        print(
            f"{row['objective']:<32}{row['mean']:7.2f}{row['width']:7.2f}{row['forward']:10.2f}{row['reverse']:10.2f}"
            f"{row['never said']:7.1%}"
        )
    kept = [{name: value for name, value in row.items() if name != "probs"} for row in rows]
    options.data.write_text(json.dumps(kept, indent=1) + "\n")
    draw(rows, options.out)


if __name__ == "__main__":
    main()
