"""The crank on one machine: gather from processes, decide, apply strictly in order, one write of the status."""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halvard import clock
from halvard.contract import environment
from halvard.decide import decide
from halvard.events import Ended, Event, Fault, Started
from halvard.local.display import Display, Running, View
from halvard.local.gpus import Gpus
from halvard.local.leftovers import last_events
from halvard.local.narrate import Line, Narrator
from halvard.local.process import Files, Leg, Process
from halvard.local.program import gpus, program
from halvard.local.store import Store
from halvard.plan import Action, Announce, CreateTrial, SaveSpec, SaveStatus, StartLeg, StopLeg
from halvard.progress import Progress
from halvard.status import study_status
from halvard.study import Study
from halvard.template import termination_grace
from halvard.trial import Trial

TICK = 0.05  # seconds between two looks at the processes and their files
SAVE_EVERY = 1.0
SHOW_EVERY = 0.25
INTERRUPT_GRACE = 5.0
NOT_STARTED = Fault("NotStarted", "stopped before it began", counted=False)


@dataclass(frozen=True, slots=True)
class Job:
    """What to run: the study, its manifest as written, and the folder the trainers run in."""

    study: Study
    manifest: Mapping[str, Any]
    folder: Path


class Runner:
    """Runs one study from where its store stands until it is over or interrupted."""

    def __init__(self, job: Job, store: Store, devices: Gpus, display: Display) -> None:
        """Fold the store."""
        trials = store.trials()
        running = [trial for trial in trials if not trial.finished and _files(store, trial).leg.exists()]
        self._job, self._store, self._gpus, self._display = job, store, devices, display
        self._progress = Progress(job.study, trials, {(t.index, t.attempt): True for t in running}, resumable=True)
        self._narrator = Narrator(job.study, trials)
        stdout = job.study.spec.collector.stdout
        self._pattern = stdout.pattern if stdout else None
        self._gpus_of_a_leg = gpus(job.study.spec.template) if devices.total else 0
        self._grace = termination_grace(job.study.spec.template)
        self._processes: dict[tuple[int, int], Process] = {}
        self._waiting: deque[StartLeg] = deque()
        self._news: list[Event] = [e for t in running for e in last_events(t, _files(store, t), self._pattern)]
        self._wake_at: float | None = 0.0
        self._unsaved = False
        self._saved_at = self._shown_at = 0.0
        self.interrupted = False

    async def run(self) -> Progress:
        """Turns the crank until nothing is left to do; SIGINT and SIGTERM end it early, with everything stored."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.interrupt)
        try:
            self._turn(clock.now())
            while not self._idle():
                await asyncio.sleep(TICK)
                self._turn(clock.now())
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            for process in self._processes.values():
                process.kill()  # there are some only where an error ends the run
            self._save(clock.now())
        return self._progress

    def interrupt(self) -> None:
        """Suspends the study: every attempt ends and its leg waits for the next run; the second time, without grace."""
        now = clock.now()
        grace = 0.0 if self.interrupted else INTERRUPT_GRACE
        if not self.interrupted:
            self.interrupted = True
            self._display.tell(Line("", "study", "interrupted: ending what runs, a moment"))
            spec = self._progress.study.spec.model_copy(update={"suspend": True})
            self._progress.update_study(self._progress.study.model_copy(update={"spec": spec}))
            self._wake_at = now
            self._turn(now)  # it decides to stop them before they are stopped, so that no end is taken for a failure
        for process in self._processes.values():
            process.stop(now, grace)

    def _idle(self) -> bool:
        """Whether nothing can happen any more: no process, no leg, and nothing due."""
        busy = self._processes or self._waiting or self._news
        return not busy and (self._progress.outcome is not None or self._wake_at is None)

    def _turn(self, now: float) -> None:
        events = list(self._gather(now))
        if events or (self._wake_at is not None and now >= self._wake_at):
            plan = decide(self._progress, events, now)
            for action in plan.actions:
                self._apply(action, now)
            self._wake_at = plan.wake_at
            self._unsaved = True
        self._start_waiting(now)
        for (index, attempt), process in self._processes.items():
            if verdict := self._progress.verdict(index, attempt, process.step):
                process.answer(verdict)
        if self._unsaved and now >= self._saved_at + SAVE_EVERY:
            self._save(now)
        if now >= self._shown_at + SHOW_EVERY:
            self._shown_at = now
            self._display.show(self._view)

    def _gather(self, now: float) -> Iterator[Event]:
        yield from self._news
        self._news.clear()
        spec = self._job.study.spec
        for key, process in list(self._processes.items()):
            nothing = f"reported no {spec.objective.metric} at step {process.leg.budgets[-1]} or beyond"
            for event in process.gather(now, nothing):
                yield event
                if isinstance(event, Ended):
                    del self._processes[key]
                    self._gpus.take_back(process.leg.devices)
            if complaint := process.complaint():
                name = self._progress.trials[key[0]].name
                self._display.tell(Line(name, "warning", f"a line that is no report is passed over: {complaint}"))

    def _apply(self, action: Action, now: float) -> None:
        match action:
            case CreateTrial(trial) | SaveSpec(trial) | SaveStatus(trial):
                self._store.save_trial(trial)
            case StartLeg():
                self._waiting.append(action)
                return  # told when it starts
            case StopLeg(trial, attempt):
                self._stop((trial.index, attempt), now)
            case Announce():
                pass  # only told
        for line in self._narrator.lines(action):
            self._display.tell(line)

    def _stop(self, key: tuple[int, int], now: float) -> None:
        if process := self._processes.get(key):
            process.stop(now, self._grace)
        for leg in [leg for leg in self._waiting if (leg.trial.index, leg.trial.attempt) == key]:
            self._waiting.remove(leg)
            self._news.append(Ended(*key, at=now, fault=NOT_STARTED))

    def _start_waiting(self, now: float) -> None:
        """Start legs in the order in which they were decided, as far as there are GPUs for them."""
        while self._waiting and (devices := self._gpus.lend(self._gpus_of_a_leg)) is not None:
            leg = self._waiting.popleft()
            try:
                self._start(leg, devices, now)
            except OSError as error:
                self._gpus.take_back(devices)
                fault = Fault("CannotStart", f"the command cannot be run: {error}", counted=True)
                self._news.append(Ended(leg.trial.index, leg.trial.attempt, at=now, fault=fault))

    def _start(self, action: StartLeg, devices: tuple[str, ...], now: float) -> None:
        trial, study = action.trial, self._job.study
        files = _files(self._store, trial)
        files.checkpoints.mkdir(parents=True, exist_ok=True)
        contract = environment(
            study,
            trial,
            action.start,
            reports=str(files.reports),
            verdict=str(files.verdict),
            checkpoint_dir=str(files.checkpoints),
            resume_from=self._resume_from(action),
        )
        inherited = {**os.environ, **({"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {})}
        what = program(study.spec.template, contract, inherited)
        leg = Leg(start=action.start, budgets=[trial.spec.budget], started=now, devices=list(devices))
        key = trial.index, trial.attempt
        self._processes[key] = Process(key, leg, what, files, folder=self._job.folder, pattern=self._pattern)
        self._news.append(Started(*key, at=now, gpus=len(devices)))
        for line in self._narrator.lines(action):
            self._display.tell(line)

    def _resume_from(self, action: StartLeg) -> str:
        if action.resume is None:
            return ""
        written_by = Files(self._store.attempt(action.trial.name, action.resume.attempt))
        return str(written_by.checkpoints / action.resume.name)

    def _save(self, now: float) -> None:
        """The one write of the status, for people; the study keeps it so that conditions keep their times."""
        status = study_status(self._progress, now)
        self._progress.update_study(self._progress.study.model_copy(update={"status": status}))
        self._store.save_study(self._job.manifest, status)
        budgets = [rung.budget for rung in status.rungs]
        self._store.save_table(self._job.study, self._progress.trials.values(), budgets)
        self._unsaved, self._saved_at = False, now

    def _view(self) -> View:
        rows = (self._row(key, process) for key, process in self._processes.items())
        running = tuple(row for row in rows if row is not None)
        return View(self._job.study, study_status(self._progress, clock.now()), running, len(self._waiting))

    def _row(self, key: tuple[int, int], process: Process) -> Running | None:
        """None for a process that was told to leave."""
        trial = self._progress.trials[key[0]]
        if trial.attempt != key[1] or trial.finished:
            return None
        curve = trial.status.curve
        return Running(trial, process.step, curve[-1].value if curve else None, tuple(process.leg.devices))


def _files(store: Store, trial: Trial) -> Files:
    return Files(store.attempt(trial.name, trial.attempt))
