"""The rules that turn events into actions, one turn of a study at a time: pure, but for advancing `Progress`.

Events are handled one by one, each followed by the decisions it makes possible, so that decisions depend on the order
of events and never on how they were batched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from halvard import lifecycle, starting
from halvard.ending import deadline, ending, exhausted, gpu_deadline, out_of_time
from halvard.events import Avoids, Ended, Event, Fault, LeftBehind, Outdated, Placed, Reported, Started, Stuck
from halvard.faults import METRICS_UNAVAILABLE, VANISHED
from halvard.judging import Judgement, back_off, judge, recall, retried
from halvard.plan import Action, Announce, CreateTrial, Plan, SaveSpec, SaveStatus, StopLeg
from halvard.progress import TEMPLATE_CHANGED, Live, Outcome, Progress
from halvard.template import termination_grace
from halvard.trial import Trial
from halvard.tuner import Leg

STATE_DELAY = 5.0  # seconds: a leg that is over sooner never has its Running written
PROGRESS_DELAY = 30.0
FREE_TO_GO = "it may run on more nodes by now"  # which its Pod, made before, does not know


def decide(progress: Progress, events: Sequence[Event], now: float) -> Plan:
    """Advance `progress` by one turn and return what is to be done. `now`: seconds since the epoch."""
    turn = _Turn(progress, now)
    fresh = progress.fresh
    turn.note_ends(events)
    if fresh:
        recall(progress, events, now)
    turn.begin()
    if fresh:  # what runs is known before anything is decided, or a study that ends now would lose its time
        for event in events:
            if isinstance(event, Placed | Avoids | Started):
                turn.take(event)
        if turn.active and out_of_time(progress, now):  # what came while nobody listened counts all the same
            for event in events:
                if isinstance(event, Reported):
                    turn.take(event)
        turn.choose()
    for event in events:
        turn.handle(event)
    turn.settle()
    return Plan(tuple(turn.actions), turn.wake_at(), turn.repeated, tuple(turn.faults), tuple(turn.results))


@dataclass(slots=True)
class _Turn:
    progress: Progress
    now: float
    actions: list[Action] = field(default_factory=list)
    repeated: int = 0
    faults: list[Fault] = field(default_factory=list)
    results: list[Reported] = field(default_factory=list)
    begun: set[int] = field(default_factory=set)  # by now only in this plan: what is told is of a Pod that vanished

    @property
    def active(self) -> bool:
        """Whether anything is to run."""
        return self.progress.outcome is None and not self.progress.study.spec.suspend

    def begin(self) -> None:
        """The first turn of a study starts its clock; the first after a fold takes stock."""
        if self.progress.started_at is None:
            self.progress.started_at = self.now
            self._announce("Started", "the study has started")
        if self.progress.fresh:
            self.progress.fresh = False
            self._take_stock()

    def _take_stock(self) -> None:
        """Notice what the stored trials do not say: attempts that are gone, promotions that wait for a Pod."""
        for index in sorted(self.progress.assigned):
            trial = self.progress.trials[index]
            if trial.status.state == "Running" and index not in self.progress.live:
                self._faulted(retried(self.progress, trial, VANISHED))
            elif trial.status.state == "Paused":
                self._await_pod(trial)

    # --- events ---------------------------------------------------------------------------------------------------

    def note_ends(self, events: Sequence[Event]) -> None:
        """None is taken to have run on whose end this turn is told of, also before it comes to that."""
        for event in events:
            live, trial = self.progress.live.get(event.trial), self.progress.trials.get(event.trial)
            if isinstance(event, Ended) and live and trial and event.attempt == trial.attempt:
                live.until = event.at

    def handle(self, event: Event) -> None:
        """One event, and every decision that it makes possible."""
        if self.take(event):
            self.choose()

    def take(self, event: Event) -> bool:
        """Learn what happened; False where it concerns no attempt that is believed."""
        trial = self.progress.trials.get(event.trial)
        live = self._live(trial, event)
        if trial is None or live is None:
            self._not_believed(trial, event)
            return False
        match event:
            case Placed():
                self.progress.placed(live, (trial.index, trial.attempt), event.node)
            case Avoids():
                live.avoids = event.nodes
            case Started():
                self._started(trial, live, event)
            case Reported():
                self._reported(trial, live, event)
            case Stuck():
                live.stuck = event.fault
            case Outdated():
                live.stopping = live.stopping or TEMPLATE_CHANGED
            case LeftBehind():
                self._left_behind(trial)
            case Ended():
                self._ended(trial, live, event)
        return True

    def _live(self, trial: Trial | None, event: Event) -> Live | None:
        """The attempt that an event is of, if it is believed; also one that was asked for in vain, as it seemed.

        The latter is known by its node: what only its sidecar tells of may have vanished.
        """
        if trial is None or trial.finished or event.attempt != trial.attempt or event.trial in self.begun:
            return None
        if trial.assigned and isinstance(event, Placed | Started) and event.node:
            return self.progress.live.setdefault(event.trial, Live())
        return self.progress.live.get(event.trial)

    def _not_believed(self, trial: Trial | None, event: Event) -> None:
        """An attempt that is over has to leave, and makes room when it has.

        It may be new: a leader that was paused, and does not know yet that it is none, starts what was due back then.
        """
        if isinstance(event, Ended):
            self.progress.leaving.pop((event.trial, event.attempt), None)
            self._unblock()
        elif trial is not None and (trial.finished or event.attempt < trial.attempt):
            self.progress.leaving.setdefault((event.trial, event.attempt), None)

    def _started(self, trial: Trial, live: Live, event: Started) -> None:
        last = trial.status.rungs[-1] if trial.status.rungs else None
        by_kubelet = bool(event.node)  # which knows: a sidecar that was started again counts anew
        if live.since is None or (by_kubelet and not (last and last.attempt == trial.attempt)):
            live.since = max(event.at, last.at.timestamp() if last else 0.0)
        live.gpus, live.stuck = event.gpus, None
        self.progress.placed(live, (trial.index, trial.attempt), event.node)
        if trial.status.state == "Pending":
            self._replace(lifecycle.started(trial))
            self.progress.unsaved.note(trial.index, self.now + STATE_DELAY)

    def _reported(self, trial: Trial, live: Live, event: Reported) -> None:
        spec = self.progress.study.spec
        objective, interval = spec.objective.metric, spec.scheduler.interval
        if event.report.step <= live.step:
            self.repeated += 1  # or it went backwards: only the first report of a step counts
            return
        if self.progress.resumable and not live.step and (why := lifecycle.fell_back(trial, event.report.step)):
            trial = lifecycle.noted(trial, why)
            self._announce("CheckpointNotUsed", f"{trial.name}: {why}", warning=True)
        live.step = event.report.step
        self.progress.heard(live, (trial.index, trial.attempt))
        if self.progress.resumable and lifecycle.saved_more(trial, event.report):
            trial = lifecycle.progressed(trial)
        known = len(trial.status.curve)
        trial = self._replace(lifecycle.reported(trial, event.report, objective, interval, pod=event.pod))
        decides = interval is not None and len(trial.status.curve) > known
        value = event.report.metrics.get(objective)
        if value is None or not trial.assigned or (event.report.step < trial.spec.budget and not decides):
            self.progress.unsaved.note(trial.index, self.now + PROGRESS_DELAY)
        elif event.report.step < trial.spec.budget:
            self._decide_report(trial, live, event, value)
        else:
            self._completed(trial, live, event, value)

    def _completed(self, trial: Trial, live: Live, event: Reported, value: float) -> None:
        seconds, gpu_seconds = self._spend(live, event.at)
        order = self.progress.tuner.tell(trial.index, event.report.step, lifecycle.finite(value), seconds).order
        self._replace(lifecycle.completed_rung(trial, value, seconds, gpu_seconds, event.at, order=order))
        self.progress.assigned.discard(trial.index)
        self.progress.awaiting.add(trial.index)
        self.results.append(event)
        if self.progress.hits_target(lifecycle.finite(value)):
            self.progress.target_reached = trial.name

    def _decide_report(self, trial: Trial, live: Live, event: Reported, value: float) -> None:
        """Store a report from before the budget together with what follows from it: going on, or the end for good.

        At once, as later decisions rest on it. Who is stopped leaves when it hears of it, but its slot is free now.
        """
        answer = self.progress.tuner.tell(trial.index, event.report.step, lifecycle.finite(value))
        if not answer.stop:
            self._save(trial)
            return
        trial = self._lose(trial, live, event.at)
        order = self.progress.tuner.withdraw(trial.index)
        self._save(lifecycle.ended(trial, "Stopped", f"stopped: {answer.why}", order=order))
        self.progress.assigned.discard(trial.index)
        self._leave(trial)

    def _left_behind(self, trial: Trial) -> None:
        """Its Pod is to go; its collector still has the last word, and then it is judged by how its trainer ended."""
        if (trial.index, trial.attempt) not in self.progress.leaving:
            self._stop(trial, "its trainer has ended")

    def _ended(self, trial: Trial, live: Live, event: Ended) -> None:
        del self.progress.live[trial.index]
        if self.progress.leaving.pop((trial.index, trial.attempt), None):  # left behind, where it is not `stopping`
            event = replace(event, fault=event.own or event.fault)
        self._unblock()
        trial = self._lose(trial, live, event.at)
        if not trial.assigned:
            self._replace(lifecycle.requeued(trial, "it ended before the verdict", fault=False))
        elif live.stopping:
            self._save(lifecycle.requeued(trial, live.stopping, fault=False))
        elif event.fault.reason == METRICS_UNAVAILABLE and lifecycle.did_nothing_more(trial):
            # It left before it could learn that it was promoted. The next attempt may not, or it would go on for ever.
            self._save(lifecycle.requeued(trial, "it ended before the verdict", fault=False))
        else:
            self._faulted(judge(self.progress, trial, live, event, self.now))

    def _faulted(self, judgement: Judgement) -> None:
        trial, fault = judgement.trial, judgement.fault
        self.faults.append(fault)
        if fault.counted:
            self._fail(trial, fault)
        else:
            self.progress.retry_at[trial.index] = self.now + back_off(trial)
            self._save(lifecycle.requeued(trial, lifecycle.describe(fault), fault=True))
            self._announce("LegRunsAgain", f"{trial.name}: {lifecycle.describe(fault)}", warning=True)
        for reason, message in judgement.warnings:
            self._announce(reason, message, warning=True)

    def _fail(self, trial: Trial, fault: Fault) -> None:
        message, order = lifecycle.describe(fault), self.progress.tuner.withdraw(trial.index)
        self._save(lifecycle.ended(trial, "Failed", message, order=order, exit_code=fault.exit_code))
        self.progress.assigned.discard(trial.index)
        self.progress.failed.add(trial.index)
        self._announce("TrialFailed", f"{trial.name}: {message}", warning=True)

    # --- decisions ------------------------------------------------------------------------------------------------

    def choose(self) -> None:
        """Ask the tuner what to run next, settle the trials that wait for a verdict, and start what is to run."""
        progress, spec = self.progress, self.progress.study.spec
        active = self.active
        outcome = ending(progress, self.now) if active else None
        legs = self._ask() if active and outcome is None else []
        promoted = {leg.index: leg for leg in legs}
        for index in sorted(progress.awaiting):
            self._settle_result(progress.trials[index], promoted.get(index))
        progress.awaiting.clear()
        for leg in legs:
            self._assign(leg)
        if active and outcome is None and not progress.assigned and spec.parallelism > 0:
            outcome = exhausted(progress)
        if outcome:
            self._finish(outcome)
        elif active:
            self._start_waiting()

    def _ask(self) -> list[Leg]:
        """Ask the tuner for every free slot: for all promotions that are due, and for new trials that can start now.

        A promotion is due whether or not there is room, and may go on where it has just reported. What a new trial is
        to try is chosen no earlier than it has to be.
        """
        progress, legs = self.progress, list[Leg]()
        free = progress.study.spec.parallelism - len(progress.assigned)
        room = starting.unqueued(progress) - len(starting.waiting(progress, self.now)) if free > 0 else 0
        while len(legs) < free and (leg := progress.tuner.ask(new_trials=room > 0)):
            room -= leg.index not in progress.live
            legs.append(leg)
        return legs

    def _settle_result(self, trial: Trial, leg: Leg | None) -> None:
        """Store a result together with what follows from it: going on in the same attempt, a pause, or the end.

        Where that attempt is gone by now, a promotion follows a pause: its number is not to have a second Pod.
        """
        if leg is not None and trial.index in self.progress.live:
            self._save(trial)
            return
        if trial.spec.budget >= self.progress.tuner.max_budget:
            self._save(lifecycle.ended(trial, "Complete", f"finished the full budget of {trial.spec.budget}"))
        else:
            self._save(lifecycle.paused(trial, "paused: " + self.progress.tuner.explain(trial.index, trial.done)))
        self._leave(trial)

    def _assign(self, leg: Leg) -> None:
        """Store a decision of the tuner: a new trial, or a higher budget for one that has a result."""
        known = self.progress.trials.get(leg.index)
        if known is None:
            trial = self._replace(lifecycle.new_trial(self.progress.study.name, leg.trial_spec()))
            self.actions.append(CreateTrial(trial))
            self._watch_sampler(leg)
        else:
            hot = leg.index in self.progress.live
            trial = self._replace(lifecycle.promoted(known, leg.trial_spec()))
            self.actions.append(SaveSpec(trial, hot=hot))
            if not hot:
                self._await_pod(trial)
        self.progress.assigned.add(leg.index)

    def _watch_sampler(self, leg: Leg) -> None:
        """Tell once that the sampler fails; every trial's decision says so too."""
        if leg.sampler_failed and not self.progress.sampler_failed:
            self._announce("SamplerFailed", f"trial {leg.index}: {leg.decision}", warning=True)
        self.progress.sampler_failed = leg.sampler_failed

    def _await_pod(self, trial: Trial) -> None:
        self._replace(lifecycle.waiting(trial))
        self.progress.unsaved.note(trial.index, self.now + STATE_DELAY)

    def _start_waiting(self) -> None:
        for leg in starting.start(self.progress, self.now):
            self.begun.add(leg.trial.index)
            self.actions.append(leg)

    # --- the study as a whole -------------------------------------------------------------------------------------

    def settle(self) -> None:
        """What holds for the study as a whole, whether or not something happened."""
        self._follow_suspension()
        self.choose()
        self._stop_surplus()
        self._stop_lingering()
        self._save_due()

    def _follow_suspension(self) -> None:
        suspend = self.progress.study.spec.suspend
        if self.progress.outcome is None and suspend != self.progress.suspended:
            self.progress.suspended = suspend
            self._announce(
                "Suspended" if suspend else "Resumed", "spec.suspend was " + ("set" if suspend else "cleared")
            )

    def _finish(self, outcome: Outcome) -> None:
        """End the study: what still runs is stopped, what waits at a rung stays as it is."""
        self.progress.outcome, self.progress.ended_at = outcome, self.now
        for index in sorted(self.progress.assigned):
            trial, live = self.progress.trials[index], self.progress.live.pop(index, None)
            if live:
                trial = self._lose(trial, live, live.ran_until(self.now))
            order = self.progress.tuner.withdraw(index)
            self._save(lifecycle.ended(trial, "Stopped", f"the study ended: {outcome.message}", order=order))
            if live:  # after that is stored: who folds in between would miss the Pod, and take it for a fault
                self._stop(trial, outcome.reason)
        self.progress.assigned.clear()
        self._announce(outcome.reason, outcome.message, warning=outcome.condition == "Failed")

    def _stop_surplus(self) -> None:
        """Stop attempts that may not run any more: when suspended all, else those beyond parallelism.

        Those without a place go first, as nothing is lost by it, then those of the lowest budgets.
        """
        progress, spec = self.progress, self.progress.study.spec
        allowed = 0 if spec.suspend else spec.parallelism
        if len(progress.live) > allowed:
            reason = "the study is suspended" if spec.suspend else "parallelism was lowered"
            ranks = {i: (not live.placed, -progress.trials[i].spec.budget, i) for i, live in progress.live.items()}
            by_rank = sorted(progress.live, key=ranks.__getitem__)
            for index in by_rank[allowed:]:
                progress.live[index].stopping = progress.live[index].stopping or reason
        for index in starting.confined(progress, self.now):
            progress.live[index].stopping = progress.live[index].stopping or FREE_TO_GO
        for index, live in progress.live.items():
            if live.stopping and (index, progress.trials[index].attempt) not in progress.leaving:
                self._stop(progress.trials[index], live.stopping)

    def _stop(self, trial: Trial, reason: str) -> None:
        self.progress.leaving[trial.index, trial.attempt] = float("inf")
        self.actions.append(StopLeg(trial, trial.attempt, reason))

    def _leave(self, trial: Trial) -> None:
        """Its attempt was told to stop and has its grace to do so."""
        if self.progress.live.pop(trial.index, None) is not None:
            self.progress.leaving[trial.index, trial.attempt] = self._grace_end()

    def _grace_end(self) -> float:
        return self.now + termination_grace(self.progress.study.spec.template)

    def _stop_lingering(self) -> None:
        """Stop what was told to leave and did not; what an earlier operator told gets its grace again."""
        for (index, attempt), grace_end in self.progress.leaving.items():
            if grace_end is None:
                self.progress.leaving[index, attempt] = self._grace_end()
            elif grace_end <= self.now:
                self.progress.leaving[index, attempt] = float("inf")
                if (trial := self.progress.trials.get(index)) is not None:
                    self.actions.append(StopLeg(trial, attempt, "its attempt is over"))

    def _save_due(self) -> None:
        for index in [i for i, by in self.progress.unsaved.due.items() if by <= self.now]:
            self._save(self.progress.trials[index])

    # --- small things ---------------------------------------------------------------------------------------------

    def wake_at(self) -> float | None:
        """When to look again even if nothing happens."""
        progress = self.progress
        times = [*progress.unsaved.due.values(), *(t for t in progress.leaving.values() if t is not None)]
        if progress.outcome is None and not progress.study.spec.suspend:
            times += starting.times(progress, self.now)
            times += [t for t in (deadline(progress), gpu_deadline(progress, self.now)) if t is not None]
        return min((t for t in times if t != float("inf")), default=None)

    def _spend(self, live: Live, at: float) -> tuple[float, float]:
        """Seconds and GPU-seconds since its time was last accounted for; from now on it counts anew."""
        seconds, gpu_seconds = live.used(at)
        live.since = at
        self.progress.gpu_seconds_spent += gpu_seconds
        return seconds, gpu_seconds

    def _lose(self, trial: Trial, live: Live, at: float) -> Trial:
        """The time since its last result came to none."""
        return lifecycle.lost(trial, *self._spend(live, at))

    def _unblock(self) -> None:
        """Something ended, so there may be room again: try at once."""
        if self.progress.block and not self.progress.breaker_open:
            self.progress.block.until = self.now

    def _replace(self, trial: Trial) -> Trial:
        self.progress.trials[trial.index] = trial
        return trial

    def _save(self, trial: Trial) -> None:
        self._replace(trial)
        self.progress.unsaved.due.pop(trial.index, None)
        self.actions.append(SaveStatus(trial))

    def _announce(self, reason: str, message: str, *, warning: bool = False) -> None:
        self.actions.append(Announce("Warning" if warning else "Normal", reason, message))
