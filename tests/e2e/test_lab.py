"""The lab is a Kubernetes like any other in everything that Halvard rests on."""

import base64
import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from e2e.studies import eventually
from lab.cluster import GPUS, Cluster
from lab.images import PAUSE, PYTHON
from lab.operator_process import OperatorProcess
from lab.prometheus import Prometheus

CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
SIDECAR = """
import pathlib, signal, sys
def end(*_):
    pathlib.Path("/dev/termination-log").write_text(pathlib.Path("/token/token").read_text())
    sys.exit()
signal.signal(signal.SIGTERM, end)
signal.pause()
"""

WEB = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"answer 42\\n")
http.server.HTTPServer(("", 8080), Handler).serve_forever()
"""
# a rule of kube-proxy is there a moment after its Service
CLIENT = """
import time, urllib.request
while True:
    try:
        answer = urllib.request.urlopen("{url}", timeout=5).read().decode()
    except OSError:
        time.sleep(0.2)
    else:
        break
open("/dev/termination-log", "w").write(answer)
"""
WHO_AM_I = """
import json, os, pathlib, ssl, urllib.request
account = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
headers = {"Authorization": "Bearer " + (account / "token").read_text(), "Content-Type": "application/json"}
review = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode()
context = ssl.create_default_context(cafile=account / "ca.crt")
def who_am_i(host):
    url = f"https://{host}/apis/authentication.k8s.io/v1/selfsubjectreviews"
    answer = urllib.request.urlopen(urllib.request.Request(url, review, headers), context=context)
    return json.load(answer)["status"]["userInfo"]["username"]
by_address, by_name = who_am_i(os.environ["KUBERNETES_SERVICE_HOST"]), who_am_i("kubernetes.default.svc")
open("/dev/termination-log", "w").write(f"{by_address} by address, {by_name} by name")
"""


def container(script: str, **fields: object) -> dict[str, object]:
    """A container under the restricted Pod Security Standard that runs a Python script."""
    image = {"image": PYTHON, "imagePullPolicy": "IfNotPresent", "command": ["python3", "-c", script]}
    return {"name": "trainer", "securityContext": CONFINED, **image, **fields}


def start(lab: Cluster, namespace: str, name: str, main: dict[str, object], **spec: object) -> None:
    """Creates a Pod under the restricted Pod Security Standard."""
    fields = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [main],
        **spec,
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": fields}
    lab.kubectl("create", "-f", "-", input=json.dumps(pod))


def wait(lab: Cluster, namespace: str, condition: str, name: str) -> dict[str, Any]:
    """Waits for a Pod's condition and reads the Pod."""
    lab.kubectl("wait", f"--for={condition}", f"pod/{name}", f"--namespace={namespace}", "--timeout=60s")
    found: dict[str, Any] = json.loads(
        lab.kubectl("get", "pod", name, f"--namespace={namespace}", "--output=json").stdout
    )
    return found


def ended(lab: Cluster, namespace: str, name: str) -> dict[str, Any]:
    """Waits until a Pod's container has ended; how it did."""
    path = "jsonpath={.status.containerStatuses[0].state.terminated.reason}"
    state: dict[str, Any] = wait(lab, namespace, path, name)["status"]["containerStatuses"][0]["state"]["terminated"]
    return state


def start_with_sidecar(lab: Cluster, namespace: str) -> None:
    """Creates a Pod whose sidecar tells its token when it is over; its trainer succeeds only without any token."""
    token = {"serviceAccountToken": {"path": "token", "audience": "halvard", "expirationSeconds": 600}}
    mount = [{"name": "token", "mountPath": "/token"}]
    start(
        lab,
        namespace,
        "with-sidecar",
        container("import os; assert not os.path.exists('/token') and not os.path.exists('/var/run/secrets')"),
        initContainers=[container(SIDECAR, name="collector", restartPolicy="Always", volumeMounts=mount)],
        volumes=[{"name": "token", "projected": {"sources": [token]}}],
    )


def test_a_pod_with_a_native_sidecar_runs_to_its_end(lab: Cluster, namespace: str) -> None:
    start_with_sidecar(lab, namespace)
    pod = wait(lab, namespace, "jsonpath={.status.phase}=Succeeded", "with-sidecar")
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0


