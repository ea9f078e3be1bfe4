"""Halvard: a Kubernetes-native hyperparameter tuner."""

__version__ = "0.1.0"
