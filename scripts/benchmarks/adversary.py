"""What the adversary costs and what it attains, each against its rivals in one process.

    python scripts/benchmarks/adversary.py [--skip-training-step]

Prints three Markdown tables: PGD with CVXPY's projection (program rebuilt for every row, as the paper's loop suggests,
and parametrised) against ours; the share of a SmolLM2-135M training step that the adversary takes; the KL that PGD,
the worst case and a dense brute force attain. Times are the minimum of several runs and only mean something as ratios
within a table.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)
import torch

from distjudge_trl.objective import PGDAdversary, WorstCaseAdversary, kl_divergence
from distjudge_trl.objective._cvxpy import SETTINGS, solve_rows
from distjudge_trl.objective.projection import furthest_feasible


RADIUS, STEP_SIZE, NUM_STEPS, FLOOR = 0.25, 0.05, 5, 1e-6


def best_time(function: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several runs, after one that warms up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def annotations(batch_size: int, num_labels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Distributions of five annotators with all the zeros they leave, and a judge's log-probabilities; float32."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(batch_size, num_labels, generator=generator) ** 3 + 1e-3
    votes = torch.multinomial(weights, 5, replacement=True, generator=generator)
    p = torch.nn.functional.one_hot(votes, num_labels).float().mean(1)
    return p, torch.randn(batch_size, num_labels, generator=generator).mul(1.5).log_softmax(-1)


def solve_rebuilt(rows, centers, radii):
    """Eq. 9 with a new CVXPY program for every row."""
    import cvxpy as cp

    for i, (v, center, radius) in enumerate(zip(rows, centers, radii, strict=True)):
        u = cp.Variable(len(v))
        constraints = [u >= 0, cp.sum(u) == 1, cp.norm(u - center) <= radius]
        cp.Problem(cp.Minimize(cp.sum_squares(u - v)), constraints).solve(solver=cp.CLARABEL)
        rows[i] = u.value
    return rows


def cvxpy_pgd(p: torch.Tensor, log_q: torch.Tensor, solve: Callable, num_steps: int = NUM_STEPS) -> torch.Tensor:
    """The paper's inner loop: gradient step, then the solver row by row."""
    center, current = p.double().numpy(), p.double()
    for _ in range(num_steps):
        v = current + STEP_SIZE * (current.clamp(min=FLOOR).log() - log_q + 1)
        current = torch.from_numpy(solve(v.numpy().copy(), center, [RADIUS] * len(p))).clamp(min=0)
    return current


