from __future__ import annotations

import pytest

from conforma.oci.proxies import Proxies

ENVIRONMENT = {
    "HTTPS_PROXY": "http://proxy.example:3128",
    "http_proxy": "plain.example:8080",
    "NO_PROXY": "internal.example, .sub.example,10.0.0.0/8,[2001:db8::]/32,exact.example:5000,",
}


@pytest.mark.parametrize(
    ("scheme", "host", "port", "expected"),
    [
        ("https", "registry.example", 443, "http://proxy.example:3128"),
        ("http", "registry.example", 80, "http://plain.example:8080"),
        ("https", "internal.example", 443, None),
        ("https", "a.internal.example", 443, None),
        ("https", "notinternal.example", 443, "http://proxy.example:3128"),
        ("https", "x.sub.example", 443, None),
        ("https", "10.1.2.3", 443, None),
        ("https", "11.1.2.3", 443, "http://proxy.example:3128"),
        ("https", "2001:db8::5", 443, None),
        ("https", "exact.example", 5000, None),
        ("https", "exact.example", 443, "http://proxy.example:3128"),
        ("https", "localhost", 443, None),
        ("http", "127.0.0.1", 5000, None),
        ("http", "::1", 5000, None),
    ],
)
def test_the_environment_decides_who_goes_through_a_proxy(
    scheme: str, host: str, port: int, expected: str | None
) -> None:
    assert Proxies.from_environment(ENVIRONMENT).for_host(scheme, host, port) == expected


def test_a_star_means_no_proxy_for_anybody() -> None:
    proxies = Proxies.from_environment({**ENVIRONMENT, "NO_PROXY": "*"})
    assert proxies.for_host("https", "registry.example", 443) is None


def test_all_proxy_serves_both_schemes() -> None:
    proxies = Proxies.from_environment({"ALL_PROXY": "http://all.example"})
    assert proxies.for_host("http", "a.example", 80) == "http://all.example"
    assert proxies.for_host("https", "a.example", 443) == "http://all.example"
    assert Proxies.from_environment({}).for_host("https", "a.example", 443) is None
