"""What fits where: the tables of docs/scaling.md, as `distjudge-trl plan` estimates.

python scripts/plan_tables.py [--write]      (`make plan-tables` writes them into the page)
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from distjudge_trl.files.atomic import replacing
from distjudge_trl.planning import Sharding, Training, estimate, load_config, measure_footprint
from distjudge_trl.planning.memory import GIB
from distjudge_trl.planning.training import DEFAULT_RANK


PAGE = Path(__file__).resolve().parents[1] / "docs/scaling.md"
START, END = "<!-- what fits: written by `make plan-tables` -->", "<!-- end of what fits -->"
MODELS = ("Qwen/Qwen2.5-7B", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-70B")
# As recipes train by default: float32 for weights that are trained, bfloat16 for frozen ones.
KINDS = {
    "full": Training(1024, 8, dtype="float32"),
    "LoRA": Training(1024, 8, lora_r=DEFAULT_RANK),
    "QLoRA": Training(1024, 8, lora_r=DEFAULT_RANK, bits=4),
}
WAYS = {
    "DDP": Sharding("multi_gpu", "replicas", 0, 1),
    "ZeRO-1": Sharding("zero1", "zero", 1, 1),
    "ZeRO-2": Sharding("zero2", "zero", 2, 1),
    "ZeRO-3": Sharding("zero3", "zero", 3, 1),
    "ZeRO-3, offload": Sharding("zero3_offload", "zero", 3, 1, offload_optimizer=True, offload_weights=True),
}
DEVICES = (1, 8, 64)


def rows(model: str) -> Iterator[str]:
    """Markdown rows of a model: GiB per GPU, and GiB that each of 8 and 64 sends per optimizer step."""
    config = load_config(model)
    footprint = cache(lambda training: measure_footprint(config, training))
    for kind, settings in KINDS.items():
        for way, sharding in WAYS.items():
            training = replace(settings, cast=sharding.casts)
            plans = [estimate(footprint(training), training, replace(sharding, devices=n)) for n in DEVICES]
            sent = [f"{size:.0f}" if size >= 10 else f"{size:.1f}" for size in (plan.sent / GIB for plan in plans[1:])]
            host = f"{plans[0].host / GIB:.0f}" if plans[0].host else "-"
            yield f"| {kind} | {way} | {' | '.join([*(_memory(plan.peak) for plan in plans), *sent, host])} |"


def _memory(size: int) -> str:
    """Bold where it fits into 40 GiB, italic where into 80."""
    text, mark = f"{size / GIB:.0f}", "**" if size <= 40 * GIB else "*" if size <= 80 * GIB else ""
    return f"{mark}{text}{mark}"


def tables() -> str:
    """All tables, as Markdown."""
    parts = []
    for model in MODELS:
        parts.append(f"**{model}**, GiB per GPU; GiB sent per GPU and optimizer step; GiB of host memory:\n")
        header = [*(f"{n} GPU{'s' if n > 1 else ''}" for n in DEVICES), *(f"sent, {n}" for n in DEVICES[1:]), "host"]
        parts += [f"| | | {' | '.join(header)} |", "|---" * (len(header) + 2) + "|", *rows(model), ""]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into docs/scaling.md")
    text = tables()
    print(text)
    if parser.parse_args().write:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(START)
        with replacing(PAGE) as temporary:
            temporary.write_text(f"{before}{START}\n\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