def test_only_the_sidecar_has_a_token_and_its_termination_message_arrives(lab: Cluster, namespace: str) -> None:
    start_with_sidecar(lab, namespace)
    pod = wait(lab, namespace, "jsonpath={.status.phase}=Succeeded", "with-sidecar")
    message = pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["message"]
    claims = json.loads(base64.urlsafe_b64decode(message.split(".")[1] + "=="))
    assert claims["aud"] == ["halvard"]
    assert claims["kubernetes.io"]["pod"]["uid"] == pod["metadata"]["uid"]


def test_a_container_beyond_its_memory_limit_is_killed(lab: Cluster, namespace: str) -> None:
    limits = {"limits": {"memory": "64Mi"}}
    start(lab, namespace, "greedy", container("b'x' * 10**9", resources=limits))
    end = ended(lab, namespace, "greedy")
    assert (end["reason"], end["exitCode"]) == ("OOMKilled", 137)


def test_a_pod_waits_when_every_gpu_is_taken(lab: Cluster, namespace: str) -> None:
    gpu = container("", image=PAUSE, command=["/catatonit", "-P"], resources={"limits": {"nvidia.com/gpu": 1}})
    total = GPUS * len(lab.nodes)
    for index in range(total):
        start(lab, namespace, f"gpu-{index}", gpu)
    for index in range(total):
        wait(lab, namespace, "condition=PodScheduled", f"gpu-{index}")
    start(lab, namespace, "one-too-many", gpu)
    pod = wait(lab, namespace, "condition=PodScheduled=False", "one-too-many")
    assert "2 Insufficient nvidia.com/gpu" in pod["status"]["conditions"][0]["message"]


def start_web_server(lab: Cluster, namespace: str) -> str:
    """Runs a Pod that answers on port 8080 with a metric; its address, once it is ready."""
    ready = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    start(lab, namespace, "web", container(WEB, readinessProbe=ready))
    lab.kubectl("label", "pod/web", f"--namespace={namespace}", "app=web")
    address: str = wait(lab, namespace, "condition=Ready", "web")["status"]["podIP"]
    return address


def make_service(lab: Cluster, namespace: str, name: str, labels: Mapping[str, str], **spec: object) -> None:
    """Creates a Service of port 80 that leads to a port 8080 called `metrics`."""
    ports = [{"name": "metrics", "port": 80, "targetPort": 8080}]
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports, **spec}}
    lab.kubectl("create", "-f", "-", input=json.dumps(service))


def answers(lab: Cluster, namespace: str, url: str) -> list[str]:
    """What a Pod of each node gets from this address."""
    for node in lab.nodes:
        start(lab, namespace, node, container(CLIENT.format(url=url)), nodeName=node)
    return [ended(lab, namespace, node)["message"] for node in lab.nodes]


def test_pods_on_every_node_reach_a_service_by_its_name(lab: Cluster, namespace: str) -> None:
    start_web_server(lab, namespace)
    make_service(lab, namespace, "web", {}, selector={"app": "web"})
    assert answers(lab, namespace, f"http://web.{namespace}.svc/") == ["answer 42\n"] * len(lab.nodes)


def test_a_service_without_selector_leads_to_what_its_slice_says(lab: Cluster, namespace: str) -> None:
    address = start_web_server(lab, namespace)
    make_service(lab, namespace, "chosen", {})
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "chosen", "namespace": namespace, "labels": {"kubernetes.io/service-name": "chosen"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "metrics", "port": 8080}],
    }
    lab.kubectl("create", "-f", "-", input=json.dumps(slice_))
    assert answers(lab, namespace, f"http://chosen.{namespace}.svc/") == ["answer 42\n"] * len(lab.nodes)


def test_a_pod_reaches_the_api_server_as_its_service_account(lab: Cluster, namespace: str) -> None:
    start(lab, namespace, "asking", container(WHO_AM_I), automountServiceAccountToken=True)
    me = f"system:serviceaccount:{namespace}:default"
    assert ended(lab, namespace, "asking")["message"] == f"{me} by address, {me} by name"


def test_prometheus_finds_a_service_by_its_label_and_port(lab: Cluster, namespace: str) -> None:
    start_web_server(lab, namespace)
    make_service(lab, namespace, "web", {"app.kubernetes.io/name": "halvard"}, selector={"app": "web"})
    make_service(lab, namespace, "other", {}, selector={"app": "web"})
    with Prometheus(lab.kubeconfig, namespace) as prometheus:
        found = eventually(lambda: prometheus.query("answer"))
        labels = {"namespace": namespace, "service": "web", "pod": "web"}
        assert [(labels, "42")] == [({name: row["metric"][name] for name in labels}, row["value"]) for row in found]
        assert [target["health"] for target in prometheus.targets()] == ["up"]


