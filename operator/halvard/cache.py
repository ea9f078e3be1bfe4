"""What was last seen of Studies, Trials and Pods: small frozen values, fed by watches, re-lists and our own writes.

It never goes back to an older version of an object, and remembers for every study what changed since somebody looked.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import ValidationError

from halvard.invalid import InvalidStudy
from halvard.kube import Manifest, Page
from halvard.observe import PodView, observe
from halvard.pods import LABEL_STUDY, whose
from halvard.queue import Key
from halvard.study import Study
from halvard.study_status import StudyStatus
from halvard.trial import Trial

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cached(Generic[T]):
    """One object: who it is, whose it is (`study` is a name, `owner` the uid of its controller), and what it says."""

    namespace: str
    name: str
    uid: str
    version: int
    study: str
    owner: str
    value: T

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def study_key(self) -> Key:
        """Namespace and name of its study."""
        return self.namespace, self.study


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What became of an object since somebody looked."""

    item: Cached[T]
    gone: bool


@dataclass(frozen=True, slots=True)
class Misfit:
    """An object that makes no sense, as after a change by hand; `message` names it, the field and what is wrong."""

    study: Key
    uid: str
    version: int
    message: str


@dataclass(frozen=True, slots=True)
class BrokenStudy:
    """A Study whose spec the API server took although it makes no sense; `message` says what would be right."""

    message: str
    generation: int
    deleting: bool
    status: StudyStatus


async def nobody(_: object) -> None:
    """Nobody finds what a list does not have: it has everything."""


