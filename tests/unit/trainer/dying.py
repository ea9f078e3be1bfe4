"""The sidecar, dying once before and once after each effect it has on the world: run by `test_sidecar_crash`."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from halvard_trainer import collector, files, push, reports

DEATHS = Path(os.environ["DEATHS"])


def die(at: str) -> None:
    """Ends the process as SIGKILL does, the first time that it comes here."""
    before = DEATHS.read_text().splitlines() if DEATHS.exists() else []
    if at not in before:
        with DEATHS.open("a") as deaths:
            deaths.write(f"{at}\n")
        os._exit(137)


def deadly(effect: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
    """The same effect, with a death before it and one after it."""

    def deadly_effect(*arguments: Any, **options: Any) -> Any:
        die(f"before {name(*arguments)}")
        result = effect(*arguments, **options)
        die(f"after {name(*arguments)}")
        return result

    return deadly_effect


def main() -> int:
    vars(files)["overwrite"] = deadly(files.overwrite, lambda path, _: f"writing {path.name}")
    vars(files)["replace"] = deadly(files.replace, lambda path, _: f"replacing {path.name}")
    setattr(Path, "replace", deadly(Path.replace, lambda path, _: f"renaming {path.name}"))  # noqa: B010  # for mypy
    setattr(push.Endpoint, "post", deadly(push.Endpoint.post, lambda *_: "pushing"))  # noqa: B010
    setattr(reports.Tail, "_begin", deadly(reports.Tail._begin, lambda *_: "reading"))  # noqa: B010
    return collector.main()


if __name__ == "__main__":
    sys.exit(main())
