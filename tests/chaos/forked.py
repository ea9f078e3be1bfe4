"""Imported last before operators are forked: what they would import later, and no garbage to look for in all of it."""

import gc

import cryptography.hazmat.backends.openssl.backend  # noqa: F401

gc.freeze()
