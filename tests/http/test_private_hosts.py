"""Host names that need no setting: those for which no public resolver has an address."""

import pytest
from fastapi.testclient import TestClient

from app.config import Settings
from app.main import create_app
from tests.helpers import words

# Reserved for home networks and tests, and never delegated.
PRIVATE = words(
    """movies.home.arpa nas.movies.home.arpa:8000 MOVIES.HOME.ARPA movies.test movies.lan:8000
    movies.default.svc movies.default.svc:8000 movies.default.svc.cluster.local"""
)
WITH_A_DOT_AT_THE_END = words(
    """localhost. movies. movies.local. movies.lan. movies.home.arpa.:8000 127.0.0.1. movies.svc.
    movies.test. movies.internal.:8000 movies.localhost."""
)
WITH_A_ZONE = words("[fe80::1%eth0] [fe80::1%25eth0]:8000 [fe80::1%25en0.1] [fe80::1%1]")
# Names under delegated top-level domains, including some that home routers use, and near misses.
PUBLIC = words(
    """fritz.box movies.fritz.box movies.box. movies.home movies.arpa home.arpa evilhome.arpa
    movies.home.arpa.example movies.lan.example movies.test.example movies.svc.example movies.dev
    movies.zip movies.app movies.wlan mytest.example svc.example speedport.ip movies.corp
    movies.cluster movies.lan..  [fe80::1%] [fe80::1%25eth0].example [fe80::1%eth0%1]
    [fe80::1%evil.example/]"""
)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return only SQLite: the engine does not matter here."""
    return sqlite_url


def statuses(client: TestClient, hosts: tuple[str, ...]) -> dict[str, int]:
    """Return the status of a request for each host."""
    return {host: client.get("/health", headers={"Host": host}).status_code for host in hosts}


@pytest.mark.parametrize("hosts", [PRIVATE, WITH_A_DOT_AT_THE_END, WITH_A_ZONE])
def test_private_host_is_answered_without_a_setting(
    client: TestClient, hosts: tuple[str, ...]
) -> None:
    assert statuses(client, hosts) == dict.fromkeys(hosts, 200)


def test_name_under_a_delegated_domain_is_refused(client: TestClient) -> None:
    assert statuses(client, PUBLIC) == dict.fromkeys(PUBLIC, 400)


def test_name_that_a_router_made_up_is_answered_once_it_is_allowed(sqlite_url: str) -> None:
    settings = Settings(database_url=sqlite_url, allowed_hosts="movies.fritz.box.")  # type: ignore[arg-type] # the environment's form
    hosts = words("movies.fritz.box movies.fritz.box. movies.fritz.box:8000")

    with TestClient(create_app(settings)) as client:
        assert statuses(client, hosts) == dict.fromkeys(hosts, 200)
        assert statuses(client, ("fritz.box",)) == {"fritz.box": 400}