def print_table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for i, row in enumerate([header, *rows]):
        print("| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if i == 0:
            print("|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    print()


def compare_solvers() -> None:
    """Ratios to our time; the rebuilt program only at one step and scaled up, because it takes seconds a batch."""
    print(
        f"PGD, {NUM_STEPS} steps, radius {RADIUS}: CVXPY (Clarabel, default tolerances) against the exact projection\n"
    )
    rows = []
    for batch_size in (8, 64, 1024):
        for num_labels in (3, 5, 9):
            p, log_q = annotations(batch_size, num_labels)
            adversary = PGDAdversary(RADIUS, STEP_SIZE, NUM_STEPS)
            ours = best_time(lambda adversary=adversary, p=p, log_q=log_q: adversary(p, log_q), 50)
            # Row by row, so the time is linear in the rows: large batches are timed on 64 of them.
            timed = min(batch_size, 64)
            part, part_log_q = p[:timed], log_q[:timed]
            scale = batch_size / timed

            def parametrised(part=part, part_log_q=part_log_q):
                return cvxpy_pgd(part, part_log_q, lambda v, c, r: solve_rows(v, c, r, "CLARABEL"))

            def rebuilt(part=part, part_log_q=part_log_q):
                return cvxpy_pgd(part[:8], part_log_q[:8], solve_rebuilt, num_steps=1)

            fast = best_time(parametrised, 2) * scale
            slow = best_time(rebuilt, 2) * NUM_STEPS * batch_size / min(timed, 8)
            exact = cvxpy_pgd(part, part_log_q, lambda v, c, r: solve_rows(v, c, r, "SCS"))
            difference = (adversary(part.double(), part_log_q.double()) - exact).abs().max().item()
            rows.append(
                [
                    *(str(batch_size), str(num_labels), f"{1e3 * ours:.2f} ms", f"{1e3 * fast:.0f} ms"),
                    *(f"{1e3 * slow:.0f} ms", f"{fast / ours:.0f}x", f"{slow / ours:.0f}x", f"{difference:.0e}"),
                ]
            )
    header = ["batch", "K", "ours", "parametrised", "rebuilt", "ours vs parametrised", "ours vs rebuilt"]
    print_table([*header, f"largest difference to SCS at {SETTINGS['SCS']['eps_abs']:.0e}"], rows)


def share_of_training_step() -> None:
    """A forward and backward of the bundled model on the vader task, and the adversary on its batch, side by side."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from distjudge_trl.batching import JudgmentCollator, encode_prompts, find_sharing, judgment_logits
    from distjudge_trl.modeling.bundled import BUNDLED_MODEL, resolve_model
    from distjudge_trl.objective import hybrid_loss
    from distjudge_trl.runtime.precision import cpu_has_bfloat16
    from distjudge_trl.tasks import get_task

    path = resolve_model(BUNDLED_MODEL)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    task = get_task("vader")
    space = task.label_space().bind(tokenizer)
    batch_size = 8
    records = task.load().select(range(batch_size))
    features = [
        {"input_ids": ids, "label_distribution": p, "reference": 0, "num_annotators": 10}
        for ids, p in zip(encode_prompts(tokenizer, records["prompt"]), records["label_distribution"], strict=True)
    ]
    rows = []
    for share in (False, True):
        batch = JudgmentCollator(pad_token_id=0, sharing=find_sharing(model, share))(features)

        def step(batch=batch):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cpu_has_bfloat16()):
                logits = judgment_logits(model, batch)
            log_q = space.log_probs(logits)
            hybrid_loss(log_q, batch["label_distribution"], batch["reference"], 0.8).mean().backward()
            model.zero_grad()
            return log_q.detach()

        log_q = step()
        training = best_time(step, 5)
        for name, adversary in (("PGD", PGDAdversary(RADIUS)), ("worst case", WorstCaseAdversary(RADIUS))):
            cost = best_time(lambda a=adversary, b=batch, q=log_q: a(b["label_distribution"], q), 20)
            layout = "prefixes shared" if share else "left-padded"
            rows.append(
                [layout, name, f"{1e3 * training:.0f} ms", f"{1e3 * cost:.2f} ms", f"{100 * cost / training:.2f} %"]
            )
    print(
        f"Share of a SmolLM2-135M training step (forward and backward, no optimizer), batch {batch_size}, K = 9, CPU\n"
    )
    print_table(["batch layout", "adversary", "step without it", "adversary", "share"], rows)


def brute_force(p: torch.Tensor, log_q: torch.Tensor, num_directions: int) -> torch.Tensor:
    """Largest KL over the points of E furthest along many random directions, each refined by linearised steps."""
    generator = torch.Generator().manual_seed(0)
    p, log_q = p.double(), log_q.double()
    best = kl_divergence(p, log_q)
    for _ in range(num_directions // 250):
        direction = torch.randn(250, 1, p.shape[-1], generator=generator, dtype=torch.float64).expand(-1, *p.shape)
        for _ in range(4):
            shifted = direction - direction.amax(-1, keepdim=True)
            points = furthest_feasible(p.expand_as(direction), shifted, RADIUS, 1e30)
            direction = points.clamp(min=FLOOR).log() - log_q
        best = torch.maximum(best, kl_divergence(points, log_q.expand_as(points)).amax(0))
    return best


def compare_attained_kl() -> None:
    print(f"Attained KL (mean over 512 rows, nats), radius {RADIUS}; cost of the worst case against PGD's\n")
    rows = []
    for num_labels in (3, 5, 9):
        p, log_q = annotations(512, num_labels, seed=1)
        pgd, worst = PGDAdversary(RADIUS), WorstCaseAdversary(RADIUS)
        attained = {name: kl_divergence(a(p, log_q), log_q) for name, a in (("pgd", pgd), ("worst", worst))}
        best = brute_force(p, log_q, 3000)
        ratios = []
        for size in (8, 64, 512):
            part, part_log_q = p[:size], log_q[:size]
            ratios.append(
                best_time(lambda a=part, b=part_log_q, f=worst: f(a, b), 10)
                / best_time(lambda a=part, b=part_log_q, f=pgd: f(a, b), 10)
            )
        rows.append(
            [
                *(str(num_labels), f"{kl_divergence(p, log_q).mean():.4f}", f"{attained['pgd'].mean():.4f}"),
                *(f"{attained['worst'].mean():.4f}", f"{best.mean():.4f}", f"{(attained['worst'] / best).min():.5f}"),
                ", ".join(f"{ratio:.1f}x" for ratio in ratios),
            ]
        )
    header = [
        "K",
        "human",
        "PGD",
        "worst case",
        "brute force",
        "worst case / brute force, least row",
        "cost at batch 8, 64, 512",
    ]
    print_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--skip-training-step", action="store_true", help="leave out the table that needs the bundled model"
    )
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="Solution may be inaccurate")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    compare_solvers()
    if not args.skip_training_step:
        share_of_training_step()
    compare_attained_kl()


if __name__ == "__main__":
    main()
