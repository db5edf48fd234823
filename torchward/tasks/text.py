"""Tuned settings of the tasks of text: one plain function for each, and one plain table of them."""

from collections.abc import Callable

from torchward.tasks.control import Preset
from torchward.tasks.dialogue_presets import grpo_dialogue, ppo_dialogue, pretrain_dialogue, sft_dialogue


def _two_digits(config: object) -> Preset:
    """Sums of two digits, few of them with their answer: what is learnt by heart and what is understood differ. Digits
    stand where they always stand: else hardly one of the short sums is right at first, and none to be rewarded for."""
    from torchward.run import RunOptions
    from torchward.tasks import addition

    sums = addition.Options(digits=2, demonstrations=400, problems=4_500, leading_zeros=True)
    return Preset(config, RunOptions(n_eval_episodes=sums.test, stats_window=500), sums)


def pretrain_addition() -> Preset:
    """A small model that has seen the sums' demonstrations as text."""
    from torchward.algorithms import pretrain
    from torchward.nets.transformer_config import gpt2

    config = pretrain.Config(
        total_timesteps=20_000, max_length=64, per_device_train_batch_size=4, learning_rate=2e-3,
        model=gpt2(32, 128, 2, 4, 64),
    )  # fmt: skip
    return _two_digits(config)


def sft_addition() -> Preset:
    """Small steps, many of them: the sums are learnt late and at once."""
    from torchward.algorithms import sft

    config = sft.Config(
        total_timesteps=120_000, max_length=64, per_device_train_batch_size=4, learning_rate=2e-3
    )  # fmt: skip
    return _two_digits(config)


def grpo_addition() -> Preset:
    """Many questions with few answers each: soon most groups agree, and those teach nothing."""
    from torchward.algorithms import grpo

    config = grpo.Config(
        total_timesteps=500_000, generation_batch_size=512, num_generations=4, steps_per_generation=4,
        num_iterations=2, per_device_train_batch_size=128, learning_rate=5e-4, lr_scheduler_type="linear",
        warmup_ratio=0.03,
    )  # fmt: skip
    return _two_digits(config)


def ppo_addition() -> Preset:
    """All tokens of 512 answers, twice; nothing is discounted. Longer answers need as many n_steps."""
    from torchward.algorithms import ppo

    config = ppo.Config(
        total_timesteps=500_000, n_envs=512, n_steps=4, batch_size=512, n_epochs=2, learning_rate=2e-4,
        learning_rate_schedule="linear", gamma=1.0, gae_lambda=0.95, ent_coef=0.005,
    )  # fmt: skip
    return _two_digits(config)


def expert_iteration_addition() -> Preset:
    """One right answer to each question, learnt once."""
    from torchward.algorithms import expert_iteration

    config = expert_iteration.Config(
        total_timesteps=300_000, generation_batch_size=512, num_generations=4, kept_per_prompt=1, num_train_epochs=1,
        max_length=64, per_device_train_batch_size=4, learning_rate=1e-3,
    )  # fmt: skip
    return _two_digits(config)


def distill_addition() -> Preset:
    """A student of a quarter of the size, which hears its teacher on half of its own answers and half of the teacher's:
    each prompt once, for there are many without an answer."""
    from torchward.algorithms import distill
    from torchward.nets.transformer_config import gpt2

    config = distill.Config(
        total_timesteps=150_000, num_generations=1, per_device_train_batch_size=64, max_length=64, learning_rate=2e-3,
        model=gpt2(32, 64, 2, 4, 64),
    )  # fmt: skip
    return _two_digits(config)


def pretrain_python_topics() -> Preset:
    """A small model in small batches: English in about two minutes."""
    from torchward.algorithms import pretrain
    from torchward.nets.transformer_config import gpt2

    config = pretrain.Config(
        total_timesteps=600_000, max_length=128, per_device_train_batch_size=4, learning_rate=3e-3,
        model=gpt2(512, 128, 2, 4, 128),
    )  # fmt: skip
    return Preset(config)


def _walks(config: object) -> Preset:
    """A small graph, judged from every node."""
    from torchward.run import RunOptions
    from torchward.tasks import random_walks

    walks = random_walks.Options()
    return Preset(config, RunOptions(n_eval_episodes=walks.nodes - 1), walks)


