"""A TLS client that is as strict as Python 3.13 is, for tests of certificates."""

import ssl

from halvard.tls import Tls


def shake_hands(server: Tls, ca_pem: str, name: str) -> None:
    """A TLS handshake in memory; raises ssl.SSLError where it fails."""
    context = ssl.create_default_context(cadata=ca_pem)
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=name)
    other = server.server_context().wrap_bio(to_server, to_client, server_side=True)
    done = 0
    while done < 2:
        done = 0
        for side in (client, other):
            try:
                side.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                pass
