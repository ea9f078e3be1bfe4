"""What a search holds in memory for each trial that it knows."""

import gc
import tracemalloc
from collections.abc import Sequence

from benchmarks.engine.contenders import Contender
from halvard.trial import Trial


def bytes_a_trial(contender: Contender, trials: Sequence[Trial], seed: int) -> float:
    """Returns what Python allocates and the search goes on holding, of trials that it reads from JSON, for each.

    Its first decision is in it: some work in what they know only then.
    """
    texts = [trial.model_dump_json() for trial in trials]
    contender.make(trials[:20], seed)  # what is imported and kept once is of no trial
    gc.collect()
    tracemalloc.start()
    engine = contender.make(map(Trial.model_validate_json, texts), seed)
    engine.decide(1.0)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / len(trials)
