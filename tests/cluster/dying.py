"""An operator that is killed at every write it makes, before the answer arrives: run by `test_operator_crash`."""

import os
from pathlib import Path
from typing import Any

from typing_extensions import override

from halvard import operator
from halvard.kube import Kube, Manifest, Resource


class DyingKube(Kube):
    """Writes are carried out, and noted in a file, but nobody hears of it any more."""

    @override
    async def _request(self, verb: str, resource: Resource, path: str, **request: Any) -> Manifest:
        answer = await super()._request(verb, resource, path, **request)
        if verb in {"create", "patch", "delete"} and resource.plural in {"studies", "trials", "pods"}:
            die(f"{verb} {path}")
        return answer


def die(last_words: str) -> None:
    """Ends the process as SIGKILL does, with nothing cleaned up."""
    with Path(os.environ["DEATHS"]).open("a") as deaths:
        deaths.write(f"{last_words}\n")
    os._exit(137)


if __name__ == "__main__":
    vars(operator)["Kube"] = DyingKube
    operator.main()
