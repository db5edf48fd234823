"""Random walks: optimality by hand and by a search through all walks; text and environment are one problem."""

from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import torchward
from torchward.config import ConfigError
from torchward.envs.make import EnvOptions
from torchward.language.documents import Completion
from torchward.tasks.random_walks import Graph, Options, PathOptimality, letter, make, make_graph
from torchward.tasks.random_walks_env import Env

# b -> a; c -> b; d -> b, c; walks of at most 5 nodes
SMALL = Graph.of(((), (0,), (1,), (1, 2)), 5)


@pytest.mark.parametrize(
    ("walk", "optimality"),
    [
        ("ba", 1.0),
        ("cba", 1.0),
        ("dba", 1.0),
        ("dcba", 0.5),  # one node more than the shortest walk, which has three of five
        ("dcbaaaa", 0.5),  # what stands behind the goal does not count
        ("dcba!", 0.5),
        ("b", 0.0),
        ("db", 0.0),
        ("da", 0.0),  # there is no such edge
        ("dda", 0.0),
        ("bca", 0.0),
        ("d ba", 0.0),
        ("dBA", 0.0),
        ("dbа", 0.0),
        ("dxba", 0.0),
        ("d\x60ba", 0.0),  # the character before a, which might count as the last node
        ("d_a", 0.0),
        ("", 0.0),
    ],
)
def test_optimality_by_hand(walk: str, optimality: float) -> None:
    assert SMALL is not None and SMALL.shortest == (1, 2, 3, 3)
    assert PathOptimality(SMALL)([walk[:1]], [walk[1:]]) == [optimality]
    assert PathOptimality(SMALL)([walk], [""]) == [optimality]


def test_a_walk_that_is_too_long_earns_nothing() -> None:
    ring = Graph.of(((), (0, 2), (1,)), 5)  # b and c lead to each other
    assert ring is not None
    earned = [ring.optimality([ord(each) - ord("a") for each in walk]) for walk in ("ba", "bcba", "bcbcba", "cbcba")]
    assert earned == [1.0, pytest.approx(1 / 3), 0.0, 0.0]


def test_no_graph_without_a_way_or_with_one_that_is_too_long() -> None:
    assert Graph.of(((), (2,), (1,)), 9) is None, "b and c never come to the goal"
    assert Graph.of(((), (0,), (1,), (2,)), 4) is None, "d is 4 nodes from it: 0 divided by 0"
    assert Graph.of(((), (0,), (1,), (2,)), 5) is not None


@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_all_walks_is_worth_one(seed: int) -> None:
    """Against every walk that there is, and the matrix powers of the edges."""
    options = Options(nodes=7, edge_probability=0.3, longest=6, data_seed=seed)
    graph = make_graph(options)
    matrix = np.zeros((7, 7), int)
    for node, nexts in enumerate(graph.edges):
        matrix[node, list(nexts)] = 1
    for start in range(1, 7):
        power, steps = matrix, 1
        while not power[start, 0]:
            power, steps = power @ matrix, steps + 1
        assert graph.shortest[start] == steps + 1
        earned = [graph.optimality((start, *rest)) for rest in product(range(7), repeat=4)]
        assert max(earned) == 1.0 and min(earned) == 0.0
        assert {round(one * (6 - graph.shortest[start])) for one in earned} <= set(range(7))


def test_walks_keep_to_edges_and_end_at_the_goal_or_at_their_longest() -> None:
    options = Options()
    problems = make(options)
    graph = make_graph(options)
    starts = set()
    for document in problems.train:
        assert isinstance(document.content, Completion)
        walk = [ord(each) - ord("a") for each in document.text]
        assert all(b in graph.edges[a] for a, b in pairwise(walk))
        assert 0 not in walk[:-1] and (walk[-1] == 0 or len(walk) == options.longest)
        starts.add(document.content.prompt)
    assert starts == {letter(node) for node in range(1, 21)} == {document.text for document in problems.test}
    earned = problems.reward([d.question for d in problems.train], [d.text[1:] for d in problems.train])
    assert 0.05 < sum(earned) / len(earned) < 0.5, "something to gain"
    tokenizer = problems.tokenizer.build(document.text for document in problems.train)
    assert len(tokenizer.encode("abcdefghijklmnopqrstu")) == 21
    assert graph.edges[0] == () and all(node not in nexts for node, nexts in enumerate(graph.edges))
    assert problems.max_completion_length == options.longest


def test_shortest_walks_earn_the_most() -> None:
    problems = make(Options(data_seed=3))
    graph = make_graph(Options(data_seed=3))
    for document in problems.test:
        walk = [ord(document.text) - ord("a")]
        while walk[-1]:
            walk.append(min(graph.edges[walk[-1]], key=lambda node: graph.shortest[node]))
        assert problems.reward([document.text], ["".join(map(letter, walk[1:]))]) == [1.0]
        assert problems.reward([document.text], [""]) == [0.0]


