"""Scans a filled server with wapiti: its pages as a signed-in administrator, and its API; `make scan` runs it.

The server is one to be thrown away (`make demo` in a data directory of its own), with BATON_RATE_LIMIT and
BATON_RATE_LIMIT_ANONYMOUS set to 0. Tells how many findings there are of each level; one that is high or medium fails.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2

URL = os.environ.get("SCAN_URL", "http://127.0.0.1:8000").rstrip("/")
SECONDS = os.environ.get("SCAN_SECONDS", "900")
WAPITI = os.environ.get("WAPITI", "wapiti").split()
REPORTS = Path("scan")
LEVELS = ("", "low", "medium", "high", "critical")
PAGES = (
    "exec,file,sql,xss,permanentxss,redirect,crlf,ldap,cookieflags,csp,http_headers,methods,csrf,upload,xxe,log4shell"
)
API = "exec,file,sql,redirect,crlf,http_headers,xxe"
START = ("leads", "queue", "ops", "tracks", "agreements", "people", "reports", "ops/audit", "search?q=a")


def cookie() -> str:
    """Sign in; return what the browser would send."""
    said = {
        "email": os.environ.get("BATON_ADMIN_EMAIL", "admin@example.com"),
        "password": os.environ["BATON_ADMIN_PASSWORD"],
    }
    answer = httpx2.post(f"{URL}/sign-in", data=said)
    return answer.headers["set-cookie"].split(";")[0]


def scan(name: str, *asked: str) -> list[dict[str, Any]]:
    """Run wapiti; return its findings."""
    report = REPORTS / f"{name}.json"
    state = ("--store-session", str(REPORTS / "state"), "--store-config", str(REPORTS / "config"), "--flush-session")
    limits = ("--max-scan-time", SECONDS, "--max-attack-time", str(max(60, int(SECONDS) // 8)), "--no-bugreport")
    with (REPORTS / f"{name}.txt").open("w") as said:
        command = [*WAPITI, *asked, *state, *limits, "-f", "json", "-o", str(report)]
        subprocess.run(command, stdout=said, stderr=subprocess.STDOUT, check=False)
    told = json.loads(report.read_text())
    found = [
        {**one, "what": what, "said": LEVELS[min(one["level"], 4)]}
        for part in ("vulnerabilities", "anomalies")
        for what, all_ in told[part].items()
        for one in all_
    ]
    print(
        f"{name}: {told['infos']['crawled_pages_nbr']} addresses; found: {dict(Counter(one['said'] for one in found))}"
    )
    for one in found:
        print(f"  {one['said']}: {one['what']}: {one['method']} {one['path']} {one['parameter']}: {one['info']}")
    return found


def main() -> int:
    """Scan both; return 1 if something of weight was found."""
    REPORTS.mkdir(exist_ok=True)
    begin = [word for path in START for word in ("-s", f"{URL}/{path}")]
    leave = [word for path in ("sign-out", "live") for word in ("-x", f"{URL}/{path}")]
    few = ("--max-links-per-page", "40", "--max-files-per-dir", "15", "-d", "4")
    signed_in = ("-C", cookie(), "-H", "Sec-Fetch-Site: same-origin")
    found = scan("pages", "-u", f"{URL}/", *begin, *leave, *few, *signed_in, "-m", PAGES)
    token = f"Authorization: Bearer {os.environ['BATON_ADMIN_TOKEN']}"
    found += scan("api", "-u", f"{URL}/", "--swagger", f"{URL}/api/openapi.json", "-H", token, "-m", API)
    return int(any(one["level"] >= 2 for one in found))


if __name__ == "__main__":
    sys.exit(main())
