"""The adversary on the device and on the CPU: it attains the same, and what it costs."""

from __future__ import annotations

from gpu_checks.check import Check, Findings


def adversary(find: Findings) -> None:
    import torch
    from benchmarks.adversary import annotations, best_time

    from distjudge_trl.objective import PGDAdversary, WorstCaseAdversary, kl_divergence

    def milliseconds(attack: object, p: torch.Tensor, log_q: torch.Tensor) -> float:
        def call() -> None:
            attack(p, log_q)  # type: ignore[operator]
            if p.is_cuda:
                torch.cuda.synchronize()

        return 1e3 * best_time(call, 20)

    device = find.machine.device
    for rows, labels in ((16, 3), (16, 5), (16, 9), (64, 9)):
        p, log_q = annotations(rows, labels)
        for attack in (PGDAdversary(0.25), WorstCaseAdversary(0.25)):
            here, there = attack(p, log_q), attack(p.to(device), log_q.to(device)).cpu()
            name = f"{type(attack).__name__.removesuffix('Adversary')} {rows} x {labels}"
            # Of what is attained: two targets may be as bad as each other.
            worst = (kl_divergence(here, log_q) - kl_divergence(there, log_q)).abs().max().item()
            find.expect(worst <= 1e-5, f"{name}: KL differs by {worst:.1e} between {device} and the CPU")
            on_device = milliseconds(attack, p.to(device), log_q.to(device))
            find.figure(f"{name}, ms", f"{on_device:.2f} on {device}, {milliseconds(attack, p, log_q):.2f} on the CPU")


CHECKS = [
    Check(
        "adversary",
        "the KL that it attains on the device is the CPU's within 1e-5; milliseconds a batch (about 2-5 on a GPU)",
        adversary,
        limit=120,
    ),
]
