"""Namespaces for tests: each has its own, under the restricted Pod Security Standard."""

import contextlib
import itertools
import os
from collections.abc import Iterator

from lab.cluster import Cluster
from lab.existing import Existing

numbers = itertools.count(1)


@contextlib.contextmanager
def fresh_namespace(cluster: Cluster | Existing) -> Iterator[str]:
    name = f"e2e-{os.getpid()}-{next(numbers)}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=60s")
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")
        # the next test may need the GPUs
        cluster.kubectl("delete", "pods", "--all", f"--namespace={name}", "--grace-period=1", "--timeout=60s")
