"""What a decision costs, and a trial in memory, when many results are known: Halvard, Optuna, Ray Tune, Syne Tune."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported: everyone has one core
