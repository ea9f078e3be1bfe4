"""What runs inside a trial, the standard library alone: what a training script imports, and the collector sidecar."""

from halvard_trainer.trial import Trial

__all__ = ["Trial"]
