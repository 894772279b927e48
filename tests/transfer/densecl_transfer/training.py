"""The loop that both tasks share: batches without end, an optimiser, a schedule, a log."""

from __future__ import annotations

import random
import sys
import time
from typing import Any, Callable, Iterator

import numpy
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from .protocol import Training

LOG_EVERY = 50


def seed_everything(seed: int) -> None:
    """The same numbers in every run: weights, order of images, augmentation."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


class EndlessOrder(Sampler[int]):
    """Every image once per round, in an order of its own each round; `count` numbers in all."""

    def __init__(self, images: int, count: int, seed: int) -> None:
        self.images, self.count, self.seed = images, count, seed

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        given = 0
        while given < self.count:
            for index in torch.randperm(self.images, generator=generator).tolist()[:self.count - given]:
                yield index
                given += 1


def seed_worker(_: int) -> None:
    """torch seeds itself in a loading process; Python's and NumPy's generators follow it."""
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    numpy.random.seed(seed)


def batches(data: Dataset, training: Training, seed: int, collate: Callable[[list], Any]) -> DataLoader:
    """As many batches as there are iterations."""
    order = EndlessOrder(len(data), training.iterations * training.batch, seed)
    return DataLoader(data, batch_size=training.batch, sampler=order, num_workers=training.workers,
                      collate_fn=collate, worker_init_fn=seed_worker,
                      generator=torch.Generator().manual_seed(seed))


def rate(training: Training, iteration: int) -> float:
    """Share of the learning rate at an iteration, counted from 0."""
    warmup = min(1.0, (iteration + 1) / training.warmup_iterations) if training.warmup_iterations else 1.0
    share = iteration / training.iterations
    if training.schedule == "poly":
        return warmup * (1.0 - share) ** 0.9
    return warmup * 0.1 ** sum(share >= mark for mark in training.marks)


def optimizer_of(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The protocol's optimiser for all parameters that are not frozen."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
    if training.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **options)
    return torch.optim.SGD(parameters, momentum=0.9, **options)


def train(model: nn.Module, loader: DataLoader, training: Training,
          loss_of: Callable[[nn.Module, Any], torch.Tensor], label: str) -> list[float]:
    """Trains the model; returns the loss of every iteration.

    Raises FloatingPointError where the loss is no number any more.
    """
    optimizer = optimizer_of(model, training)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: rate(training, i))
    model.train()
    losses, began = [], time.monotonic()
    for iteration, batch in enumerate(loader):
        loss = loss_of(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if not numpy.isfinite(losses[-1]):
            raise FloatingPointError(f"{label}: the loss of iteration {iteration} is {losses[-1]}")
        if (iteration + 1) % LOG_EVERY == 0:
            pace = (iteration + 1) * training.batch / (time.monotonic() - began)
            print(f"{label}: {iteration + 1} of {training.iterations}, loss "
                  f"{numpy.mean(losses[-LOG_EVERY:]):.3f}, {pace:.1f} images/s", file=sys.stderr, flush=True)
    return losses
