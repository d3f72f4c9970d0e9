"""Whom a request comes from, by one rule for lockouts, throttles and rate limits."""

from ipaddress import IPv6Address, ip_address

from django.conf import settings
from django.http import HttpRequest


def client_of(request: HttpRequest) -> str:
    """Whom a call comes from: an IPv4 address, or the network that an IPv6 client has to itself.

    Only the last entries of X-Forwarded-For are by our own proxies; what stands before them
    anybody can write.
    """
    address: str = request.META.get("REMOTE_ADDR", "")
    if settings.NUM_PROXIES:
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "")
        hops = [hop.strip() for hop in forwarded.split(",") if hop.strip()]
        if hops:
            address = _without_port(hops[-min(settings.NUM_PROXIES, len(hops))])
    if ":" not in address:
        return address[:64]
    return _network_of(address)


def _without_port(hop: str) -> str:
    """Some proxies write 203.0.113.7:50001 or [2001:db8::1]:443: each connection has another."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _network_of(address: str) -> str:
    try:
        found = ip_address(address)
    except ValueError:  # nonsense
        return address[:64]
    if not isinstance(found, IPv6Address):
        return str(found)
    return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))
