"""How good the search is: the time until a good trial is finished, beside Optuna, Ray Tune and Syne Tune."""
