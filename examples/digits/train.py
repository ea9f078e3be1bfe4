"""One trial of the digits study: a small network that learns to read handwritten digits, in numpy alone.

Every pass over the data is one unit of budget. What is random in pass n depends on the trial's seed and n alone, so a
trial that was paused and resumed from its checkpoint ends with exactly the numbers of one that was never disturbed.
"""

import os

# Before numpy is imported: trials share the machine, each takes one core.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from halvard_trainer import Trial

Array = NDArray[np.float32]
Weights = dict[str, Array]

TRAINING_IMAGES = 1347
SHIFTS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]


def load_digits() -> tuple[Array, NDArray[np.int64], Array, NDArray[np.int64]]:
    """Training images and labels, then validation images and labels; pixels are in [0, 1]."""
    table = np.loadtxt(Path(__file__).parent / "digits.csv.gz", delimiter=",", dtype=np.float32)
    images, labels = table[:, :64] / 16, table[:, 64].astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    training, validation = order[:TRAINING_IMAGES], order[TRAINING_IMAGES:]
    return images[training], labels[training], images[validation], labels[validation]


def shifted(images: Array) -> Array:
    """The images, and each of them moved by a pixel in all eight directions: nine times as many."""
    square = images.reshape(-1, 8, 8)
    return np.concatenate([np.roll(square, shift, axis=(1, 2)) for shift in SHIFTS]).reshape(-1, 64)


def new_network(layers: int, hidden: int, rng: np.random.Generator) -> Weights:
    """Random weights of `layers` hidden layers of ReLU units (He et al., 2015) and ten outputs."""
    sizes = [64, *[hidden] * layers, 10]
    weights = {}
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        scale = np.sqrt(2 / inputs)
        weights[f"w{i}"] = (scale * rng.standard_normal((inputs, outputs))).astype(np.float32)
        weights[f"b{i}"] = np.zeros(outputs, np.float32)
    return weights


def forward(weights: Weights, images: Array) -> list[Array]:
    """What every layer gets as input, and last the log-probability of each digit."""
    activations = [images]
    depth = len(weights) // 2
    for i in range(depth - 1):
        activations.append(np.maximum(activations[-1] @ weights[f"w{i}"] + weights[f"b{i}"], 0))
    scores = activations[-1] @ weights[f"w{depth - 1}"] + weights[f"b{depth - 1}"]
    scores -= scores.max(axis=1, keepdims=True)
    return [*activations, scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))]


def gradients(weights: Weights, images: Array, labels: NDArray[np.int64]) -> Weights:
    """The slope of the mean cross-entropy along every weight, by backpropagation."""
    *activations, log_probabilities = forward(weights, images)
    delta = np.exp(log_probabilities)
    delta[np.arange(len(labels)), labels] -= 1
    delta /= len(labels)
    slopes = {}
    for i in reversed(range(len(activations))):
        slopes[f"w{i}"], slopes[f"b{i}"] = activations[i].T @ delta, delta.sum(axis=0)
        delta = (delta @ weights[f"w{i}"].T) * (activations[i] > 0)
    return slopes


class Sgd:
    """Stochastic gradient descent with momentum."""

    def __init__(self, lr: float, momentum: float) -> None:
        self.lr, self.momentum = lr, momentum
        self.state: Weights = {}

    def update(self, weights: Weights, slopes: Weights) -> None:
        for name, slope in slopes.items():
            velocity = self.momentum * self.state.get(name, np.float32(0)) - self.lr * slope
            self.state[name] = velocity
            weights[name] += velocity


class Adam:
    """Adam (Kingma and Ba, 2015)."""

    def __init__(self, lr: float) -> None:
        self.lr = lr
        self.state: Weights = {"count": np.zeros((), np.float32)}

    def update(self, weights: Weights, slopes: Weights) -> None:
        self.state["count"] = count = self.state["count"] + np.float32(1)
        for name, slope in slopes.items():
            self.state[f"m-{name}"] = m = 0.9 * self.state.get(f"m-{name}", np.float32(0)) + 0.1 * slope
            self.state[f"v-{name}"] = v = 0.999 * self.state.get(f"v-{name}", np.float32(0)) + 0.001 * slope**2
            weights[name] -= self.lr * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)


def new_optimizer(parameters: dict[str, object]) -> Sgd | Adam:
    """The optimizer that the trial's parameters name; `momentum` exists only for sgd."""
    if parameters["optimizer"] == "sgd":
        return Sgd(parameters["lr"], parameters["momentum"])
    return Adam(parameters["lr"])


def save(path: Path, weights: Weights, optimizer: Sgd | Adam) -> None:
    """Everything that the next pass depends on."""
    with path.open("wb") as file:
        np.savez(
            file,
            **{f"weights-{k}": v for k, v in weights.items()},
            **{f"state-{k}": v for k, v in optimizer.state.items()},
        )


def load(path: Path, optimizer: Sgd | Adam) -> Weights:
    """The weights that were saved; the optimizer takes up its state again."""
    with np.load(path) as saved:
        optimizer.state = {k.removeprefix("state-"): saved[k] for k in saved if k.startswith("state-")}
        return {k.removeprefix("weights-"): saved[k] for k in saved if k.startswith("weights-")}


def main() -> None:
    trial = Trial.from_environment()
    parameters = trial.parameters
    images, labels, validation_images, validation_labels = load_digits()
    images, labels = shifted(images), np.tile(labels, len(SHIFTS))

    optimizer = new_optimizer(parameters)
    if trial.resume_from:
        weights = load(trial.resume_from, optimizer)
    else:
        weights = new_network(parameters["layers"], parameters["hidden"], np.random.default_rng(trial.seed))

    for epoch in trial.steps():
        order = np.random.default_rng([trial.seed, epoch]).permutation(len(images))
        for batch in np.array_split(order, len(order) // parameters["batch_size"]):
            slopes = gradients(weights, images[batch], labels[batch])
            decayed = {name: slope + parameters["weight_decay"] * weights[name] for name, slope in slopes.items()}
            optimizer.update(weights, decayed)
        log_probabilities = forward(weights, validation_images)[-1]
        loss = -log_probabilities[np.arange(len(validation_labels)), validation_labels].mean()
        error = (log_probabilities.argmax(axis=1) != validation_labels).mean()
        print(f"epoch {epoch}: val_loss {loss:.4f} val_error {error:.4f}", flush=True)
        trial.report(val_loss=loss, val_error=error, checkpoint=lambda path: save(path, weights, optimizer))


if __name__ == "__main__":
    with np.errstate(
        over="ignore", invalid="ignore", divide="ignore"
    ):  # a learning rate too high ends in NaN: report it
        main()
