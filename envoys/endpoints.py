"""Where S3 may be: not at an address that would make this server ask its own network."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from django.conf import settings

from envoys.errors import StorageError

Address = IPv4Address | IPv6Address
# What a cloud tells its machines, their credentials among it, where it is no link-local address.
METADATA = {
    ip_address(each)
    for each in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
}


class RefusedEndpointError(StorageError):
    """An endpoint that is none, or that this installation does not trust."""


def check_endpoint(url: str) -> None:
    """Refuse an S3 endpoint that is no plain URL, or that leads to the inside of the network.

    Raises:
        RefusedEndpointError: it says what to change. A name that cannot be resolved now is not
            refused: asking it fails in words of its own.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    has_more = parts.username or parts.password or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not host or has_more or parts.path.strip("/"):
        raise RefusedEndpointError(
            "AWS_S3_ENDPOINT_URL is no URL of a server: it takes http:// or https://, a host and"
            " perhaps a port, without a user, a path or a query"
        )
    for address in _addresses(host, port):
        if is_never_s3(address):
            raise RefusedEndpointError(
                f"AWS_S3_ENDPOINT_URL leads to {address}, where no storage can be: it takes the"
                " address of an S3 server"
            )
        if not settings.S3_ENDPOINT_IS_INSIDE and not address.is_global:
            raise RefusedEndpointError(
                f"AWS_S3_ENDPOINT_URL leads to {address}, inside the network: if the S3 server is"
                " there, say so with TECHLIFE_S3_ENDPOINT_IS_INSIDE=true"
            )


def is_never_s3(address: Address) -> bool:
    """Addresses of a link, of nobody or of many, and of a cloud's own services."""
    return (
        address.is_link_local
        or (isinstance(address, IPv6Address) and address.is_site_local)
        or address.is_unspecified
        or address.is_multicast
        or (address.is_reserved and not address.is_loopback)
        or address in METADATA
    )


def _addresses(host: str, port: int | None) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    addresses = [ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    return [_as_ipv4(each) for each in addresses]


def _as_ipv4(address: Address) -> Address:
    if not isinstance(address, IPv6Address):
        return address
    return address.ipv4_mapped or address.sixtofour or address
