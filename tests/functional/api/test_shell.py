# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What all services on the port share."""

from __future__ import annotations

import re

import pytest
import requests

REQUEST_ID = re.compile(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/healthcheck", "/metrics", "/compute", "/compute/", "/compute/v2.1", "/compute/v2.1/", "/placement"),
        *("/placement/", "/accelerator", "/accelerator/v2", "/accelerator/v2/", "/v1", "/v1/"),
    ],
)
def test_what_says_what_is_there_is_public(api, path):
    response = requests.get(api.url + path, timeout=10)
    assert response.status_code == 200
    assert REQUEST_ID.fullmatch(response.headers["x-openstack-request-id"])


@pytest.mark.parametrize(
    ("path", "low", "high"),
    [
        ("/compute/v2.1/", (2, 1), (2, 96)),
        ("/placement/", (1, 0), (1, 39)),
        ("/accelerator/v2/", (2, 0), (2, 3)),
        ("/v1/", None, None),
    ],
)
def test_keystoneauth_discovers_each_service(api, path, low, high):
    from keystoneauth1 import discover, session, token_endpoint

    client = session.Session(token_endpoint.Token(api.url, "admin"))
    (data,) = discover.Discover(client, api.url + path).version_data()
    assert (data["min_microversion"], data["max_microversion"]) == (low, high)
    assert data["url"].startswith(api.url)


FORMS = [
    ("/compute/v2.1", lambda body, name: body[name]["code"]),
    ("/placement", lambda body, _name: body["errors"][0]["status"]),
    ("/v1", lambda body, _name: body["errors"][0]["status"]),
    ("/nothing", lambda body, _name: body["errors"][0]["status"]),
]


@pytest.mark.parametrize(("prefix", "code"), FORMS)
def test_an_unknown_path_is_a_404_in_the_form_of_its_service(api, prefix, code):
    response = api.get(prefix + "/no/such/thing")
    assert response.status_code == code(response.json(), "itemNotFound") == 404


@pytest.mark.parametrize(("prefix", "code"), FORMS)
def test_a_body_above_the_bound_is_a_413_in_the_form_of_its_service(api, prefix, code):
    body = b" " * (1024 * 1024 + 1)
    response = api.post(prefix + "/x", data=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    if response.headers["Content-Type"].startswith("application/json"):
        assert code(response.json(), "overLimit") == 413


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"null", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b'{"flavor": {"name": NaN}}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
    ],
)
def test_what_is_no_json_object_is_refused(api, data, content_type, status):
    response = api.post("/compute/v2.1/flavors", data=data, headers={"Content-Type": content_type})
    assert response.status_code == status, response.text
    (error,) = response.json().values()
    assert error["code"] == status
    assert len(response.content) < 2000


def test_a_method_that_is_not_there_is_a_405_that_says_which_are(api):
    response = api.delete("/compute/v2.1/flavors")
    assert response.status_code == 405
    assert response.json()["badMethod"]["code"] == 405
    assert "GET" in response.headers["Allow"]


def test_microversions_are_negotiated_and_told(api):
    answer = api.at("2.10").get("/compute/v2.1/servers")
    assert answer.headers["OpenStack-API-Version"] == "compute 2.10"
    assert answer.headers["X-OpenStack-Nova-API-Version"] == "2.10"
    assert "OpenStack-API-Version" in answer.headers["Vary"]
    refused = api.at("2.999").get("/compute/v2.1/servers")
    assert refused.status_code == 406
    assert "2.96" in refused.json()["computeFault"]["message"]
    assert api.at("two").get("/compute/v2.1/servers").status_code == 400


def test_metrics_count_requests_without_letting_clients_name_labels(api):
    api.get("/compute/v2.1/flavors")
    api.request("BREW", "/compute/v2.1/flavors")
    api.get("/some-secret-path")
    text = api.get("/metrics").text
    assert 'accelsched_http_requests_total{method="GET",service="compute",status="200"}' in text
    assert 'method="OTHER",service="compute"' in text
    assert 'accelsched_http_request_duration_seconds_bucket{le="0.1",method="GET",service="compute"}' in text
    assert "BREW" not in text
    assert "secret" not in text


def test_flavors_are_checked_and_duplicates_conflict(api):
    flavor = {"name": "shell", "id": "shell", "ram": 64, "vcpus": 1, "disk": 1}
    path = "/compute/v2.1/flavors"
    assert api.post(path, json={"flavor": flavor}).status_code == 200
    try:
        for change in ({"id": "other"}, {"name": "other"}):
            response = api.post(path, json={"flavor": flavor | change})
            assert response.status_code == 409
            assert response.json()["conflictingRequest"]["code"] == 409
        for change in ({"ram": 0}, {"vcpus": "0"}, {"disk": -1}, {"name": " x"}, {"id": "a/b"}, {"colour": "red"}):
            response = api.post(path, json={"flavor": flavor | {"name": "n", "id": "i"} | change})
            assert response.status_code == 400, change
        assert (
            api.post(f"{path}/shell/os-extra_specs", json={"extra_specs": {"resources:VGPU": "x"}}).status_code == 400
        )
        assert api.get(f"{path}/shell/os-extra_specs").json() == {"extra_specs": {}}
    finally:
        assert api.delete(f"{path}/shell").status_code == 202
    assert api.get(f"{path}/shell").status_code == 404


def test_a_flavor_shows_what_its_microversion_shows(api):
    flavor = {"name": "old", "id": "old", "ram": 64, "vcpus": 1, "disk": 1}
    path = "/compute/v2.1/flavors"
    assert api.post(path, json={"flavor": {**flavor, "description": "d"}}).status_code == 200
    try:
        for version, description, specs, swap in (
            ("2.1", False, False, ""),
            ("2.55", True, False, ""),
            ("2.61", True, True, ""),
            ("2.75", True, True, 0),
        ):
            shown = api.at(version).get(f"{path}/old").json()["flavor"]
            assert ("description" in shown, "extra_specs" in shown, shown["swap"]) == (description, specs, swap)
        assert api.at("2.54").post(path, json={"flavor": {**flavor, "description": "d"}}).status_code == 400
        assert api.at("2.54").put(f"{path}/old", json={"flavor": {"description": "e"}}).status_code == 404
    finally:
        api.delete(f"{path}/old")


def test_private_flavors_are_there_for_those_who_were_given_them(api):
    flavor = {"name": "own", "id": "own", "ram": 64, "vcpus": 1, "disk": 1, "os-flavor-access:is_public": False}
    path = "/compute/v2.1/flavors"
    alice = api.user("alice")
    everybodys = alice.get(path).json()["flavors"]
    assert api.post(path, json={"flavor": flavor}).status_code == 200
    try:
        assert alice.get(f"{path}/own").status_code == 404
        grant = {"addTenantAccess": {"tenant": "alice"}}
        assert api.post(f"{path}/own/action", json=grant).json() == {
            "flavor_access": [{"flavor_id": "own", "tenant_id": "alice"}]
        }
        assert api.post(f"{path}/own/action", json=grant).status_code == 409
        assert alice.get(f"{path}/own").status_code == 200
        assert [f["id"] for f in alice.get(path).json()["flavors"] if f not in everybodys] == ["own"]
        assert api.post(f"{path}/own/action", json={"removeTenantAccess": {"tenant": "alice"}}).ok
        assert alice.get(path).json()["flavors"] == everybodys
        assert api.post(f"{path}/own/action", json={"removeTenantAccess": {"tenant": "alice"}}).status_code == 404
    finally:
        api.delete(f"{path}/own")
