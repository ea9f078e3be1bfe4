"""Where the leader can be reached: the EndpointSlice of a Service without a selector, written by whoever leads."""

from ipaddress import ip_address

from halvard.kube import ENDPOINT_SLICES, SERVICES, Kube, Manifest, NotFound

MANAGER = "halvard.dev"


class Address:
    """The EndpointSlice that bears the Service's name and holds one address, this Pod's."""

    def __init__(self, kube: Kube, namespace: str, service: str, pod_ip: str, port: int) -> None:
        """`port` is where this process listens; raises ValueError where `pod_ip` is no address."""
        self._kube = kube
        self._namespace = namespace
        self._service = service
        self._ip = ip_address(pod_ip)
        self._port = port

    async def write(self) -> None:
        """Sees to it that the Service leads here, and writes nothing where it does already; raises KubeError."""
        service = await self._kube.get(SERVICES, self._namespace, self._service)
        wanted = self._manifest(service)
        try:
            stored = await self._kube.get(ENDPOINT_SLICES, self._namespace, self._service)
        except NotFound:
            await self._kube.create(ENDPOINT_SLICES, self._namespace, wanted)
            return
        metadata = {**stored["metadata"], **wanted["metadata"]}
        if stored != {**stored, **wanted, "metadata": metadata}:
            wanted["metadata"] = metadata
            await self._kube.replace(ENDPOINT_SLICES, self._namespace, self._service, wanted)

    def _manifest(self, service: Manifest) -> Manifest:
        owner = {"apiVersion": "v1", "kind": "Service", "name": self._service, "uid": service["metadata"]["uid"]}
        labels = {"kubernetes.io/service-name": self._service, "endpointslice.kubernetes.io/managed-by": MANAGER}
        conditions = {"ready": True, "serving": True, "terminating": False}
        # kube-proxy finds the port by its name, which is the Service's to choose
        name = service["spec"]["ports"][0].get("name", "")
        return {
            "apiVersion": ENDPOINT_SLICES.api_version,
            "kind": "EndpointSlice",
            "metadata": {"name": self._service, "labels": labels, "ownerReferences": [owner]},
            "addressType": f"IPv{self._ip.version}",
            "endpoints": [{"addresses": [str(self._ip)], "conditions": conditions}],
            "ports": [{"name": name, "port": self._port, "protocol": "TCP"}],
        }
