"""The collector endpoint's certificates: an authority of our own, kept in a directory; its CA travels with each Pod."""

import asyncio
import contextlib
import hashlib
import logging
import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=1095)
RENEW_BEFORE = timedelta(days=365)  # looked at when the operator starts, and no operator runs for a year
CLOCK_SKEW = timedelta(hours=1)
LOOK_SECONDS = 60.0  # a kubelet takes about as long to renew the files of a Secret

log = logging.getLogger(__name__)


class TlsError(Exception):
    """There is no certificate to serve with; the message names the file and what is wrong with it."""


class CaReplaced(Exception):  # noqa: N818  # what happened, not a mistake
    """There is another CA now: Pods that are started from here on have to be given it."""


@dataclass(frozen=True, slots=True)
class Tls:
    """What a server needs (the two files) and what its clients need (`ca_pem`); equal while the files are the same."""

    ca_pem: str
    cert_file: Path
    key_file: Path
    fingerprint: str = ""

    def server_context(self) -> ssl.SSLContext:
        """Returns the context to listen with; raises TlsError where a file is not what its name says."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            raise TlsError(f"{self.cert_file} and {self.key_file} are no certificate with its key: {error}") from error
        try:
            context.load_verify_locations(cadata=self.ca_pem)  # as the sidecars do
        except (OSError, ValueError) as error:
            raise TlsError(f"{self.cert_file.with_name('ca.crt')} is no CA for sidecars to believe: {error}") from error
        return context


@dataclass(frozen=True, slots=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def load_or_create(directory: Path, names: Sequence[str], *, now: datetime | None = None) -> Tls:
    """Returns the certificates of `directory`, made or renewed where needed for these DNS names and IP addresses.

    With `ca.crt`, `tls.crt` and `tls.key` but no `ca.key` it is somebody else's (a mounted Secret): used as it is.
    Raises TlsError where there are none and none can be made.
    """
    now = now or datetime.now(UTC)
    tls = (directory / "ca.crt", directory / "tls.crt", directory / "tls.key")
    if not (directory / "ca.key").exists() and all(path.exists() for path in tls):
        return _tls(directory)
    authority = _load(directory, "ca")
    if authority is None or not _lasts(authority.certificate, now):
        authority = _replace_authority(directory, authority, now)
    server = _load(directory, "tls")
    if server is None or not _lasts(server.certificate, now) or not _serves(server.certificate, authority, names):
        _store(directory, "tls", _make_server(authority, names, now))
    return _tls(directory)


async def watch(
    directory: Path, tls: Tls, renewed: Callable[[ssl.SSLContext], None], period: float = LOOK_SECONDS
) -> None:
    """Hands over a new context whenever the certificate in `directory` is another one; raises CaReplaced.

    What does not fit together (a Secret that is half written) is left alone until it does.
    """
    while True:
        await asyncio.sleep(period)
        try:
            found = _tls(directory)
            if found == tls:
                continue
            context = found.server_context()
        except (OSError, ValueError, TlsError) as error:
            log.warning("the renewed certificate is not taken yet: %s", error)
            continue
        if found.ca_pem != tls.ca_pem:
            raise CaReplaced(f"{directory}/ca.crt is another one now")
        log.info("the renewed certificate is taken: %s", tls.cert_file)
        renewed(context)
        tls = found


def _tls(directory: Path) -> Tls:
    certificate, key = directory / "tls.crt", directory / "tls.key"
    fingerprint = hashlib.sha256(certificate.read_bytes() + key.read_bytes()).hexdigest()
    return Tls((directory / "ca.crt").read_text(), certificate, key, fingerprint)


def _load(directory: Path, name: str) -> _Pair | None:
    """The stored pair, or None where it is missing, damaged, or half written."""
    try:
        certificate = x509.load_pem_x509_certificate((directory / f"{name}.crt").read_bytes())
        key = serialization.load_pem_private_key((directory / f"{name}.key").read_bytes(), password=None)
    except (OSError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None
    return _Pair(certificate, key)


def _lasts(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE


def _serves(certificate: x509.Certificate, authority: _Pair, names: Sequence[str]) -> bool:
    """Whether this authority signed it, for at least these names."""
    try:
        certificate.verify_directly_issued_by(authority.certificate)
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, InvalidSignature, ValueError, TypeError):
        return False
    return set(_general_names(names)) <= set(alternatives)


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    return [_general_name(name) for name in names]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _replace_authority(directory: Path, given: _Pair | None, now: datetime) -> _Pair:
    """Makes a new one; where the files are not ours to replace, the given one is used to its end."""
    made = _make_authority(now)
    try:
        _store(directory, "ca", made)
    except TlsError as error:
        if given is None:
            raise TlsError(
                f"{directory}: ca.crt and ca.key are no certificate with its ECDSA key, and {error}"
            ) from error
        begins, ends = given.certificate.not_valid_before_utc, given.certificate.not_valid_after_utc
        if not begins <= now < ends:
            raise TlsError(f"{directory}/ca.crt is valid from {begins} to {ends}, it is {now}, and {error}") from error
        log.warning("%s/ca.crt is valid until %s and has to be renewed by whoever made it: %s", directory, ends, error)
        return given
    return made


def _make_authority(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "halvard collector CA")])
    usage = _usage(key_cert_sign=True, crl_sign=True)
    certificate = (
        _builder(subject, subject, key, now, now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return _Pair(certificate, key)


def _make_server(authority: _Pair, names: Sequence[str], now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "halvard collector")])
    until = min(now + LIFETIME, authority.certificate.not_valid_after_utc)
    certificate = (
        _builder(subject, authority.certificate.subject, key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(_key_identifier(authority), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return _Pair(certificate, key)


def _key_identifier(authority: _Pair) -> x509.AuthorityKeyIdentifier:
    """As the authority's certificate has it: not everybody hashes a key as we do (Go does not), and clients compare."""
    try:
        own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    public_key = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _store(directory: Path, name: str, pair: _Pair) -> None:
    """Key first: a certificate without its key would look like somebody else's directory."""
    key = pair.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(directory / f"{name}.key", key)
    _write(directory / f"{name}.crt", pair.certificate.public_bytes(serialization.Encoding.PEM))


def _write(path: Path, content: bytes) -> None:
    """Replaces the file at once, and never readable by others; raises TlsError where it cannot."""
    temporary = path.with_suffix(f"{path.suffix}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.replace(path)
    except OSError as error:
        raise TlsError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
