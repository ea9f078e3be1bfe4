"""Services in the lab: kube-proxy leads their addresses to Pods, CoreDNS knows their names.

The nodes share the machine's network, so that one of each serves them all.
"""

import json
import socket
import time
from pathlib import Path

from lab.control_plane import free_port
from lab.machine import ADDRESS, PODS, PROXY_SETTINGS, MachineError

PROXY = "system:kube-proxy"  # a user that RBAC knows by itself
DNS = "coredns"
START_TIMEOUT = 60.0  # seconds
API = ("10.246.0.1", 443)  # the Service `kubernetes`: the first address of the API server's range

WATCHED = [
    {"apiGroups": [""], "resources": ["namespaces", "services"], "verbs": ["list", "watch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
]
RIGHTS = {
    "apiVersion": "v1",
    "kind": "List",
    "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": DNS},
            "rules": WATCHED,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": DNS},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": DNS},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": DNS}],
        },
    ],
}
# no cache: a name is known as soon as its Service is there
COREFILE = """\
.:53 {{
  bind {address}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig} lab
  }}
}}
"""


def proxy_options(directory: Path, kubeconfig: Path, node: str) -> tuple[str, ...]:
    """The options of kube-proxy, in the place of the one on this node; its settings are written to the directory."""
    settings = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        # in iptables mode a connection to a Service just made may hang for 20 seconds
        "mode": "nftables",
        "hostnameOverride": node,
        "clusterCIDR": PODS,
        # the machine keeps its own limits
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": f"127.0.0.1:{free_port()}",
        "metricsBindAddress": f"127.0.0.1:{free_port()}",
    }
    path = directory / PROXY_SETTINGS
    path.write_text(json.dumps(settings))
    return (f"--config={path}",)


def dns_options(directory: Path, kubeconfig: Path) -> tuple[str, ...]:
    """The options of CoreDNS, where the kubelets tell Pods to ask; its settings are written to the directory."""
    path = directory / "Corefile"
    path.write_text(COREFILE.format(address=ADDRESS, kubeconfig=kubeconfig))
    return ("-conf", str(path))


def wait_for_services() -> None:
    """Waits until Services work and names are answered; raises MachineError."""
    deadline = time.monotonic() + START_TIMEOUT
    for program, address in (("kube-proxy", API), ("coredns", (ADDRESS, 53))):
        while not accepts(address):
            if time.monotonic() > deadline:
                raise MachineError(f"{program} does not work: nothing answers at {address}; see its log")
            time.sleep(0.1)


def accepts(address: tuple[str, int]) -> bool:
    """Whether a connection can be made to this address and port."""
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True
