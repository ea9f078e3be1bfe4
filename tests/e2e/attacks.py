"""What hostile neighbours do, as programs that run in a Pod and print how each attempt ended; all end by themselves."""

import json
from collections import Counter

from e2e.pushes import Door
from e2e.studies import CONFINED, UNPRIVILEGED, Manifest, Studies, python

TOOLS = """
import collections, http.client, json, socket, ssl, sys, threading, time
host, port, token, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
context = ssl._create_unverified_context()
ended = collections.Counter()

def plain():
    return socket.create_connection((host, port), timeout=60)

def tls():
    return context.wrap_socket(plain(), server_hostname=host)

def all_at_once(work, threads):
    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running: thread.start()
    for thread in running: thread.join()

def push(headers):
    connection = http.client.HTTPSConnection(host, port, timeout=60, context=context)
    try:
        connection.request("POST", "/v1/reports", '{"reports": [], "elapsed": 1}', headers)
        ended[str(connection.getresponse().status)] += 1
    except (OSError, http.client.HTTPException):
        ended["refused"] += 1
    finally:
        connection.close()
"""
SAY = """
print(json.dumps(ended))
"""

HALF_OPEN_HANDSHAKES = """
opened = [plain() for _ in range(count)]
for connection in opened:
    try:
        connection.recv(1)
    except ConnectionError:
        pass
    ended["cut off"] += 1
"""

SLOW_LORIS = """
opened = []
for _ in range(count):
    try:
        opened.append(tls())
        opened[-1].sendall(b"POST /v1/reports HTTP/1.1\\r\\nHost: x\\r\\nx: ")
    except OSError:
        ended["cut off"] += 1
while opened:
    time.sleep(0.1)
    for connection in list(opened):
        try:
            connection.sendall(b"x")
        except OSError:
            opened.remove(connection)
            ended["cut off"] += 1
"""

PUSHES_OF_NOBODY = """
all_at_once(lambda: [push({}) for _ in range(count // 5)], 5)
"""

TWO_HUNDRED_A_SECOND = """
begun = time.monotonic()
def every_tenth(first):
    for number in range(first, count, 10):
        time.sleep(max(0.0, begun + number / 200 - time.monotonic()))
        push({"Authorization": "Bearer " + token})
numbers = iter(range(10))
all_at_once(lambda: every_tenth(next(numbers)), 10)
ended["milliseconds"] = round(1000 * (time.monotonic() - begun))
"""


def attacker(studies: Studies) -> Manifest:
    """A Pod of its own, with nothing but an address and time."""
    container = {"name": "trainer", "image": studies.cluster.trainer_image, "command": ["sleep", "3000"]}
    spec = {"securityContext": UNPRIVILEGED, "containers": [{**container, "securityContext": CONFINED}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "attacker"}, "spec": spec}


def run(studies: Studies, pod: str, attack: str, door: Door, *, count: int, bearer: str = "none") -> Counter[str]:
    """Runs an attack on the operator in the trainer of a Pod; how often an attempt ended how."""
    command = (*python(TOOLS + attack + SAY), door.host, str(door.port), bearer, str(count))
    said = studies.kubectl("exec", pod, "--container=trainer", "--", *command)
    return Counter(json.loads(said))
