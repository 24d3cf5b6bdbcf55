"""
nginx and Caddy with the configurations of docs/proxies, on a free loopback port before a server.

Of a configuration only this is replaced: ports, and where the certificate is.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from benchmarks.process import free_port
from tests.end_to_end.running import PATIENCE, ROOT, eventually

NAME = "api.example.org"
EXAMPLES = ROOT / "docs" / "proxies"
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"  # where Debian has nginx

NGINX = """
{user}
daemon off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/example;
}}
"""
CADDY = """
{{
    admin off
    auto_https disable_redirects
    default_bind 127.0.0.1
    https_port {port}
    local_certs
    skip_install_trust
    storage file_system {folder}
}}
import {folder}/example
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """`prepare` takes the folder and the port, writes what is needed, returns the command."""

    example: str
    prepare: Callable[[Path, int], list[str]]
    certificate: str  # within the folder
    refuses_metrics: int  # the status


def program(name: str) -> str:
    found = shutil.which(name, path=SYSTEM_PATH)
    if found is None:
        pytest.skip(f"no {name} (Debian: {name})")
    return found


def replace_once(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, (old, text)
    return text.replace(old, new)


def prepare_nginx(folder: Path, port: int) -> list[str]:
    request = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        f"/CN={NAME}",
    ]
    names = ["-addext", f"subjectAltName=DNS:{NAME}"]
    files = ["-out", folder / f"{NAME}.pem", "-keyout", folder / f"{NAME}.key"]
    subprocess.run([program("openssl"), *request, *names, *files], check=True, capture_output=True)
    example = folder / "example"
    text = replace_once(example.read_text(), "listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    example.write_text(text.replace("/etc/ssl/", f"{folder}/"))
    user = "user root;" if os.geteuid() == 0 else ""  # others may not read the folder
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, user=user))
    return [program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def prepare_caddy(folder: Path, port: int) -> list[str]:
    (folder / "Caddyfile").write_text(CADDY.format(folder=folder, port=port))
    return [program("caddy"), "run", "--config", str(folder / "Caddyfile")]


KINDS = {
    "nginx": Kind("nginx.conf", prepare_nginx, f"{NAME}.pem", 403),
    "caddy": Kind("Caddyfile", prepare_caddy, "pki/authorities/local/root.crt", 404),
}


class Proxy:
    """One of KINDS before the server on this port."""

    def __init__(self, kind: Kind, server_port: int) -> None:
        self.kind, self.port = kind, free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="tiedlm-proxy-"))
        text = (EXAMPLES / kind.example).read_text()
        example = replace_once(text, "127.0.0.1:8000", f"127.0.0.1:{server_port}")
        (self.folder / "example").write_text(example)
        self.log = (self.folder / "log").open("w+")
        self.process = subprocess.Popen(
            kind.prepare(self.folder, self.port),
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)},
        )
        eventually(self._is_up)
        self.http = self.client()

    def _is_up(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            with self.client() as client:
                return client.get("/health").status_code == 200
        except (httpx.TransportError, FileNotFoundError):
            return False

    def client(self) -> httpx.Client:
        """Of the public name, whose certificate it checks."""
        trust = ssl.create_default_context(cafile=self.folder / self.kind.certificate)

        def name_the_server(request: httpx.Request) -> None:
            request.extensions["sni_hostname"] = NAME

        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            headers={"Host": NAME},
            verify=trust,
            timeout=PATIENCE,
            event_hooks={"request": [name_the_server]},
        )

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()  # Caddy waits for what still runs
            self.log.close()
        shutil.rmtree(self.folder)
