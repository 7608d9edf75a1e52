"""Downloads by HTTP that cannot be led into a private network.

A public address may redirect to a private one, and a public name may resolve to one (and to another at the next
question): so the address itself is checked, at every connection that is made, after the name is resolved.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import urllib.request
from pathlib import Path


class PrivateAddress(OSError):
    """A connection to an address that is not public was refused."""


def guarded_connection(address: tuple[str, int], timeout=None, source_address=None) -> socket.socket:
    """`socket.create_connection` to public addresses only.

    Raises:
        PrivateAddress: the name resolves to a private, loopback, link-local, reserved or multicast address.
    """
    host, port = address
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, place in found:
        ip = ipaddress.ip_address(str(place[0]).split("%")[0])
        inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None) or ip
        if not inner.is_global or inner.is_multicast:
            raise PrivateAddress(f"{host} is {ip}, which is not public")
    last: OSError = OSError(f"{host}: no address")
    for *_, place in found:  # connect to what was checked: the name is not resolved again
        try:
            return socket.create_connection((str(place[0]), port), timeout, source_address)
        except OSError as e:
            last = e
    raise last


class _Http(http.client.HTTPConnection):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._create_connection = guarded_connection


class _Https(http.client.HTTPSConnection):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._create_connection = guarded_connection


class _HttpHandler(urllib.request.HTTPHandler):
    def http_open(self, request):
        return self.do_open(_Http, request)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def https_open(self, request):
        return self.do_open(_Https, request, context=self._context)  # type: ignore[attr-defined]


def download(url: str, target: Path, most: int, seconds: float = 60.0) -> None:
    """Fetch a URL into a file, following redirects, whole or not at all.

    Args:
        most: bytes; a longer answer is refused when it gets there, whatever its Content-Length says.
        seconds: without a byte.

    Raises:
        PrivateAddress: see above. OSError: the server refused, or sent less than it announced, or more than `most`.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _HttpHandler, _HttpsHandler)
    opener.addheaders = [("User-Agent", "headwater-data")]
    with opener.open(url, timeout=seconds) as answer, open(target, "wb") as out:
        announced = answer.headers.get("Content-Length")
        while piece := answer.read(1 << 20):
            out.write(piece)
            if out.tell() > most:
                raise OSError(f"more than {most} bytes; raise max_bytes if that is right")
        if announced is not None and announced.isdigit() and out.tell() != int(announced):
            raise OSError(f"ended after {out.tell()} of {announced} bytes")
