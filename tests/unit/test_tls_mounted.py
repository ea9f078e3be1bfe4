"""Certificates that are somebody else's: a CA that is mounted file by file, a Secret that is renewed while we run."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from halvard import tls as module
from halvard.tls import CaReplaced, Tls, TlsError, load_or_create
from tlsclient import shake_hands

NAME = "halvard.halvard-system.svc"
NOW = datetime.now(UTC)
CAN_MOUNT = shutil.which("unshare") and not subprocess.run(["unshare", "-rm", "true"], check=False).returncode


def helms_ca(directory: Path, days: int = 3650) -> None:
    """Writes `ca.crt` and `ca.key` as Helm's genCAWithKey with an ECDSA key does, by Go of 2025."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "halvard-ca")])
    point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    both = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
    usage = dict.fromkeys(["digital_signature", "key_encipherment", "key_cert_sign"], True)
    unused = ["content_commitment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only", "decipher_only"]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=3650 - days, minutes=1))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.KeyUsage(**usage, **dict.fromkeys(unused, False)), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(hashlib.sha256(point).digest()[:20]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.TraditionalOpenSSL  # BEGIN EC PRIVATE KEY
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (directory / "ca.key").write_bytes(pem)
    (directory / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def make_read_only(directory: Path) -> None:
    """Nothing can be written in place of the CA: something stands where its new key would be made."""
    (directory / "ca.key.new").mkdir()


def test_a_ca_made_by_helm_signs_what_a_strict_client_accepts(tmp_path: Path) -> None:
    helms_ca(tmp_path)
    given = (tmp_path / "ca.crt").read_text()
    tls = load_or_create(tmp_path, [NAME])
    assert tls.ca_pem == given
    shake_hands(tls, given, NAME)


def test_two_operators_with_the_same_ca_are_both_believed(tmp_path: Path) -> None:
    helms_ca(tmp_path)
    given = (tmp_path / "ca.crt").read_text()
    for name in ("one", "two"):
        shutil.copytree(tmp_path, tmp_path / name, ignore=shutil.ignore_patterns("one", "two"))
        shake_hands(load_or_create(tmp_path / name, [NAME]), given, NAME)


def test_a_ca_that_cannot_be_replaced_is_used_to_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    helms_ca(tmp_path, days=30)
    make_read_only(tmp_path)
    tls = load_or_create(tmp_path, [NAME])
    shake_hands(tls, tls.ca_pem, NAME)
    ours, theirs = (x509.load_pem_x509_certificate((tmp_path / f"{name}.crt").read_bytes()) for name in ("tls", "ca"))
    assert ours.not_valid_after_utc == theirs.not_valid_after_utc
    assert "has to be renewed by whoever made it" in caplog.text


@pytest.mark.parametrize(("days", "words"), [(-1, "is valid from .* to .*, it is"), (3651, "is valid from")])
def test_a_ca_that_is_not_valid_and_cannot_be_replaced_is_named(tmp_path: Path, days: int, words: str) -> None:
    helms_ca(tmp_path, days)
    make_read_only(tmp_path)
    with pytest.raises(TlsError, match=rf"ca\.crt {words}"):
        load_or_create(tmp_path, [NAME])


@pytest.mark.parametrize("damaged", ["ca.crt", "ca.key"])
def test_a_damaged_ca_that_cannot_be_replaced_is_named(tmp_path: Path, damaged: str) -> None:
    helms_ca(tmp_path)
    (tmp_path / damaged).write_text("no such thing")
    make_read_only(tmp_path)
    with pytest.raises(TlsError, match=r"ca\.crt and ca\.key are no certificate with its ECDSA key"):
        load_or_create(tmp_path, [NAME])


def test_a_mounted_certificate_without_its_key_is_named(tmp_path: Path) -> None:
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (tmp_path / name).write_text("no such thing")
    with pytest.raises(TlsError, match=r"tls\.crt and .*tls\.key are no certificate with its key"):
        load_or_create(tmp_path, [NAME]).server_context()


@pytest.mark.parametrize("ca", ["", "no such thing"])
def test_a_mounted_ca_that_is_none_is_named(tmp_path: Path, ca: str) -> None:
    load_or_create(tmp_path, [NAME])
    (tmp_path / "ca.key").unlink()
    (tmp_path / "ca.crt").write_text(ca)
    with pytest.raises(TlsError, match=r"ca\.crt is no CA for sidecars to believe"):
        load_or_create(tmp_path, [NAME]).server_context()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TlsError, match="cannot be written: Not a directory"):
        load_or_create(tmp_path / "file" / "tls", [NAME])


MOUNT = """
for file in ca.crt ca.key; do
    touch $2/$file
    mount --bind $1/$file $2/$file
    mount -o remount,bind,ro $2/$file
done
exec "$3" -c "$4" $2
"""
LOAD = """
import sys
from pathlib import Path
from halvard.tls import load_or_create
print(load_or_create(Path(sys.argv[1]), ["halvard.halvard-system.svc"]).ca_pem)
"""


@pytest.mark.skipif(not CAN_MOUNT, reason="nothing can be mounted here")
@pytest.mark.parametrize("days", [3650, 30])
def test_files_that_a_kubelet_mounts_one_by_one_do(tmp_path: Path, days: int) -> None:
    secret, directory = tmp_path / "secret", tmp_path / "tls"
    secret.mkdir()
    directory.mkdir()
    helms_ca(secret, days)
    command = ["unshare", "-rm", "sh", "-ec", MOUNT, "sh", str(secret), str(directory), sys.executable, LOAD]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    given = (secret / "ca.crt").read_text()
    assert (done.returncode, done.stdout.strip()) == (0, given.strip()), done.stderr
    assert ("has to be renewed" in done.stderr) == (days == 30)
    shake_hands(Tls(given, directory / "tls.crt", directory / "tls.key"), given, NAME)


class Secret:
    """A Secret as a kubelet mounts it: the files are links into a directory that is replaced at once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.versions = 0
        self.renew()
        for name in ("ca.crt", "tls.crt", "tls.key"):
            (directory / name).symlink_to(f"..data/{name}")

    def renew(self, ca: Path | None = None) -> Path:
        """Puts a new certificate there, of this CA or of a new one; where it is made."""
        self.versions += 1
        made = self.directory / f"..{self.versions}"
        if ca:
            made.mkdir()
            for name in ("ca.crt", "ca.key"):
                shutil.copy(ca / name, made)
        load_or_create(made, [NAME])
        self.show(made)
        return made

    def show(self, made: Path) -> None:
        """Shows this version of the files."""
        link = self.directory / "..new"
        link.symlink_to(made.name)
        link.rename(self.directory / "..data")


@contextlib.asynccontextmanager
async def watched(secret: Secret) -> AsyncIterator[tuple[asyncio.Queue[ssl.SSLContext], asyncio.Task[None]]]:
    renewed: asyncio.Queue[ssl.SSLContext] = asyncio.Queue()
    tls = load_or_create(secret.directory, [NAME])
    watching = asyncio.create_task(module.watch(secret.directory, tls, renewed.put_nowait, period=0.01))
    try:
        yield renewed, watching
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def test_a_renewed_certificate_is_taken_once(tmp_path: Path) -> None:
    secret = Secret(tmp_path)
    ca = tmp_path / "..1"
    async with watched(secret) as (renewed, _):
        for _ in range(2):
            secret.renew(ca)
            await asyncio.wait_for(renewed.get(), 30)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(renewed.get(), 0.2)


async def test_a_half_written_one_is_left_alone_until_it_fits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(tmp_path)
    broken = tmp_path / "..broken"
    shutil.copytree(tmp_path / "..1", broken)
    (broken / "tls.key").write_bytes(b"")
    async with watched(secret) as (renewed, _):
        secret.show(broken)
        async with asyncio.timeout(30):
            while "is not taken yet" not in caplog.text:  # noqa: ASYNC110  # a log has no events
                await asyncio.sleep(0.01)
        assert renewed.empty()
        secret.renew(tmp_path / "..1")
        await asyncio.wait_for(renewed.get(), 30)


async def test_another_ca_is_a_reason_to_start_anew(tmp_path: Path) -> None:
    secret = Secret(tmp_path)
    async with watched(secret) as (renewed, watching):
        secret.renew()
        with pytest.raises(CaReplaced, match=r"ca\.crt is another one now"):
            await asyncio.wait_for(asyncio.shield(watching), 30)
        assert renewed.empty()
