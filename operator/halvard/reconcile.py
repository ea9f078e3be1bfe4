"""The crank in a cluster: a study's key becomes events, events a plan, the plan calls; then the status is written."""

import asyncio
import logging
import math
from contextlib import suppress
from datetime import UTC, datetime

from halvard import clock
from halvard.apply import POD_NOT_DELETED, Applier, as_json
from halvard.cache import BrokenStudy, Cache, Cached
from halvard.decide import decide
from halvard.events import Reported
from halvard.inbox import Inbox
from halvard.kube import PODS, STUDIES, TRIALS, Conflict, Kube, NotFound, Refused, Unavailable
from halvard.metrics import Metrics
from halvard.misfit import misfit
from halvard.plan import Plan
from halvard.pods import LABEL_STUDY
from halvard.progress import Progress
from halvard.queue import Key
from halvard.sessions import Session, unlisted
from halvard.status import MESSAGE_LENGTH, study_status
from halvard.study import Study
from halvard.study_status import Condition, StudyStatus

STATUS_PERIOD = 1.0
INVALID_SPEC = "InvalidSpec"
TRIALS_DO_NOT_FIT = "TrialsDoNotFit"
TRIAL_REFUSED = "TrialRefused"
TRIAL_NOT_STORED = "TrialNotStored"
PATIENCE = 10.0  # seconds for which a study's turns may find no answer before it says so

log = logging.getLogger(__name__)


