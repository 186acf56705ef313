"""`ringserve certificates`, by what a node and a router make of them."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest

from pipeline.launcher import certificates
from pipeline.launcher.certificates import NODE, ROUTER, OpensslError, make_certificates
from pipeline.link.tls import CertificateError, node_context, router_context


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    make_certificates(folder, ["127.0.0.1", "node.example"])
    return folder


def files(folder, role):
    return folder / "ca.pem", folder / f"{role}.pem", folder / f"{role}.key"


def handshake(node, router, host):
    """The protocol, or what the router or the node says."""
    near, far = socket.socketpair()
    said = []

    def serve():
        try:
            with node.wrap_socket(far, server_side=True) as served:
                said.append(served.version())
                served.sendall(b"!")
        except OSError as error:
            said.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with router.wrap_socket(near, server_hostname=host) as linked:
            linked.recv(1)
    except OSError as error:
        said.insert(0, error)
    near.close()
    thread.join()
    far.close()
    return said[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "node.example"])
def test_a_router_and_a_node_know_each_other(folder, host):
    assert handshake(node_context(*files(folder, NODE)), router_context(*files(folder, ROUTER)), host) == "TLSv1.3"


def test_a_node_is_who_its_certificate_names(folder):
    said = handshake(node_context(*files(folder, NODE)), router_context(*files(folder, ROUTER)), "other.example")
    assert "Hostname mismatch" in said.verify_message


def test_neither_can_stand_in_for_the_other(folder):
    for node, router in ((NODE, NODE), (ROUTER, ROUTER)):
        contexts = node_context(*files(folder, node)), router_context(*files(folder, router))
        assert isinstance(handshake(*contexts, "127.0.0.1"), ssl.SSLError)


def test_the_authority_stays_and_keys_are_its_owners(folder):
    before = (folder / "ca.pem").read_bytes()
    made = make_certificates(folder, ["127.0.0.1"])
    assert (folder / "ca.pem").read_bytes() == before
    assert [path.name for path in made if path.stat().st_mode & 0o77] == []


def test_what_can_not_be_used_is_named(folder, tmp_path):
    ca, certificate, key = files(folder, NODE)
    (tmp_path / "none.pem").write_text("no certificate")
    with pytest.raises(CertificateError, match=r"pipeline\.link\.ca: .*none\.pem is no certificate"):
        node_context(tmp_path / "none.pem", certificate, key)
    with pytest.raises(CertificateError, match=r"pipeline\.link\.certificate and \.key: .* do not go together"):
        node_context(ca, certificate, folder / "router.key")
    with pytest.raises(CertificateError, match="No such file"):
        node_context(tmp_path / "missing.pem", certificate, key)


def test_without_openssl(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OpensslError, match="the program openssl is needed"):
        make_certificates(tmp_path / "made", ["127.0.0.1"])


def test_a_host_that_is_none_is_said_by_openssl(folder, capsys):
    options = certificates.argparse.Namespace(folder=folder, host=["a,b=c"])
    assert certificates.run(options) == 1
    assert "no certificates were made: openssl x509" in capsys.readouterr().err
