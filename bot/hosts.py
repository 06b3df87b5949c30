"""(Pure) host names and addresses, as the owner writes them into settings."""

import ipaddress
import re
from urllib.parse import urlsplit

_HOST = re.compile(
    r"(?:(?P<scheme>https?)://)?"
    r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*)"
    r"(?::(?P<port>\d{1,5}))?"
)


def is_loopback(host: str) -> bool:
    """Says whether a host is this machine, as nobody else reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def web_name(text: str) -> str:
    """Returns a name as browsers send it: in small letters, without the scheme's own port.

    Raises:
        ValueError: it is no name.
    """
    found = _HOST.fullmatch(text.lower().removesuffix("/"))
    if found is None or int(found["port"] or 1) not in range(1, 65536):
        raise ValueError("one of them is no name")
    scheme = found["scheme"] or ("http" if found["port"] else None)
    if scheme is None:
        return found["host"]
    is_default = found["port"] in (None, {"http": "80", "https": "443"}[scheme])
    return f"{scheme}://{found['host']}" + ("" if is_default else f":{int(found['port'])}")


def check_host(host: str) -> None:
    """Checks that a host is written so that it can be looked up.

    Raises:
        ValueError: it is not.
    """
    try:
        host.encode("idna")  # as every look-up does: each part has 1 to 63 letters
    except UnicodeError:
        raise ValueError("it is no address") from None


def check_address(address: str) -> None:
    """Checks that an address is a host and a port, such as ``10.0.0.2:6379``.

    Raises:
        ValueError: it is not; the text says how.
    """
    host, _, port = address.rpartition(":")
    if not _HOST.fullmatch(host.lower()) or "/" in host or not port.isdecimal():
        raise ValueError("it is no such address")
    if not 1 <= int(port) <= 65_535:
        raise ValueError("there is no such port")
    check_host(host)


def private_url(url: str, private: str, plain: str) -> str:
    """Returns an address without a trailing slash.

    The token travels to it, so that an open connection is fine on this machine alone.

    Args:
        url: as it was written.
        private: the scheme of an encrypted connection.
        plain: that of an open one.

    Raises:
        ValueError: it is none to send a token to; the text says why.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port  # a bad one raises
    except ValueError:
        raise ValueError("it is no address") from None
    if parts.scheme not in (private, plain) or not host or not url.isprintable() or " " in url:
        raise ValueError("it is no such address")
    check_host(host)
    if parts.username or parts.password:
        raise ValueError("it holds a user name or password")
    if parts.scheme == plain and not is_loopback(host):
        raise ValueError("the token would travel unencrypted")
    return url.rstrip("/")
