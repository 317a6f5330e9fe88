# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What users say of their servers (names, descriptions, host names, addresses, tags), and how it finds them."""

from __future__ import annotations

from typing import Any

import pytest
from patience import wait

C = "/compute/v2.1"


def show(who: Any, server_id: str) -> dict[str, Any]:
    response = who.get(f"{C}/servers/{server_id}")
    assert response.status_code == 200, response.text
    return response.json()["server"]


def active(who: Any, server_id: str) -> None:
    wait(lambda: show(who, server_id)["status"] == "ACTIVE")


def names(who: Any, **query: str) -> set[str]:
    response = who.get(f"{C}/servers", params=query)
    assert response.status_code == 200, response.text
    return {server["name"] for server in response.json()["servers"]}


def test_what_is_said_at_creation_is_shown_and_changed_later(api, create):
    said = {"description": "first", "hostname": "db.example", "accessIPv4": "192.0.2.1", "accessIPv6": "2001:db8::1"}
    server_id = create(**said, **{"OS-DCF:diskConfig": "AUTO"})["server"]["id"]
    path = f"{C}/servers/{server_id}"

    def told(**expected: Any) -> bool:
        server = show(api, server_id)
        return {**server, "hostname": server["OS-EXT-SRV-ATTR:hostname"]}.items() >= expected.items()

    assert told(**said, **{"OS-DCF:diskConfig": "AUTO"})
    assert api.put(path, json={"server": {"name": "two"}}).status_code == 200
    assert told(**said, name="two")
    changed = {"description": None, "accessIPv4": "", "hostname": "db2", "OS-DCF:diskConfig": "MANUAL"}
    answer = api.put(path, json={"server": changed})
    assert answer.json()["server"].items() >= {"description": None, "accessIPv4": ""}.items()
    assert told(**changed, accessIPv6="2001:db8::1")
    for wrong in ({"hostname": "-x"}, {"accessIPv4": "300.1.1.1"}, {"description": "x" * 256}, {"name": ""}):
        assert api.put(path, json={"server": wrong}).status_code == 400
    assert api.at("2.18").put(path, json={"server": {"description": "x"}}).status_code == 400
    assert api.at("2.89").put(path, json={"server": {"hostname": "x"}}).status_code == 400
    assert api.at("2.93").put(path, json={"server": {"hostname": "x.example"}}).status_code == 400


def test_who_creates_a_server_is_told_its_password_and_nobody_later(api, create):
    made = create(adminPass="given")["server"]
    assert made["adminPass"] == "given"
    assert len(create()["server"]["adminPass"]) == 12
    assert "given" not in api.get(f"{C}/servers/{made['id']}").text


def test_a_host_name_follows_from_the_name_unless_it_is_asked_for(api, create):
    assert show(api, create(name="My Café!")["server"]["id"])["OS-EXT-SRV-ATTR:hostname"] == "my-caf"
    made = create(name="n", hostname="web.example", max_count=2, return_reservation_id=True)
    listed = api.get(f"{C}/servers/detail", params=made).json()["servers"]
    hostnames = {server["name"]: server["OS-EXT-SRV-ATTR:hostname"] for server in listed}
    assert hostnames == {"n-1": "web-1.example", "n-2": "web-2.example"}
    body = {"name": "n", "flavorRef": listed[0]["flavor"]["original_name"], "networks": "none", "max_count": 2}
    assert api.post(f"{C}/servers", json={"server": {**body, "hostname": "x" * 63}}).status_code == 400


def test_tags_are_put_on_servers_and_taken_off(api, create):
    server_id = create(tags=["b", "a", "b"])["server"]["id"]
    path = f"{C}/servers/{server_id}/tags"
    assert show(api, server_id)["tags"] == ["a", "b"]
    assert api.get(path).json() == {"tags": ["a", "b"]}
    active(api, server_id)
    added = api.put(f"{path}/c")
    assert (added.status_code, added.headers["Location"].endswith("/tags/c")) == (201, True)
    assert api.put(f"{path}/c").status_code == 204
    assert api.get(f"{path}/c").status_code == 204
    assert api.delete(f"{path}/c").status_code == 204
    for missing in (api.get(f"{path}/c"), api.delete(f"{path}/c")):
        assert missing.status_code == 404
        assert "has no tag 'c'" in missing.json()["itemNotFound"]["message"]
    many = [f"tag-{number}" for number in range(50)]
    assert api.put(path, json={"tags": many}).json() == {"tags": sorted(many)}
    assert "exceeded" in api.put(f"{path}/one-more").json()["badRequest"]["message"]
    for wrong in ({"tags": [*many, "x"]}, {"tags": ["a,b"]}, {"tags": ["a/b"]}, {"tags": ["x" * 61]}, {"tags": [""]}):
        assert api.put(path, json=wrong).status_code == 400
    assert api.put(f"{path}/a,b").status_code == 400
    assert api.delete(path).status_code == 204
    assert api.get(path).json() == {"tags": []}
    assert api.at("2.25").get(path).status_code == 404


def test_only_members_of_the_project_change_tags(api, create):
    user = api.user("tagger")
    server_id = create(user, tags=["a"])["server"]["id"]
    active(user, server_id)
    path = f"{C}/servers/{server_id}/tags"
    reader, stranger = api.user("tagger", roles="reader"), api.user("stranger")
    assert reader.get(path).json() == {"tags": ["a"]}
    assert {reader.put(f"{path}/b").status_code, reader.delete(path).status_code} == {403}
    assert {stranger.put(f"{path}/b").status_code, stranger.get(f"{path}/a").status_code} == {404}


@pytest.mark.parametrize("by", ["operator", "user"])
def test_servers_are_found_by_what_is_said_of_them(api, create, by):
    who = api if by == "operator" else api.user("finder")
    for name, tags, description in (("x", ["red", "big"], "old one"), ("y", ["red"], "new one"), ("z", [], None)):
        create(who, name=name, tags=tags, description=description, accessIPv4=f"192.0.2.{ord(name)}")
    assert names(who, tags="red") == {"x", "y"}
    assert names(who, tags="red,big") == {"x"}
    assert names(who, **{"tags-any": "big,other"}) == {"x"}
    assert names(who, **{"not-tags": "red,big"}) == {"y", "z"}
    assert names(who, **{"not-tags-any": "red,big"}) == {"z"}
    assert names(who.at("2.25"), tags="big") == {"x", "y", "z"}  # not known there: left out, as in Nova
    assert names(who, locked="false") == {"x", "y", "z"}
    assert names(who, locked="true") == set()
    found = names(who, description="old.*", access_ip_v4="192.0.2.120", hostname="x")
    assert found == ({"x"} if by == "operator" else {"x", "y", "z"})
    order = {"sort_key": "display_description", "sort_dir": "desc"}
    listed = who.get(f"{C}/servers", params=order).json()["servers"]
    assert [server["name"] for server in listed] == ["x", "y", "z"]


def test_what_other_services_would_hang_on_a_server_is_missing_not_broken(api, create):
    server_id = create()["server"]["id"]
    path = f"{C}/servers/{server_id}"
    assert api.get(f"{path}/ips").json() == {"addresses": {}}
    assert api.get(f"{path}/ips/private").status_code == 404
    for collection in ("os-interface", "os-volume_attachments"):
        assert api.get(f"{path}/{collection}").status_code == 200
        for method in ("GET", "PUT", "DELETE"):
            assert api.request(method, f"{path}/{collection}/nothing", json={}).status_code == 404
        assert api.post(f"{path}/{collection}", json={}).status_code == 400
