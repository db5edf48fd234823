"""Random walks on a directed graph: from a node, reach the goal in as few steps as can be.

The toy of trlX, after section 3 of Chen et al. 2021 (Decision Transformer). Nodes are letters and `a` is the goal, from
which no edge leads away. A prompt is the first node of a walk, an answer the others. Demonstrations are random walks,
which end at the goal or when they are as long as a walk may be. The same problem as an environment stands in
`random_walks_env`.

There is one graph in a task, and it is never shown: it is learnt from walks. So, as in trlX, the test set holds every
node that a walk may begin at, and by default those are the nodes that are learnt from too. `held_out` keeps some apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from torchward.config import ConfigError
from torchward.data.random import derive
from torchward.language.documents import Completion, Document, Prompt
from torchward.language.task import Problems
from torchward.language.tokenizer import Characters
from torchward.tasks.questions import TRIES, between

GOAL = 0


@dataclass(frozen=True)
class Options:
    """Which graph, and how many walks on it. The defaults are trlX's but for the seed, whose graph is another one."""

    nodes: int = 21
    """How many nodes there are, the goal included."""
    edge_probability: float = 0.1
    """How likely an edge is from one node to another."""
    longest: int = 10
    """How many nodes a walk may have, its first and the goal included."""
    walks: int = 1_000
    """How many random walks are learnt from."""
    held_out: int = 0
    """How many first nodes are held out: no walk that is learnt from begins there, though walks may lead through."""
    data_seed: int = 0
    """The graph and the walks follow from it."""

    def __post_init__(self) -> None:
        between("nodes", self.nodes, 3, 26)
        between("longest", self.longest, 3)
        between("walks", self.walks, 1)
        between("held_out", self.held_out, 0, self.nodes - 2)
        if not 0.0 < self.edge_probability <= 1.0:
            raise ConfigError(f"expected edge_probability above 0 and at most 1, got {self.edge_probability}")


@dataclass(frozen=True)
class Graph:
    """Edges, and how good walks along them are."""

    edges: tuple[tuple[int, ...], ...]
    """Where one can go from each node, in ascending order; from the goal nowhere."""
    longest: int
    """How many nodes a walk may have."""
    shortest: tuple[int, ...]
    """How many nodes the shortest walk from each node to the goal has, both included."""

    @classmethod
    def of(cls, edges: tuple[tuple[int, ...], ...], longest: int) -> "Graph | None":
        """The graph of these edges; None where the goal cannot be reached from a node in fewer nodes than a walk may
        have, since optimality is no number there."""
        shortest = {GOAL: 1}
        reached = [GOAL]
        while reached:
            found = [
                node for node, nexts in enumerate(edges) if node not in shortest and not set(nexts).isdisjoint(reached)
            ]
            shortest |= dict.fromkeys(found, shortest[reached[0]] + 1)
            reached = found
        if len(shortest) < len(edges) or max(shortest.values()) >= longest:
            return None
        return cls(edges, longest, tuple(shortest[node] for node in range(len(edges))))

    def optimality(self, walk: Sequence[int]) -> float:
        """(longest - n) / (longest - shortest) of a walk whose n-th node is the goal: 1 for a shortest one. 0 for a
        walk that leaves the edges before, ends before, or is longer than a walk may be. What stands behind the goal
        does not count."""
        for length, node in enumerate(walk[: self.longest], start=1):
            if node == GOAL:
                return (self.longest - length) / (self.longest - self.shortest[walk[0]])
            if length < len(walk) and walk[length] not in self.edges[node]:
                return 0.0
        return 0.0


@dataclass(frozen=True)
class PathOptimality:
    """A reward: the optimality of the walk that prompt and completion are, a letter for each node."""

    graph: Graph

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        return [
            self.graph.optimality([ord(letter) - ord("a") for letter in prompt + completion])
            for prompt, completion in zip(prompts, completions, strict=True)
        ]


def make(options: Options) -> Problems:
    """The walks. Raises ConfigError where no such graph was found."""
    graph = make_graph(options)
    starts = list(range(1, options.nodes))
    held_out = held_out_starts(options, graph)
    learnt = [node for node in starts if node not in held_out]
    random = Random(derive(options.data_seed, "random_walks walks"))
    train = []
    for i in range(options.walks):
        walk = [random.choice(learnt)]
        while walk[-1] != GOAL and len(walk) < options.longest:
            walk.append(random.choice(graph.edges[walk[-1]]))
        text = "".join(map(letter, walk))
        train.append(Document(Completion(text[0], text[1:]), f"random_walks {i}"))
    test = [Document(Prompt(letter(node)), f"random_walks from {letter(node)}") for node in sorted(held_out) or starts]
    return Problems(
        name="random_walks",
        train=train,
        test=test,
        reward=PathOptimality(graph),
        tokenizer=Characters(),
        max_completion_length=options.longest,  # all nodes but the first, and end-of-text
    )


@cache
def make_graph(options: Options) -> Graph:
    """The graph: every edge between two nodes is there or not, until the goal can be reached from every node. Raises
    ConfigError where that does not happen."""
    random = Random(derive(options.data_seed, "random_walks graph"))
    for _ in range(TRIES):
        edges = tuple(
            tuple(
                other
                for other in range(options.nodes)
                if node not in (GOAL, other) and random.random() < options.edge_probability
            )
            for node in range(options.nodes)
        )
        if (graph := Graph.of(edges, options.longest)) is not None:
            return graph
    raise ConfigError(
        f"expected a graph in which walks of fewer than {options.longest} nodes lead from everywhere to the goal, "
        f"found none in {TRIES:,} tries: raise edge_probability or longest"
    )


def held_out_starts(options: Options, graph: Graph) -> set[int]:
    """The nodes where no walk that is learnt from begins. To each of them leads an edge from a node where one does.
    Raises ConfigError where there are not so many."""
    order = list(range(1, options.nodes))
    Random(derive(options.data_seed, "random_walks held out")).shuffle(order)
    held_out: set[int] = set()
    for node in order:
        if len(held_out) == options.held_out:
            break
        wanted = held_out | {node}
        learnt = [other for other in order if other not in wanted]
        if all(any(each in graph.edges[other] for other in learnt) for each in wanted):
            held_out = wanted
    if len(held_out) < options.held_out:
        raise ConfigError(
            f"expected held_out of at most {len(held_out)} in this graph, got {options.held_out}: the others are "
            "reached from no node that is learnt from"
        )
    return held_out


def letter(node: int) -> str:
    """How a node is written."""
    return chr(ord("a") + node)
