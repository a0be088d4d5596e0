"""How torch's threads wait on a CPU: a training step with its own default, with ours, and with the OpenMP standard's.

    python scripts/benchmarks/openmp.py [--repeats 2] [--steps 4]

A random Llama of the bundled model's width, float32, a training step of 4 rows of 64 tokens. Alone and beside a
process that keeps a core busy; one run, and two at once, each with a thread a core, as runs have that do not know of
each other. (A launcher gives each of two processes its share of the cores: with one thread each nothing waits.)

Every run is a process of its own; ways take turns, and of each the best median counts. Ratios are to ours: above 1,
ours is faster. Alone one run should show about 1, which only an idle machine can tell. To libgomp PASSIVE means what
ours means, so that its column is the noise of the others.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)
import psutil

from distjudge_trl.runtime.threads import cores


# What a user sets for it; torch's own default is a wait of 300,000 turns, after which a thread sleeps.
WAYS = {
    "ours": {},
    "torch's default": {"GOMP_SPINCOUNT": "300000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
SITUATIONS = {"one run": 1, "two runs at once": 2}
MOST_SECONDS = 8  # of timed steps in a run
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
BUSY = "import os\nwhile os.getppid() == {parent}: pass"


def work(steps: int) -> None:
    """Train in this process; prints the seconds of its median step."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=12,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    rows = torch.randint(0, config.vocab_size, (4, 64))
    seconds = []
    while len(seconds) <= steps and (len(seconds) < 2 or sum(seconds[1:]) < MOST_SECONDS):
        begin = time.perf_counter()
        model(input_ids=rows, logits_to_keep=1).logits.logsumexp(-1).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - begin)
    # The first one makes kernels and the optimizer's state.
    print(json.dumps(statistics.median(seconds[1:])))


def measure(variables: dict[str, str], runs: int, busy: bool, steps: int) -> float:
    """Seconds of a step, of several runs at once the slowest's."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS} | variables
    beside = [subprocess.Popen([sys.executable, "-c", BUSY.format(parent=os.getpid())])] if busy else []
    try:
        command = [sys.executable, __file__, "--work", "--steps", str(steps)]
        processes = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(runs)
        ]
        printed = [process.communicate()[0] for process in processes]
    finally:
        for process in beside:
            process.kill()
            process.wait()
    if any(process.returncode for process in processes):
        raise SystemExit("a run failed")
    return max(json.loads(text.splitlines()[-1]) for text in printed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2, help="default: 2")
    parser.add_argument("--steps", type=int, default=4, help="timed, of every run; default: 4")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.steps)
        return
    print(f"{cores()} cores; load before: {psutil.getloadavg()[0]:.1f}\n")
    print(f"| | ours, seconds a step | {' | '.join(f'{way}, ratio' for way in list(WAYS)[1:])} |")
    print("|---" * (len(WAYS) + 1) + "|")
    for busy in (False, True):
        for situation, runs in SITUATIONS.items():
            found: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(args.repeats):
                for way, variables in WAYS.items():
                    found[way].append(measure(variables, runs, busy, args.steps))
            best = {way: min(values) for way, values in found.items()}
            ratios = " | ".join(f"{best[way] / best['ours']:.2f}" for way in list(WAYS)[1:])
            print(
                f"| {situation}, {'beside a busy process' if busy else 'alone'} | {best['ours']:.2f} | {ratios} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
