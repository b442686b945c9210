"""Reports in the browser: the same figures as the API's, for the same people, as pages and as files."""

import csv
import io
from collections.abc import Mapping
from typing import Any

import httpx2

from api.pages import panels
from lifecycle.backtest import Worth
from tests.api.conftest import Desk
from tests.api.test_leads import an_mql

ALL = ("funnel", "velocity", "sla", "rejections", "criteria")


def rows(file: httpx2.Response) -> list[dict[str, str]]:
    assert file.status_code == 200 and file.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(file.text)))


async def test_everybody_begins_at_a_report_that_they_may_see(desk: Desk) -> None:
    for role, first in (("rep", "sla"), ("manager", "funnel"), ("marketing", "funnel"), ("ops", "funnel")):
        _, client = await desk.as_role(role)
        sent = await client.get("/reports", follow_redirects=False)
        assert (sent.status_code, sent.headers["location"]) == (303, f"/reports/{first}")
        for name in ALL:
            expected = 200 if role != "rep" or name == "sla" else 403
            shown = await client.get(f"/reports/{name}")
            assert shown.status_code == expected, f"{role} {name}"
            assert ('href="/reports/funnel"' in shown.text) == (role != "rep"), "nobody is led where they may not go"


async def test_a_page_and_its_files_say_what_the_api_says(desk: Desk, admin: httpx2.AsyncClient) -> None:
    await an_mql(desk, admin)
    said: Mapping[str, Any] = (await admin.get("/api/reports/funnel")).json()
    filed = rows(await admin.get("/reports/funnel?as=csv&table=stages"))
    assert [(one["stage"], int(one["now"]), int(one["entries"])) for one in filed] == [
        (one["stage"], one["now"], one["entries"]) for one in said["stages"]
    ]
    html = (await admin.get("/reports/funnel")).text
    for text in ('href="/leads?stage=mql"', 'id="stages-chart" role="img"', 'href="/reports/funnel?as=csv&amp;table='):
        assert text in html
    assert (await admin.get("/reports/funnel?as=csv&table=luck")).status_code == 404


async def test_a_rep_sees_only_the_own_clocks(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    owner, (_, other) = await desk.as_owner(lead["owner"]), await desk.as_role("rep")
    mine, none = (await owner.get("/reports/sla")).text, (await other.get("/reports/sla")).text
    assert "Your clocks" in mine and 'id="owners"' not in mine
    assert int(rows(await owner.get("/reports/sla?as=csv&table=overall"))[0]["opened"]) > 0
    assert [int(one["opened"]) for one in rows(await other.get("/reports/sla?as=csv&table=overall"))] == [0, 0, 0]
    assert (await owner.get("/reports/sla?as=csv&table=owners")).status_code == 404
    assert lead["owner"] not in none and lead["owner"] in (await admin.get("/reports/sla")).text


async def test_the_period_stands_in_the_address(admin: httpx2.AsyncClient) -> None:
    html = (await admin.get("/reports/rejections?from=2020-01-01&to=2020-01-31")).text
    assert 'name="from" value="2020-01-01"' in html and 'name="to" value="2020-01-31"' in html
    assert 'href="/reports/velocity?from=2020-01-01&amp;to=2020-01-31"' in html
    assert "Nothing in this period" in html
    assert (await admin.get("/reports/rejections?from=&to=")).status_code == 200, "empty fields ask for nothing"
    for wrong in ("from=2026-02-01&to=2026-01-01", "from=soon"):
        for name in ALL:
            refused = await admin.get(f"/reports/{name}?{wrong}")
            assert refused.status_code == 422 and 'class="problem"' in refused.text and 'name="from"' in refused.text


async def test_criteria_come_at_once_and_their_worth_when_it_is_computed(admin: httpx2.AsyncClient) -> None:
    period = "from=2020-01-01&to=2020-01-31"
    said = await admin.get(f"/api/reports/criteria?{period}")
    html = (await admin.get(f"/reports/criteria?{period}&against=won")).text
    address = f"/reports/criteria/result?{period}&against=won"
    assert f'data-hx-get="{address.replace("&", "&amp;")}"' in html and 'aria-busy="true"' in html
    while 'aria-busy="true"' in (result := (await admin.get(address)).text):
        pass
    assert "Nothing is known yet" in result
    filed = rows(await admin.get(f"{address}&as=csv"))
    assert {one["id"] for one in filed} == {one["id"] for one in said.json()["criteria"]["won"]}


def test_the_criterion_that_tells_most_is_on_top() -> None:
    def one(name: str, came: int, without: int | None) -> Worth:
        share_without = None if without is None else without / 4
        return Worth(
            kind="fit", id=name, with_it=4, came_with=came, share_with=came / 4,
            without_it=0 if without is None else 4, came_without=without or 0, share_without=share_without,
        )  # fmt: skip

    panel = panels.worth([one("size", 2, 2), one("region", 4, None), one("role", 3, 1)], "accepted")
    assert [(row["id"], row["more"]) for row in panel.rows] == [("role", 50), ("size", 0), ("region", None)]
    assert panel.chart and "75% · 25%" in panel.chart and "100% · –" in panel.chart