class Reconciler:
    """Turns the crank of one study at a time; called by the queue, never twice at once for the same key."""

    def __init__(self, kube: Kube, cache: Cache, inbox: Inbox, applier: Applier, metrics: Metrics) -> None:
        """Starts with no study in memory."""
        self._kube = kube
        self._cache = cache
        self._inbox = inbox
        self._applier = applier
        self._metrics = metrics
        self._sessions: dict[Key, Session] = {}
        self._unanswered: dict[Key, float] = {}  # since when

    async def __call__(self, key: Key) -> float | None:
        """Turns it once; returns in how many seconds to look again.

        Raises KubeError, after which the next call folds the study anew.
        """
        study = self._cache.studies.get(key)
        if study is None or study.value.deleting:
            self._forget(key)
            self._inbox.drop(key, "the study is being deleted")
            return None
        if isinstance(study.value, BrokenStudy):
            self._forget(key)
            await self._degrade(study, INVALID_SPEC, study.value.message)
            return None
        try:
            session = await self._session(study.value, study.version)
        except ValueError as error:
            await self._degrade(study, TRIALS_DO_NOT_FIT, str(error))
            raise Refused(str(error)) from error
        try:
            again = await self._turn(key, session)
        except Refused as error:
            self._unanswered.pop(key, None)
            await self._degrade(study, TRIAL_REFUSED, str(error))
            raise
        except Unavailable as error:
            now = clock.now()
            if now >= self._unanswered.setdefault(key, now) + PATIENCE:
                await self._degrade(study, TRIAL_NOT_STORED, str(error))
            raise
        self._unanswered.pop(key, None)
        return soonest(again, await self._save_status(key, session))

    async def _session(self, study: Study, version: int) -> Session:
        """The study as it is in memory; folded anew where it is not there, or not to be trusted."""
        key = (study.namespace, study.name)
        session = self._sessions.get(key)
        await self._check_readable(key, session)
        if session and session.sound and session.follow(study, version):
            return session
        if session and not session.sound:
            await self._refresh(key)  # what the failed turn has stored is not known
        if session:
            session.sound = False  # until there is another: it has forgotten what it could not follow
        if session is None or session.progress.study.uid != study.uid:
            self._metrics.follow(key, clock.now())
        for name in unlisted(self._cache, study):
            with suppress(NotFound):
                self._cache.pods.seen(await self._kube.get(PODS, study.namespace, name))
        if wrong := misfit(study, [item.value for item in self._cache.trials.of(key) if item.owner == study.uid]):
            raise ValueError(wrong)
        fresh = self._sessions[key] = Session(self._cache, study, version)
        self._inbox.sift(study)
        return fresh

    async def _check_readable(self, key: Key, session: Session | None) -> None:
        """Raises ValueError where a Trial cannot be read: without it, it would be decided on anew."""
        if not self._cache.trials.misfit(key):
            return
        if session:
            session.sound = False
        await self._refresh(key)  # it may be gone by now
        if wrong := self._cache.trials.misfit(key):
            raise ValueError(wrong)

    async def _turn(self, key: Key, session: Session) -> float | None:
        now = clock.now()
        if not await self._begun(key, session.progress.started_at or now):
            return 0.0
        pushed = self._inbox.take(key)
        events = [*pushed.values(), *session.gather(now)]
        session.sound = False
        with self._metrics.decision.time():
            plan = decide(session.progress, events, now)
        self._metrics.dropped.labels("repeated").inc(plan.repeated)
        tell_results(key, session.progress, plan)
        try:
            all_taken = await self._applier.apply(session.progress, plan)
        except Exception:
            self._inbox.give_back(key, pushed)
            raise
        session.sound = True
        self._metrics.turn(key, events, plan.faults)
        self._inbox.settle(key, session.progress.verdict)
        for event in pushed.values():
            if isinstance(event, Reported):
                self._metrics.report_lag.observe(max(0.0, clock.now() - event.at))
        if not all_taken:
            return 0.0  # only `decide` knows when to try again
        due = soonest(plan.wake_at, *session.progress.leaving.values())  # of which some were refused only now
        return None if due is None or math.isinf(due) else due - clock.now()

    async def _begun(self, key: Key, at: float) -> bool:
        """Stores that a study has started, if it does not say so: now nobody can change any more what trials rest on.

        Returns False where it was changed meanwhile.
        """
        study = self._cache.studies.get(key)
        if study is None or study.value.status.start_time:
            return study is not None
        start = datetime.fromtimestamp(at, UTC).replace(microsecond=0)
        return await self._write_status(study, study.value.status.model_copy(update={"start_time": start})) is None

    async def _refresh(self, key: Key) -> None:
        """Reads a study's trials and Pods from the store itself."""
        namespace, name = key
        selector = f"{LABEL_STUDY}={name}"
        trials, pods = self._cache.trials, self._cache.pods
        await trials.replace(self._kube.pages(TRIALS, namespace, selector), trials.of(key), key)
        await pods.replace(self._kube.pages(PODS, namespace, selector), pods.of(key))
        await self._applier.read_doubtful(key)  # of which the lists may not know yet

    def _forget(self, key: Key) -> None:
        self._sessions.pop(key, None)
        self._unanswered.pop(key, None)
        self._metrics.forget(key)
        self._cache.forget_changes(key)

    # --- the Study's status ---------------------------------------------------------------------------------------

    async def _save_status(self, key: Key, session: Session) -> float | None:
        """Writes the status where it has changed; what only counts, at most once a second."""
        progress = session.progress
        kept = self._applier.not_deleted(progress)
        urgent = (progress.outcome, progress.suspended, progress.block is None, progress.study.generation, kept)
        at = asyncio.get_running_loop().time()
        if urgent == session.urgent and (wait := session.status_at + STATUS_PERIOD - at) > 0:
            return wait
        session.urgent, session.status_at = urgent, at
        study = self._cache.studies.get(key)
        if study is None:
            return None
        status, stored = study_status(progress, clock.now()), study.value.status
        if progress.outcome and len(progress.trials) < stored.trials.total:  # they were cleared away: the result stays
            told = {"conditions": status.conditions, "observed_generation": status.observed_generation}
            status = stored.model_copy(update=told)
        if kept and not any(c.type == "Degraded" and c.status == "True" for c in status.conditions):
            status = degraded(status, study.value, POD_NOT_DELETED, kept)
        return await self._write_status(study, status)

    async def _degrade(self, study: Cached[Study | BrokenStudy], reason: str, message: str) -> None:
        """Says why nothing is started, in the words of whoever refuses it."""
        status = study.value.status.model_copy(update={"observed_generation": study.value.generation})
        await self._write_status(study, degraded(status, study.value, reason, message))

    async def _write_status(self, study: Cached[Study | BrokenStudy], status: StudyStatus) -> float | None:
        """Writes a status that differs from the stored one; returns 0 where somebody else was faster."""
        if status == study.value.status:
            return None
        try:
            written = await self._kube.patch(
                STUDIES, study.namespace, study.name, version=str(study.version), part="status", value=as_json(status)
            )
        except Conflict:
            self._cache.studies.seen(await self._kube.get(STUDIES, study.namespace, study.name))
            return 0.0
        self._cache.studies.seen(written)
        return None


def tell_results(key: Key, progress: Progress, plan: Plan) -> None:
    """Logs which Pod has brought which result: a Trial tells the attempt."""
    metric = progress.study.spec.objective.metric
    for event in plan.results:
        name, value = progress.trials[event.trial].name, event.report.metrics[metric]
        at = datetime.fromtimestamp(event.at, UTC).isoformat()
        words = "%s/%s: Pod %s reported %s at step %d, received at %s"
        log.info(words, key[0], name, event.pod, value, event.report.step, at)


def degraded(status: StudyStatus, stored: Study | BrokenStudy, reason: str, message: str) -> StudyStatus:
    """Returns a status with the condition Degraded, which may be true already in the one that is stored."""
    before = next((condition for condition in stored.status.conditions if condition.type == "Degraded"), None)
    condition = Condition(
        type="Degraded",
        status="True",
        reason=reason,
        message=message[:MESSAGE_LENGTH],
        last_transition_time=before.last_transition_time if before and before.status == "True" else datetime.now(UTC),
        observed_generation=stored.generation,
    )
    others = (other for other in status.conditions if other.type != "Degraded")
    return status.model_copy(update={"conditions": (*others, condition)})


def soonest(*times: float | None) -> float | None:
    """Returns the earliest of those that are known."""
    return min((time for time in times if time is not None), default=None)
