"""An S3 endpoint is a server of storage, and not a way into the network."""

import socket

import pytest

from envoys.endpoints import RefusedEndpointError, check_endpoint
from envoys.storage import director_storage, read_object
from tests.factories import make_envoy


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://s3.example.org",
        "s3.example.org",
        "http://",
        "http://user:secret@8.8.8.8",
        "http://8.8.8.8/admin",
        "http://8.8.8.8?x=1",
        "http://8.8.8.8:port",
    ],
)
def test_what_is_no_address_of_a_server_is_refused(url):
    with pytest.raises(RefusedEndpointError, match="no URL of a server") as refused:
        check_endpoint(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "0.0.0.0",
        "[::]",
        "224.0.0.1",
        "[::ffff:169.254.169.254]",
        "[2002:a9fe:a9fe::1]",  # the same by 6to4
        "[fec0::1]",
        "192.0.0.192",
        "168.63.129.16",
        "2852039166",  # 169.254.169.254 as one number
        "0xa9.0xfe.0xa9.0xfe",
    ],
)
@pytest.mark.parametrize("may_be_inside", [True, False])
def test_a_clouds_own_addresses_are_refused_whatever_is_allowed(settings, host, may_be_inside):
    settings.S3_ENDPOINT_IS_INSIDE = may_be_inside
    with pytest.raises(RefusedEndpointError, match="where no storage can be"):
        check_endpoint(f"http://{host}")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.1.2.3", "192.168.0.9", "[::1]"])
def test_the_inside_is_refused_unless_somebody_said_that_storage_is_there(settings, host):
    settings.S3_ENDPOINT_IS_INSIDE = True
    check_endpoint(f"http://{host}:9000")
    settings.S3_ENDPOINT_IS_INSIDE = False
    with pytest.raises(RefusedEndpointError, match="TECHLIFE_S3_ENDPOINT_IS_INSIDE=true"):
        check_endpoint(f"http://{host}:9000")


def test_a_name_is_judged_by_where_it_leads(settings, monkeypatch):
    settings.S3_ENDPOINT_IS_INSIDE = False

    def resolve(host, port, **options):
        addresses = {"s3.example.org": "93.184.215.14", "inside.example.org": "10.0.0.1"}
        if host not in addresses:
            raise socket.gaierror("no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (addresses[host], port or 443))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    check_endpoint("https://s3.example.org")
    check_endpoint("https://unknown.example.org")  # asking it will say so
    with pytest.raises(RefusedEndpointError, match=r"10\.0\.0\.1"):
        check_endpoint("https://inside.example.org")


@pytest.mark.django_db
def test_no_object_is_asked_for_at_a_refused_endpoint(settings):
    settings.DIRECTOR_S3_BUCKET_NAME = "director"
    settings.AWS_S3_ENDPOINT_URL = "http://169.254.169.254"
    with pytest.raises(RefusedEndpointError):
        read_object(director_storage(), "latest/meta-data", sha256=None)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "region", ["x.evil.example/#", "eu@evil.example", "eu\nHost: x", "eu west"]
)
def test_a_region_leads_nowhere_else(region):
    from envoys.services import InvalidEnvoyError, edit_envoy

    with pytest.raises(InvalidEnvoyError, match="cannot be a region"):
        edit_envoy(make_envoy(), region=region, edited_by=None)