def test_one_seed_one_graph_and_its_walks() -> None:
    assert make(Options()).train == make(Options()).train
    assert make(Options()).train != make(Options(data_seed=1)).train
    assert make_graph(Options()) != make_graph(Options(data_seed=1))
    assert make_graph(Options(walks=5, held_out=4)) == make_graph(Options())
    assert make(Options(walks=50)).train == make(Options()).train[:50]


def test_starts_that_are_held_out_are_passed_through_and_never_begun_at() -> None:
    problems = make(Options(held_out=5))
    held_out = {document.text for document in problems.test}
    assert len(held_out) == 5
    assert held_out.isdisjoint(document.question for document in problems.train)
    assert held_out < set().union(*(document.text[1:] for document in problems.train))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"nodes": 27}, "expected nodes from 3 to 26, got 27"),
        ({"edge_probability": 0.0}, "expected edge_probability above 0 and at most 1, got 0.0"),
        ({"nodes": 4, "edge_probability": 1e-6}, "found none in 10,000 tries"),
        ({"held_out": 19}, "expected held_out of at most"),
    ],
)
def test_what_cannot_be_walked_is_said(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make(Options(**changes))


@pytest.mark.parametrize("numbered", [False, True])
def test_the_environment_pays_what_the_text_earns(numbered: bool) -> None:
    env = Env(numbered=numbered)
    env.action_space.seed(0)
    reward = make(Options()).reward
    reached = 0
    for episode in range(300):
        observation, _ = env.reset(seed=episode)
        total, done = 0.0, False
        while not done:
            before = env.walk[-1]
            observation, paid, done, truncated, _ = env.step(env.action_space.sample())
            assert not truncated and env.walk[-1] in env.graph.edges[before]
            total += paid
            seen = np.unravel_index(observation, env.sizes) if numbered else observation
            assert tuple(map(int, seen)) == (env.walk[0], env.walk[-1], len(env.walk) - 1)
        walk = env.render()
        assert reward([walk[0]], [walk[1:]]) == [total]
        assert walk.endswith("a") or len(walk) == 10
        reached += total > 0
    assert 30 < reached < 270


def test_every_edge_can_be_taken_and_every_start_is_drawn() -> None:
    env = Env()
    for start, nexts in enumerate(env.graph.edges):
        taken = set()
        for action in range(int(env.action_space.n)):  # type: ignore[attr-defined]
            env.reset(options={"start": start})
            if start:
                taken.add(int(env.step(action)[0][1]))
        assert taken == set(nexts)
    assert {int(env.reset(seed=seed)[0][0]) for seed in range(400)} == set(range(1, 21))


def test_the_best_return_is_one_from_everywhere() -> None:
    """By backward induction through the environment itself."""
    env = Env(nodes=8, edge_probability=0.25, longest=6)

    def best(walk: list[int]) -> float:
        found = []
        for action in range(int(env.action_space.n)):  # type: ignore[attr-defined]
            env.reset(options={"start": walk[0]})
            env.walk = list(walk)
            _, paid, done, _, _ = env.step(action)
            found.append(paid if done else best(env.walk))
        return max(found)

    assert [best([start]) for start in range(1, 8)] == [1.0] * 7


@pytest.mark.parametrize("numbered", [False, True])
def test_it_is_an_environment_whose_state_comes_back(numbered: bool) -> None:
    env = Env(numbered=numbered)
    check_env(env, skip_render_check=True)
    env.reset(seed=1)
    env.step(0)
    state = env.state_dict()
    here, following = env.step(1), env.reset()
    other = Env(numbered=numbered)
    other.load_state_dict(state)
    there, again = other.step(1), other.reset()
    assert np.array_equal(here[0], there[0]) and here[1:] == there[1:]
    assert np.array_equal(following[0], again[0])


def test_q_learning_finds_the_shortest_walks(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"nodes": 10, "edge_probability": 0.2, "longest": 6}
    env = EnvOptions(env_kwargs={"numbered": True, **changes})
    run = torchward.train("q_learning", Env, path=tmp_path / "run", env=env, total_timesteps=8_000, progress=False)
    policy = torchward.load(run.path)
    world = Env(numbered=True, **changes)
    earned = []
    for start in range(1, 10):
        observation, _ = world.reset(options={"start": start})
        done, paid = False, 0.0
        while not done:
            action = policy.predict(observation)[0]
            observation, paid, done, _, _ = world.step(action)
        earned.append(paid)
    assert np.mean(earned) >= 0.95


def test_the_environments_options_are_those_of_the_text() -> None:
    assert (
        Env(options=Options(data_seed=2)).graph == make_graph(Options(data_seed=2)) == Env(data_seed=2, walks=3).graph
    )
    assert Env(options=replace(Options(), nodes=12)).sizes == (12, 12, 10)
