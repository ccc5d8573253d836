"""Certificates that change while they are used."""

from pathlib import Path

import pytest
from agones_fake.certificates import Authority

from gameserver.certificates import CertificateError, CertificateFiles, ServerCertificate


def test_a_mounted_secret_is_taken_up_as_a_kubelet_swaps_it(tmp_path: Path) -> None:
    """All files change with one symbolic link; a Secret of another key, and one without a certificate, change nothing."""
    authority, link = Authority("a"), tmp_path / "..data"

    def mount(version: str, certificate: bytes, key: bytes) -> None:
        (tmp_path / version).mkdir()
        (tmp_path / version / "tls.crt").write_bytes(certificate)
        (tmp_path / version / "tls.key").write_bytes(key)
        (tmp_path / "..new").symlink_to(version)
        (tmp_path / "..new").rename(link)

    first, second = authority.issue("server", server=True), authority.issue("server", server=True)
    mount("v1", *first)
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    served = ServerCertificate(CertificateFiles(certificate=tmp_path / "tls.crt", key=tmp_path / "tls.key"))
    assert not served.refresh()
    mount("v2", second[0], first[1])
    with pytest.raises(CertificateError, match="is not the key of"):
        served.refresh()
    mount("v3", b"", second[1])
    with pytest.raises(CertificateError, match="no PEM certificate"):
        served.refresh()
    mount("v4", *second)
    assert served.refresh()
    assert not served.refresh()