@pytest.fixture
def certificate(lab: Cluster, tmp_path: Path) -> Path:
    names = ("-subj", "/CN=test", "-addext", f"subjectAltName=IP:{lab.address}")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    both = tmp_path / "both.pem"
    command = ("openssl", "req", "-x509", *key, *names, "-keyout", both, "-out", tmp_path / "certificate.pem")
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(both.read_text() + (tmp_path / "certificate.pem").read_text())
    return both


@pytest.fixture
def server(lab: Cluster, certificate: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with http.server.HTTPServer((lab.address, 0), http.server.BaseHTTPRequestHandler) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"https://{lab.address}:{listening.server_port}/"
        listening.shutdown()
        thread.join()


def test_pods_on_every_node_reach_this_machine_over_https(
    lab: Cluster, namespace: str, server: str, certificate: Path
) -> None:
    authority = (certificate.parent / "certificate.pem").read_text()
    script = f"""
import ssl, urllib.error, urllib.request
try:
    urllib.request.urlopen({server!r}, context=ssl.create_default_context(cadata={authority!r}))
except urllib.error.HTTPError as error:
    open("/dev/termination-log", "w").write(str(error.code))
"""
    for node in lab.nodes:
        start(lab, namespace, node, container(script), nodeName=node)
    assert [ended(lab, namespace, node)["message"] for node in lab.nodes] == ["501"] * len(lab.nodes)


def test_a_volume_is_shared_by_the_nodes_and_written_by_any_user(lab: Cluster, namespace: str) -> None:
    directory = lab.claim(namespace, "checkpoints")
    volumes = [{"name": "checkpoints", "persistentVolumeClaim": {"claimName": "checkpoints"}}]
    mounts = [{"name": "checkpoints", "mountPath": "/checkpoints", "subPath": "study/trial"}]
    for node in lab.nodes:
        writer = container(f"open('/checkpoints/{node}', 'w').write('model')", volumeMounts=mounts)
        start(lab, namespace, node, writer, nodeName=node, volumes=volumes)
    assert [ended(lab, namespace, node)["exitCode"] for node in lab.nodes] == [0] * len(lab.nodes)
    assert sorted(path.name for path in (directory / "study" / "trial").iterdir()) == sorted(lab.nodes)


def test_the_restricted_pod_security_standard_is_enforced(lab: Cluster, namespace: str) -> None:
    privileged = {"name": "trainer", "image": PAUSE, "securityContext": {"privileged": True}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "privileged"}, "spec": {"containers": [privileged]}}
    refused = lab.kubectl("create", f"--namespace={namespace}", "-f", "-", input=json.dumps(pod), check=False)
    assert 'violates PodSecurity "restricted:latest"' in refused.stderr


def test_a_node_whose_kubelet_is_stopped_is_lost_until_it_continues(lab: Cluster) -> None:
    node = next(iter(lab.nodes))
    lab.stop_kubelet(node)
    try:
        lab.kubectl("wait", "--for=condition=Ready=Unknown", f"node/{node}", "--timeout=120s")
    finally:
        lab.continue_kubelet(node)
    lab.kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=120s")


def test_a_restarted_api_server_has_what_it_had(lab: Cluster, namespace: str) -> None:
    lab.restart_apiserver()
    assert lab.kubectl("get", "namespace", namespace, "--output=name").stdout == f"namespace/{namespace}\n"


def test_the_audit_log_tells_who_wrote_which_pod(lab: Cluster, namespace: str) -> None:
    start(lab, namespace, "seen", container("pass"))
    wait(lab, namespace, "jsonpath={.status.phase}=Succeeded", "seen")
    requests = [json.loads(line) for line in lab.audit.read_text().splitlines()]
    writers = {
        (request["verb"], request["user"]["username"].partition(":halvard")[0])
        for request in requests
        if request["objectRef"].get("namespace") == namespace and request["objectRef"].get("name") == "seen"
    }
    assert {("create", "admin"), ("create", "system:kube-scheduler"), ("patch", "system:node")} <= writers


def test_an_operator_that_was_killed_leads_again_when_it_is_started(operator: OperatorProcess) -> None:
    operator.kill()
    operator.start()
    assert "halvard_leader 1.0" in operator.metrics().splitlines()
