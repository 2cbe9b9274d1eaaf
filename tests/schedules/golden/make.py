"""Writes torch.json: the learning rates of PyTorch's schedulers, count by count.

Run with PyTorch 2.13: ``python tests/schedules/golden/make.py``.
"""

import json
import warnings
from pathlib import Path

RATE = 0.3
STEPS = 60
ROWS = [
    ("StepLR", {"step_size": 7, "gamma": 0.5}),
    ("StepLR", {"step_size": 1, "gamma": 0.9}),
    ("MultiStepLR", {"milestones": [3, 10, 11, 40], "gamma": 0.3}),
    ("MultiStepLR", {"milestones": [5, 5, 20], "gamma": 0.5}),
    ("ExponentialLR", {"gamma": 0.93}),
    ("PolynomialLR", {"total_iters": 40, "power": 1.0}),
    ("PolynomialLR", {"total_iters": 33, "power": 0.5}),
    ("PolynomialLR", {"total_iters": 70, "power": 3.0}),
    ("LinearLR", {"start_factor": 0.25, "end_factor": 1.0, "total_iters": 10}),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 45}),
    ("CosineAnnealingWarmRestarts", {"T_0": 7, "T_mult": 1, "eta_min": 0.0}),
    ("CosineAnnealingWarmRestarts", {"T_0": 7, "T_mult": 2, "eta_min": 0.03}),
    ("CosineAnnealingWarmRestarts", {"T_0": 1, "T_mult": 3, "eta_min": 0.01}),
    ("OneCycleLR", {"total_steps": 60}),
    ("OneCycleLR", {"total_steps": 60, "pct_start": 0.25, "anneal_strategy": "linear", "div_factor": 10.0}),
    ("OneCycleLR", {"total_steps": 60, "pct_start": 0.37, "three_phase": True, "final_div_factor": 100.0}),
    ("OneCycleLR", {"total_steps": 60, "pct_start": 0.4, "three_phase": True, "anneal_strategy": "linear"}),
    ("SequentialLR", {"warmup": 10, "gamma": 0.9}),
]


def learning_rates(name, options, rate=RATE, steps=STEPS):
    """The learning rate of each of the first updates under a scheduler of torch.optim.lr_scheduler."""
    import torch
    from torch.optim import lr_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=rate)
    if name == "OneCycleLR":
        scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=rate, cycle_momentum=False, **options)
    elif name == "SequentialLR":
        parts = [
            lr_scheduler.LinearLR(optimizer, 0.1, 1.0, options["warmup"]),
            lr_scheduler.ExponentialLR(optimizer, options["gamma"]),
        ]
        scheduler = lr_scheduler.SequentialLR(optimizer, parts, [options["warmup"]])
    else:
        scheduler = getattr(lr_scheduler, name)(optimizer, **options)
    rates = []
    for count in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if count < steps - 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # SequentialLR calls its parts in a way that PyTorch deprecates
                scheduler.step()
    return rates


def main():
    import torch

    rows = [
        json.dumps({"name": name, "options": options, "rates": learning_rates(name, options)}) for name, options in ROWS
    ]
    head = f'{{"torch": {json.dumps(torch.__version__)}, "learning_rate": {RATE}, "rows": [\n'
    Path(__file__).with_name("torch.json").write_text(head + ",\n".join(rows) + "\n]}\n")


if __name__ == "__main__":
    main()
