"""Seconds of an update of transformers' GPT-2 with PyTorch's AdamW; benchmarks/language_speed.py starts it."""

import argparse
import importlib.metadata
import json
import time

import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--model", required=True)
    for name in ("rows", "length", "side", "threads"):
        options.add_argument(f"--{name}", type=int, required=True)
    options.add_argument("--setting", type=json.loads, required=True)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)

    model = AutoModelForCausalLM.from_pretrained(given.model).train()
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    tokens = torch.randint(model.config.vocab_size, (given.rows, given.length))
    one, other, into = (torch.randn(given.side, given.side) for _ in range(3))

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    def seconds(name: str) -> float:
        count: int = given.setting[name]
        start = time.perf_counter()
        for _ in range(count):
            if name == "products":
                torch.mm(one, other, out=into)
            else:
                update()
        return (time.perf_counter() - start) / count

    seconds("warm")
    seconds("products")
    products, updates = [seconds("products")], []
    for _ in range(given.setting["blocks"]):
        updates.append(seconds("updates"))
        products.append(seconds("products"))
    answer = {
        "updates": updates,
        "products": products,
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