class Store(Generic[T]):
    """The objects of one kind, found by name, by study and by uid.

    `ask` is given one that lists and watches do not have any more, and returns it where it is there all the same.
    """

    def __init__(self, study_of: Callable[[Manifest], str], parse: Callable[[Manifest], T]) -> None:
        """`study_of` names an object's study, `parse` turns its manifest into a value (ValueError: it is a misfit)."""
        self.ask: Callable[[Cached[T]], Awaitable[Manifest | None]] = nobody
        self._study_of = study_of
        self._parse = parse
        self._items: dict[Key, Cached[T]] = {}
        self._by_study: dict[Key, dict[Key, Cached[T]]] = {}
        self._by_uid: dict[str, Cached[T]] = {}
        self._changes: dict[Key, dict[str, Change[T]]] = {}
        self._buried: dict[Key, int] = {}
        self._misfits: dict[Key, Misfit] = {}

    def __len__(self) -> int:
        """How many objects there are."""
        return len(self._items)

    def get(self, key: Key) -> Cached[T] | None:
        """Returns the object of that namespace and name."""
        return self._items.get(key)

    def by_uid(self, uid: str) -> Cached[T] | None:
        """Returns the object with that uid."""
        return self._by_uid.get(uid)

    def of(self, study: Key) -> list[Cached[T]]:
        """Returns every object of a study."""
        return list(self._by_study.get(study, {}).values())

    def studies(self) -> list[Key]:
        """Returns every study that has an object here."""
        return list(self._by_study)

    def misfit(self, study: Key) -> str:
        """Returns what is wrong with an object of a study, empty where all of them make sense."""
        return next((misfit.message for misfit in self._misfits.values() if misfit.study == study), "")

    def changes(self, study: Key) -> list[Change[T]]:
        """Returns what changed since the last call, each object once, in the order of its first change."""
        return list(self._changes.pop(study, {}).values())

    def again(self, key: Key) -> None:
        """Counts an object as changed, so that what it says is heard once more."""
        if item := self._items.get(key):
            self._changes.setdefault(item.study_key, {})[item.uid] = Change(item, gone=False)

    def seen(self, manifest: Manifest) -> Key | None:
        """Takes over what a watch or a list says; returns the study it is news for.

        An object that makes no sense is known as it was before.
        """
        metadata = manifest["metadata"]
        key, version = (metadata.get("namespace", ""), metadata["name"]), int(metadata["resourceVersion"])
        if not self._newer(key, version):
            return None
        try:
            value = self._parse(manifest)
        except ValueError as error:
            log.error("%s/%s: %s", *key, error)
            self._misfits[key] = Misfit((key[0], self._study_of(manifest)), metadata["uid"], version, str(error))
            return self._misfits[key].study
        self._misfits.pop(key, None)
        owners = metadata.get("ownerReferences", ())
        owner = next((reference["uid"] for reference in owners if reference.get("controller")), "")
        item = Cached(*key, metadata["uid"], version, self._study_of(manifest), owner, value)
        before = self._items.get(key)
        self.put(item)
        return before.study_key if before and not item.study else item.study_key  # it has lost its label

    def put(self, item: Cached[T]) -> None:
        """Takes over an object, unless something newer is known."""
        if not self._newer(item.key, item.version):
            return
        before = self._items.get(item.key)
        if before is not None and (before.uid, before.study) != (item.uid, item.study):
            self._remove(before)
        self._items[item.key] = self._by_uid[item.uid] = item
        self._by_study.setdefault(item.study_key, {})[item.key] = item
        self._changes.setdefault(item.study_key, {})[item.uid] = Change(item, gone=False)

    def gone(self, manifest: Manifest) -> Key | None:
        """Takes over a deletion, and what the object said last; returns the study it is news for."""
        self.seen(manifest)
        metadata = manifest["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        misfit = self._misfits.pop(key, None)
        item = self._items.get(key)
        if item is None or item.uid != metadata["uid"]:
            return misfit.study if misfit else None
        self._buried[key] = item.version
        self._remove(item)
        return item.study_key

    async def replace(
        self,
        pages: AsyncIterator[Page],
        known: Iterable[Cached[T]],
        of: Key | None = None,
        *,
        news: Callable[[Key], object] = lambda _: None,
    ) -> None:
        """Takes over a list; what is `known`, not in it and not newer than it, is gone, unless `ask` finds it.

        So is every misfit `of` this study that is not in it. `news` hears of each study that it is news for: at once,
        as the list may break off, and nobody hears twice of what came before that.
        """
        listed: set[str] = set()
        version = 0
        async for page in pages:
            for study in {study for manifest in page.items if (study := self.seen(manifest))}:
                news(study)
            listed.update(manifest["metadata"]["uid"] for manifest in page.items)
            version = page.version
        for before in known:
            item = self._by_uid.get(before.uid)
            if item is None or item.uid in listed or item.version > version:
                continue
            there = await self.ask(item)
            if there is not None:
                if study := self.seen(there):
                    news(study)
            elif self._by_uid.get(item.uid) is item and item.study == before.study:
                # else its label was changed since, and the list was of the old one's
                self._remove(item)
                news(item.study_key)
        if of is not None:
            self._misfits = {key: each for key, each in self._misfits.items() if each.study != of or each.uid in listed}

    def everything(self) -> list[Cached[T]]:
        """Returns every object."""
        return list(self._items.values())

    def forget_deletions(self) -> None:
        """Drops the memory of deleted objects: it only guards against answers that were on their way meanwhile."""
        self._buried.clear()

    def _newer(self, key: Key, version: int) -> bool:
        item, misfit = self._items.get(key), self._misfits.get(key)
        known = max(item.version if item else -1, misfit.version if misfit else -1)
        return version > max(known, self._buried.get(key, -1))

    def _remove(self, item: Cached[T]) -> None:
        del self._items[item.key]
        del self._by_uid[item.uid]
        of_study = self._by_study[item.study_key]
        del of_study[item.key]
        if not of_study:
            del self._by_study[item.study_key]
        self._changes.setdefault(item.study_key, {})[item.uid] = Change(item, gone=True)


class Cache:
    """Everything the operator watches."""

    def __init__(self) -> None:
        """Knows nothing yet."""
        self.studies = Store(_own_name, parse_study)
        self.trials = Store(_study_label, parse_trial)
        self.pods: Store[PodView] = Store(_study_of_pod, observe)

    def forget_changes(self, study: Key) -> None:
        """Drops the changes that nobody will ask for any more."""
        for store in (self.studies, self.trials, self.pods):
            store.changes(study)


def parse_study(manifest: Manifest) -> Study | BrokenStudy:
    """Returns the Study, or what is wrong with its spec.

    Fields that are not known are those of a newer version, for the API server keeps no others, and are passed over.
    """
    status = parse_status(manifest.get("status") or {})
    try:
        study = Study.from_manifest({**manifest, "status": {}}, extra="ignore")
    except InvalidStudy as error:
        metadata = manifest["metadata"]
        return BrokenStudy(str(error), metadata["generation"], "deletionTimestamp" in metadata, status)
    return study.model_copy(update={"status": status})


def parse_status(status: Manifest) -> StudyStatus:
    """Returns what makes sense of a Study's status: the rest was written by hand, and will be written anew."""
    while True:
        try:
            return StudyStatus.model_validate(status, extra="ignore")
        except ValidationError as error:
            wrong = {detail["loc"][:2] for detail in error.errors(include_url=False)}
            sound = [c for i, c in enumerate(status.get("conditions") or ()) if ("conditions", i) not in wrong]
            others = {place[0] for place in wrong if place[0] != "conditions" or len(place) == 1}
            status = {name: value for name, value in {**status, "conditions": sound}.items() if name not in others}


def parse_trial(manifest: Manifest) -> Trial:
    """Returns the Trial, without fields of a newer version; raises ValueError naming it and what is wrong with it."""
    try:
        return Trial.from_manifest(manifest, extra="ignore")
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors(include_url=False)]
        raise ValueError(f"Trial {manifest['metadata']['name']}: {'; '.join(wrong[:3])}") from None


def _own_name(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def _study_of_pod(manifest: Manifest) -> str:
    return whose(manifest["metadata"]["name"])[0]


def _study_label(manifest: Manifest) -> str:
    return str(manifest["metadata"].get("labels", {}).get(LABEL_STUDY, ""))
