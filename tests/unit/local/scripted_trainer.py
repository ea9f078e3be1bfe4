"""A trainer that knows the contract and no library: its loss is x + 1/step, so the smallest x is the best trial.

What else it does is told by variables of its environment: `TRACE`, a file to note each step in; `SECONDS_A_STEP`;
`EXIT_1`, `SILENT`, `NAN` and `STUBBORN`, which list trials by their index; and `LOCKS`, a directory in which it holds
one file for each of its GPUs.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

INDEX = os.environ["HALVARD_TRIAL"].rpartition("-")[2].lstrip("0") or "0"


def among(variable: str) -> bool:
    return INDEX in os.environ.get(variable, "").split(",")


def note(step: int) -> None:
    if trace := os.environ.get("TRACE"):
        with Path(trace).open("a") as file:
            file.write(f"{os.environ['HALVARD_TRIAL']} {step} {os.getpid()}\n")


def report(step: int, loss: float) -> None:
    name = f"step-{step}"
    (Path(os.environ["HALVARD_CHECKPOINT_DIR"]) / name).write_text(str(step))
    with Path(os.environ["HALVARD_REPORTS"]).open("a") as file:
        file.write(json.dumps({"step": step, "loss": loss, "checkpoint": name}) + "\n")


def verdict(step: int) -> dict[str, object]:
    """The answer to the report at this step."""
    while True:
        try:
            answer: dict[str, object] = json.loads(Path(os.environ["HALVARD_VERDICT"]).read_text())
        except FileNotFoundError:
            answer = {"step": 0}
        if answer["step"] == step:
            return answer
        time.sleep(0.005)


def hold_gpus() -> list[Path]:
    locks = [Path(os.environ["LOCKS"]) / device for device in os.environ["CUDA_VISIBLE_DEVICES"].split(",")]
    for lock in locks:
        lock.touch(exist_ok=False)  # fails, and the trial with it, where another one holds this GPU
    return locks


def train() -> None:
    x, budget, step = float(os.environ["HALVARD_PARAM_X"]), int(os.environ["HALVARD_BUDGET"]), 0
    if resumed := os.environ["HALVARD_RESUME_FROM"]:
        step = int(Path(resumed).read_text())
    if step != int(os.environ["HALVARD_START"]):
        sys.exit(3)
    while step < budget:
        time.sleep(float(os.environ.get("SECONDS_A_STEP", "0")))
        step += 1
        note(step)
        report(step, float("nan") if among("NAN") else x + 1 / step)
        if step == budget:
            budget = int(str(verdict(step).get("budget", step)))


def main() -> None:
    if among("EXIT_1"):
        print("no such file: data.csv", file=sys.stderr)
        sys.exit(1)
    if among("SILENT"):
        return
    locks = hold_gpus() if "LOCKS" in os.environ else []
    train()
    if among("STUBBORN"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pause()
    for lock in locks:
        lock.unlink()


main()
