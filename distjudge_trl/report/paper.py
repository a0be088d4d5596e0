"""The figures of the paper (NeurIPS 2025 version), to be shown with ours. KL in nats, accuracy in per cent."""

from __future__ import annotations


# Table 1: model, method -> task -> (KL, accuracy).
MAIN: dict[tuple[str, str], dict[str, tuple[float, float]]] = {
    ("GPT-4o-mini", "raw"): {
        "snli": (2.13, 87.0),
        "mnli": (1.88, 84.9),
        "summeval": (5.23, 25.6),
        "mtbench": (5.63, 62.3),
    },
    ("GPT-4o", "raw"): {"snli": (1.75, 85.5), "mnli": (1.16, 84.2), "summeval": (2.82, 35.2), "mtbench": (2.48, 68.5)},
    ("Qwen2.5-7B", "raw"): {
        "snli": (2.08, 83.1),
        "mnli": (1.77, 83.5),
        "summeval": (4.94, 22.7),
        "mtbench": (3.36, 62.0),
    },
    ("Qwen2.5-7B", "single-point"): {
        "snli": (0.60, 92.7),
        "mnli": (0.64, 89.7),
        "summeval": (0.73, 45.6),
        "mtbench": (0.82, 64.0),
    },
    ("Qwen2.5-7B", "distribution"): {
        "snli": (0.23, 93.3),
        "mnli": (0.23, 89.8),
        "summeval": (0.53, 45.9),
        "mtbench": (0.68, 65.4),
    },
    ("LLaMA-3.1-8B", "raw"): {
        "snli": (0.90, 64.9),
        "mnli": (0.67, 70.5),
        "summeval": (3.60, 29.5),
        "mtbench": (1.58, 53.4),
    },
    ("LLaMA-3.1-8B", "single-point"): {
        "snli": (0.69, 92.4),
        "mnli": (0.67, 89.6),
        "summeval": (0.67, 45.7),
        "mtbench": (0.81, 62.1),
    },
    ("LLaMA-3.1-8B", "distribution"): {
        "snli": (0.28, 92.4),
        "mnli": (0.24, 90.0),
        "summeval": (0.51, 47.3),
        "mtbench": (0.74, 62.8),
    },
}

# Table 2: (model, task) -> method -> (KL, accuracy).
ABLATION: dict[tuple[str, str], dict[str, tuple[float, float]]] = {
    ("Qwen2.5-7B", "mnli"): {
        "distribution": (0.23, 89.8),
        "no-adversary": (0.25, 89.0),
        "no-kl": (0.78, 88.4),
        "no-ce": (0.23, 89.0),
    },
    ("Qwen2.5-7B", "summeval"): {
        "distribution": (0.53, 45.9),
        "no-adversary": (0.64, 46.6),
        "no-kl": (0.75, 45.8),
        "no-ce": (0.54, 46.0),
    },
    ("LLaMA-3.1-8B", "mnli"): {
        "distribution": (0.24, 90.0),
        "no-adversary": (0.32, 89.6),
        "no-kl": (0.65, 89.2),
        "no-ce": (0.33, 88.7),
    },
    ("LLaMA-3.1-8B", "summeval"): {
        "distribution": (0.51, 47.3),
        "no-adversary": (0.62, 45.9),
        "no-kl": (0.65, 45.4),
        "no-ce": (0.58, 48.0),
    },
}
ABLATION_NAMES = {
    "distribution": "full",
    "no-adversary": "w/o Adv",
    "no-kl": "w/o KL",
    "no-ce": "w/o CE",
}

# Table 3 (Qwen2.5-7B): task -> method -> radius -> KL; the first and the last radius.
ROBUSTNESS: dict[str, dict[str, dict[float, float]]] = {
    "snli": {
        "single-point": {0.0: 0.715, 0.25: 0.709},
        "no-adversary": {0.0: 0.334, 0.25: 0.346},
        "distribution": {0.0: 0.324, 0.25: 0.336},
    },
    "mnli": {
        "single-point": {0.0: 0.742, 0.25: 0.757},
        "no-adversary": {0.0: 0.271, 0.25: 0.293},
        "distribution": {0.0: 0.243, 0.25: 0.264},
    },
    "summeval": {
        "single-point": {0.0: 0.743, 0.25: 0.836},
        "no-adversary": {0.0: 0.639, 0.25: 0.735},
        "distribution": {0.0: 0.525, 0.25: 0.612},
    },
    "mtbench": {
        "single-point": {0.0: 0.833, 0.25: 0.848},
        "no-adversary": {0.0: 0.831, 0.25: 0.846},
        "distribution": {0.0: 0.675, 0.25: 0.689},
    },
}

# Table 4 (SNLI): items, labels per item -> (KL, accuracy).
BUDGET: dict[tuple[int, int], tuple[float, float]] = {
    (8000, 1): (0.32, 89.1),
    (2667, 3): (0.25, 88.9),
    (1600, 5): (0.29, 89.1),
}

# Table 5: model, method -> task -> KL.
MORE_DATA: dict[tuple[str, str], dict[str, float]] = {
    ("Qwen2.5-7B", "raw"): {"chaosnli": 3.94, "helpsteer2": 3.79, "helpsteer2_pref": 7.65},
    ("Qwen2.5-7B", "single-point"): {"chaosnli": 1.22, "helpsteer2": 0.76, "helpsteer2_pref": 0.57},
    ("Qwen2.5-7B", "distribution"): {"chaosnli": 0.41, "helpsteer2": 0.63, "helpsteer2_pref": 0.49},
    ("LLaMA-3.1-8B", "raw"): {"chaosnli": 0.68, "helpsteer2": 2.50, "helpsteer2_pref": 2.86},
    ("LLaMA-3.1-8B", "single-point"): {"chaosnli": 1.14, "helpsteer2": 0.73, "helpsteer2_pref": 0.51},
    ("LLaMA-3.1-8B", "distribution"): {"chaosnli": 0.43, "helpsteer2": 0.59, "helpsteer2_pref": 0.47},
}

# Table 6 (SNLI to ChaosNLI): model, method -> (KL, accuracy, where given).
TRANSFER: dict[tuple[str, str], tuple[float, float | None]] = {
    ("Qwen2.5-7B", "raw"): (3.94, None),
    ("Qwen2.5-7B", "single-point"): (1.01, 66.5),
    ("Qwen2.5-7B", "distribution"): (0.31, 67.8),
    ("LLaMA-3.1-8B", "raw"): (0.68, None),
    ("LLaMA-3.1-8B", "single-point"): (1.15, 60.3),
    ("LLaMA-3.1-8B", "distribution"): (0.46, 62.7),
}

TITLES = {
    "snli": "SNLI",
    "mnli": "MNLI",
    "summeval": "SummEval",
    "mtbench": "MT-Bench",
    "chaosnli": "ChaosNLI",
    "helpsteer2": "HelpSteer2",
    "helpsteer2_pref": "HelpSteer2-Preference",
    "vader": "VADER",
}
