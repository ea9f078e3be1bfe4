"""The CA that the chart makes is one that operators can sign with and sidecars believe."""

import base64
from pathlib import Path

from cluster.chart import one, render
from halvard.tls import load_or_create
from tlsclient import shake_hands

NAME = "halvard.halvard-system.svc"


def test_a_strict_client_accepts_what_is_signed_by_helms_ca(tmp_path: Path) -> None:
    for name, content in one(render(), "Secret", "halvard-ca")["data"].items():
        (tmp_path / name).write_bytes(base64.b64decode(content))
    given = (tmp_path / "ca.crt").read_text()
    assert "BEGIN EC PRIVATE KEY" in (tmp_path / "ca.key").read_text()
    (tmp_path / "ca.key.new").mkdir()  # it is mounted read-only: nothing is made in its place
    tls = load_or_create(tmp_path, [NAME])
    assert tls.ca_pem == given
    shake_hands(tls, given, NAME)