def pretrain_random_walks() -> Preset:
    """As many letters as it takes until walks keep to edges: a graph is little to learn."""
    from torchward.algorithms import pretrain
    from torchward.nets.transformer_config import gpt2

    config = pretrain.Config(
        total_timesteps=50_000, max_length=64, per_device_train_batch_size=8, learning_rate=2e-3,
        model=gpt2(32, 64, 2, 4, 64),
    )  # fmt: skip
    return _walks(config)


def grpo_random_walks() -> Preset:
    """Few walks from each node, learnt from twice."""
    from torchward.algorithms import grpo

    config = grpo.Config(
        total_timesteps=20_000, num_generations=4, num_iterations=2, learning_rate=5e-4, warmup_ratio=0.03
    )
    return _walks(config)


def _five_guesses(config: object) -> Preset:
    """Ranges of 12 to 24 numbers, in five turns: bisection finds every one of them, with some to spare."""
    from torchward.run import RunOptions
    from torchward.tasks import guess_number

    games = guess_number.Options(largest=23, span=12, turns=5, careless=0.5, demonstrations=5_000, problems=5_000)
    return Preset(config, RunOptions(n_eval_episodes=1_000, stats_window=500), games)


def pretrain_guess_number() -> Preset:
    """A smaller model, which has seen a little of how games look."""
    from torchward.algorithms import pretrain
    from torchward.nets.transformer_config import gpt2

    config = pretrain.Config(
        total_timesteps=30_000, max_length=64, per_device_train_batch_size=4, learning_rate=3e-3,
        model=gpt2(32, 64, 2, 4, 64),
    )  # fmt: skip
    return _five_guesses(config)


def sft_guess_number() -> Preset:
    """Until guesses keep between the bounds where the players' do; by reward, that takes far longer to learn."""
    from torchward.algorithms import sft

    config = sft.Config(
        total_timesteps=1_200_000, max_length=64, per_device_train_batch_size=16, learning_rate=4e-3
    )  # fmt: skip
    return _five_guesses(config)


def grpo_guess_number() -> Preset:
    """Eight games about each number; each rollout is learnt from thrice."""
    from torchward.algorithms import grpo

    config = grpo.Config(
        total_timesteps=400_000, generation_batch_size=512, num_generations=8, steps_per_generation=4,
        num_iterations=3, per_device_train_batch_size=128, learning_rate=1.5e-3, lr_scheduler_type="linear",
        warmup_ratio=0.03,
    )  # fmt: skip
    return _five_guesses(config)


def ppo_guess_number() -> Preset:
    """Games of 256 numbers, of up to 60 tokens with the partner's, which pass as time: so the trace is long."""
    from torchward.algorithms import ppo

    config = ppo.Config(
        total_timesteps=2_150_400, n_envs=256, n_steps=60, batch_size=3_840, n_epochs=4, learning_rate=1e-3,
        learning_rate_schedule="linear", gamma=1.0, gae_lambda=0.99, ent_coef=0.003,
    )  # fmt: skip
    return _five_guesses(config)


def expert_iteration_guess_number() -> Preset:
    """One game that was won for each number, learnt once."""
    from torchward.algorithms import expert_iteration

    config = expert_iteration.Config(
        generation_batch_size=512, num_generations=4, kept_per_prompt=1, num_train_epochs=1, max_length=64
    )
    return _five_guesses(config)


def _functions(config: object) -> Preset:
    """Functions of the standard library, judged behind the beginnings of modules that were held out."""
    from torchward.run import RunOptions
    from torchward.tasks import python_code

    code = python_code.Options()
    return Preset(config, RunOptions(n_eval_episodes=code.test, stats_window=512), code)


def pretrain_python_code() -> Preset:
    """A model that writes what looks like Python: three times in four it does not compile."""
    from torchward.algorithms import pretrain
    from torchward.nets.transformer_config import gpt2

    config = pretrain.Config(
        total_timesteps=2_000_000, max_length=256, per_device_train_batch_size=4, learning_rate=3e-3,
        model=gpt2(1024, 128, 4, 4, 256),
    )  # fmt: skip
    return _functions(config)


def grpo_python_code() -> Preset:
    """Few answers to many beginnings, held near the model that the run began with."""
    from torchward.algorithms import grpo

    config = grpo.Config(
        total_timesteps=500_000, generation_batch_size=256, num_generations=8, steps_per_generation=4,
        num_iterations=1, per_device_train_batch_size=64, max_completion_length=96, learning_rate=5e-4,
        lr_scheduler_type="linear", warmup_ratio=0.03, beta=0.03,
    )  # fmt: skip
    return _functions(config)


