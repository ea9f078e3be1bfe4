import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from halvard.tls import CA_LIFETIME, LIFETIME, RENEW_BEFORE, Tls, load_or_create
from tlsclient import shake_hands

NAMES = ["halvard.halvard-system.svc", "127.0.0.1"]


@pytest.mark.parametrize("name", NAMES)
def test_a_strict_client_with_the_ca_accepts_every_name(tmp_path: Path, name: str) -> None:
    tls = load_or_create(tmp_path, NAMES)
    shake_hands(tls, tls.ca_pem, name)


def test_a_name_that_was_not_asked_for_is_not_served(tmp_path: Path) -> None:
    tls = load_or_create(tmp_path, NAMES)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(tls, tls.ca_pem, "elsewhere.example.com")


def test_another_authority_is_not_believed(tmp_path: Path) -> None:
    tls, stranger = load_or_create(tmp_path / "ours", NAMES), load_or_create(tmp_path / "theirs", NAMES)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(stranger, tls.ca_pem, NAMES[0])


def test_only_the_owner_reads_the_files(tmp_path: Path) -> None:
    load_or_create(tmp_path, NAMES)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert dict.fromkeys(["ca.crt", "ca.key", "tls.crt", "tls.key"], 0o600) == modes


def test_what_is_there_is_used_again(tmp_path: Path) -> None:
    first = read(load_or_create(tmp_path, NAMES))
    assert first == read(load_or_create(tmp_path, NAMES[:1]))


def test_a_new_name_gets_a_new_certificate_of_the_same_authority(tmp_path: Path) -> None:
    first = load_or_create(tmp_path, NAMES)
    second = load_or_create(tmp_path, [*NAMES, "halvard.example.com"])
    shake_hands(second, first.ca_pem, "halvard.example.com")


def test_a_certificate_near_its_end_is_renewed_by_the_same_authority(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    first = read(load_or_create(tmp_path, NAMES, now=now - LIFETIME + RENEW_BEFORE))
    assert first == read(load_or_create(tmp_path, NAMES, now=now - timedelta(seconds=1)))
    renewed = load_or_create(tmp_path, NAMES, now=now)
    assert first[0] == renewed.ca_pem
    assert first != read(renewed)
    shake_hands(renewed, first[0], NAMES[0])


def test_an_authority_near_its_end_is_replaced_and_so_is_what_it_signed(tmp_path: Path) -> None:
    first = load_or_create(tmp_path, NAMES, now=datetime.now(UTC) - CA_LIFETIME + RENEW_BEFORE)
    second = load_or_create(tmp_path, NAMES)
    assert first.ca_pem != second.ca_pem
    shake_hands(second, second.ca_pem, NAMES[0])


@pytest.mark.parametrize("damaged", ["ca.crt", "ca.key", "tls.crt", "tls.key"])
def test_a_damaged_file_is_replaced(tmp_path: Path, damaged: str) -> None:
    load_or_create(tmp_path, NAMES)
    (tmp_path / damaged).write_text("no such thing")
    tls = load_or_create(tmp_path, NAMES)
    shake_hands(tls, tls.ca_pem, NAMES[0])


def test_a_key_that_does_not_belong_to_its_certificate_is_replaced(tmp_path: Path) -> None:
    tls, other = load_or_create(tmp_path / "ours", NAMES), load_or_create(tmp_path / "other", NAMES)
    tls.key_file.write_bytes(other.key_file.read_bytes())
    again = load_or_create(tmp_path / "ours", NAMES)
    shake_hands(again, tls.ca_pem, NAMES[0])


def test_a_mounted_secret_without_the_authoritys_key_is_used_as_it_is(tmp_path: Path) -> None:
    mounted = read(load_or_create(tmp_path, NAMES))
    (tmp_path / "ca.key").unlink()
    assert mounted == read(load_or_create(tmp_path, ["a.name.it.does.not.have"]))


def read(tls: Tls) -> tuple[str, str, str]:
    return tls.ca_pem, tls.cert_file.read_text(), tls.key_file.read_text()
