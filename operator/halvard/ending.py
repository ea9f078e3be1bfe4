"""When a study is over, and how: its limits, its target, or nothing left to do. Pure."""

import re

from halvard.progress import Outcome, Progress
from halvard.trial import Trial


def ending(progress: Progress, now: float) -> Outcome | None:
    """How the study ends now, whatever still runs; None while it goes on. The first rule that applies wins."""
    spec = progress.study.spec
    objective, limits = spec.objective, spec.limits
    if progress.target_reached:
        message = f"{progress.target_reached} reached the target of {objective.target:g} for {objective.metric}"
        return Outcome("Complete", "TargetReached", message)
    if len(progress.failed) > limits.failed_trials:
        message = f"{len(progress.failed)} trials failed; limits.failedTrials is {limits.failed_trials}"
        return Outcome("Failed", "TooManyFailedTrials", message)
    if fatal := _fatal(progress):
        return Outcome("Failed", "FailurePolicy", f"{fatal.name} failed: {fatal.status.message}")
    return out_of_time(progress, now)


def out_of_time(progress: Progress, now: float) -> Outcome | None:
    """How the study ends now because of the time that it took, whatever its trials have brought."""
    limits = progress.study.spec.limits
    if (end := deadline(progress)) is not None and now >= end:
        return Outcome("Complete", "DurationReached", f"limits.duration of {limits.duration} is over")
    if limits.gpu_hours is not None and progress.gpu_seconds(now) >= limits.gpu_hours * 3600:
        return Outcome("Complete", "GPUHoursReached", f"limits.gpuHours of {limits.gpu_hours:g} are used")
    return None


def _fatal(progress: Progress) -> Trial | None:
    """The first trial that failed as, by the failure policy, none may."""
    policy = progress.study.spec.failure_policy
    if policy is None:
        return None
    failed = (progress.trials[index] for index in sorted(progress.failed))
    return next((trial for trial in failed if policy.action(trial.status.exit_code) == "FailStudy"), None)


def exhausted(progress: Progress) -> Outcome:
    """How a study ends that has nothing left to run, nor anything to start."""
    limit, total = progress.study.spec.limits.trials, len(progress.trials)
    if not any(_has_value(trial) for trial in progress.trials.values()):
        metric = progress.study.spec.objective.metric
        return Outcome("Failed", "NoResult", f"none of {total} trials reported a finite {metric}")
    if limit is not None and total >= limit:
        others = "were stopped" if progress.study.spec.scheduler.interval else "were not promoted"
        return Outcome("Complete", "TrialsFinished", f"all {total} trials are finished or {others}")
    return Outcome("Complete", "SearchSpaceExhausted", f"the sampler has no more than these {total} trials")


def _has_value(trial: Trial) -> bool:
    """Whether it has a finite result, or was stopped on its way to one with a finite report."""
    if any(result.value is not None for result in trial.status.rungs):
        return True
    return trial.status.state == "Stopped" and any(point.value is not None for point in trial.status.curve)


def deadline(progress: Progress) -> float | None:
    """When `limits.duration` is over, in seconds since the epoch; None without that limit."""
    duration = progress.study.spec.limits.duration
    if duration is None or progress.started_at is None:
        return None
    return progress.started_at + duration_seconds(duration)


def gpu_deadline(progress: Progress, now: float) -> float | None:
    """When `limits.gpuHours` will be used up if what runs now runs on; None without that limit or without GPUs.

    A moment later, in truth: waking up before all digits that are counted say so would mean waking up again and again.
    """
    hours = progress.study.spec.limits.gpu_hours
    gpus = sum(live.gpus for live in progress.live.values() if live.since is not None)
    if hours is None or not gpus:
        return None
    return now + max(0.0, hours * 3600 - progress.gpu_seconds(now)) / gpus + 0.01


def duration_seconds(text: str) -> float:
    """Seconds of a duration such as `12h` or `1h30m`."""
    units = {"h": 3600, "m": 60, "s": 1}
    return float(sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", text)))