def _guests(config: object) -> Preset:
    """Guests of whom some are never seen together. Their prompts are few, so that each is answered once."""
    from torchward.run import RunOptions
    from torchward.tasks import taste

    return Preset(config, RunOptions(n_eval_episodes=64, stats_window=500), taste.Options())


def pretrain_taste() -> Preset:
    """A small model that writes menus as people do."""
    from torchward.algorithms import pretrain
    from torchward.nets.transformer_config import gpt2

    config = pretrain.Config(
        total_timesteps=250_000, max_length=64, per_device_train_batch_size=16, learning_rate=3e-3,
        model=gpt2(40, 64, 3, 4, 64),
    )  # fmt: skip
    return _guests(config)


def reward_model_taste() -> Preset:
    """All picks some times: guests' likes and what goes together are many numbers."""
    from torchward.algorithms import reward_model

    config = reward_model.Config(
        total_timesteps=240_000, max_length=24, per_device_train_batch_size=64, learning_rate=2e-3,
        eval_pairs=2_000,
    )  # fmt: skip
    return _guests(config)


def dpo_taste() -> Preset:
    """The same picks, without a reward model; by small steps, for large ones go far and gain little."""
    from torchward.algorithms import dpo

    config = dpo.Config(
        total_timesteps=60_000, max_length=24, per_device_train_batch_size=64, learning_rate=3e-4,
        loss=dpo.DPO(0.6), precompute_ref_log_probs=True, eval_pairs=2_000,
    )  # fmt: skip
    return _guests(config)


def kto_taste() -> Preset:
    """The same picks, each answer judged alone."""
    from torchward.algorithms import kto

    config = kto.Config(
        total_timesteps=120_000, max_length=24, per_device_train_batch_size=64, learning_rate=3e-4, eval_answers=2_000
    )
    return _guests(config)


def ppo_taste() -> Preset:
    """Menus by reward, of 256 at a time; nothing is discounted. What the policy may move away costs `--kl-coef`."""
    from torchward.algorithms import ppo

    config = ppo.Config(
        total_timesteps=500_000, n_envs=256, n_steps=11, batch_size=704, n_epochs=2, learning_rate=1.5e-3,
        learning_rate_schedule="linear", gamma=1.0, gae_lambda=1.0, ent_coef=0.0,
    )  # fmt: skip
    return _guests(config)


def grpo_taste() -> Preset:
    """Eight menus for each prompt, compared with each other."""
    from torchward.algorithms import grpo

    config = grpo.Config(
        total_timesteps=300_000, generation_batch_size=256, num_generations=8, steps_per_generation=2,
        per_device_train_batch_size=128, learning_rate=5e-4, lr_scheduler_type="linear", warmup_ratio=0.03,
    )  # fmt: skip
    return _guests(config)


PRESETS: dict[tuple[str, str], Callable[[], Preset]] = {
    ("pretrain", "addition"): pretrain_addition,
    ("sft", "addition"): sft_addition,
    ("grpo", "addition"): grpo_addition,
    ("ppo", "addition"): ppo_addition,
    ("expert_iteration", "addition"): expert_iteration_addition,
    ("distill", "addition"): distill_addition,
    ("pretrain", "random_walks"): pretrain_random_walks,
    ("grpo", "random_walks"): grpo_random_walks,
    ("pretrain", "python_topics"): pretrain_python_topics,
    ("pretrain", "python_code"): pretrain_python_code,
    ("grpo", "python_code"): grpo_python_code,
    ("pretrain", "guess_number"): pretrain_guess_number,
    ("sft", "guess_number"): sft_guess_number,
    ("grpo", "guess_number"): grpo_guess_number,
    ("ppo", "guess_number"): ppo_guess_number,
    ("expert_iteration", "guess_number"): expert_iteration_guess_number,
    ("pretrain", "dialogue"): pretrain_dialogue,
    ("sft", "dialogue"): sft_dialogue,
    ("grpo", "dialogue"): grpo_dialogue,
    ("ppo", "dialogue"): ppo_dialogue,
    ("pretrain", "taste"): pretrain_taste,
    ("reward_model", "taste"): reward_model_taste,
    ("dpo", "taste"): dpo_taste,
    ("kto", "taste"): kto_taste,
    ("ppo", "taste"): ppo_taste,
    ("grpo", "taste"): grpo_taste,
}
"""By algorithm and task."""
