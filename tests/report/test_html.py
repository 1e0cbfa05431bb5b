"""The page: what it says without a browser, and that it works in one."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from conforma.errors import RegistryUnreachable
from conforma.findings import PolicyWarning, Violation
from conforma.validate.result import Report
from tests.report.samples import (
    ACCEPTED,
    FUTURE,
    REJECTED,
    SIGNED,
    TERMS,
    component,
    full,
    report,
    text_of,
    undecided,
)

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
INLINE = {"a", "span", "strong", "time"}
VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """The page as people see it: visible text, elements by id, and visible findings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.ids: dict[str, list[str]] = {}
        self.findings: list[str] = []
        self.hidden_ids: set[str] = set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag not in INLINE:
            self.handle_data(" ")
        if tag not in VOID:
            self.open.append((tag, attributes))
        if identity := attributes.get("id"):
            assert identity not in self.ids, "an id is there twice"
            self.ids[identity] = []
            if "hidden" in attributes:
                self.hidden_ids.add(identity)
        if "data-c" in attributes and not self.is_hidden:
            self.findings.append("")

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self.open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"

    def handle_data(self, data: str) -> None:
        for _, attributes in self.open:
            if identity := attributes.get("id"):
                self.ids[identity].append(data)
        if not self.is_hidden:
            self.pieces.append(data)
            if any("data-c" in attributes for _, attributes in self.open):
                self.findings[-1] += data

    @property
    def is_hidden(self) -> bool:
        return any("hidden" in attributes for _, attributes in self.open)

    @property
    def text(self) -> str:
        return " ".join("".join(self.pieces).split())

    def of(self, identity: str) -> str:
        return " ".join("".join(self.ids[identity]).split())


def page_of(result: Report, **options: bool) -> Page:
    return Page(text_of(result, "html", **options))


def shop() -> Report:
    """Two components with violations of two rules, warnings, successes, and one undecided."""
    return report(
        component("web", violations=(TERMS, REJECTED), warnings=(FUTURE,), successes=(SIGNED,)),
        component(
            "api", "reg.example/shop/api@sha256:2222", violations=(REJECTED,), successes=(ACCEPTED,)
        ),
        component("mail", "reg.example/shop/mail:1.0", error=RegistryUnreachable("no answer")),
        snapshot="team/release",
    )


def test_says_the_verdict_and_groups_findings_by_rule() -> None:
    page = page_of(shop(), show_successes=True)
    assert "Must not be released" in page.text
    assert "Snapshot team/release, judged as of 2025-07-20T12:00:00Z" in page.text
    assert page.of("violation").startswith("Violations 3 ✕ Reject with term rule")
    rejector = page.of("violation").partition("✕ Reject rule")[2]
    assert rejector.startswith(
        " main.rejector 2 components This rule will always fail. Solution None "
        "The policy configuration can exclude this rule: main.rejector "
    )
    assert rejector.count("Fails always") == 2
    assert "main.reject_with_term:term2" in page.of("violation")
    assert "In force from" not in page.of("violation")
    assert "Too old." in page.of("warning")
    assert "Image signature check passed" in page.of("success")


def test_names_what_could_not_be_decided_before_anything_else() -> None:
    page = page_of(undecided())
    assert "? Could not be decided" in page.text
    assert page.of("undecided") == (
        "Could not be decided 1 This is no statement about these images: something kept conforma "
        "from judging them. ? api reg.example/shop/api:1.0 reg.example/shop/api:1.0: did not "
        "answer What to try try later"
    )
    assert "undecided" in page.of("components")


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (report(component(successes=(SIGNED,))), "✓ May be released"),
        (report(component(warnings=(FUTURE,))), "! May be released, with warnings"),
        (full(), "✕ Must not be released"),
        (report(component()), "– Nothing was checked"),
    ],
)
def test_the_heading_is_the_verdict(result: Report, words: str) -> None:
    shown = text_of(result, "html")
    assert f"<title>{words} · conforma</title>" in shown
    assert words in page_of(result).text


def test_options_decide_about_warnings_and_successes() -> None:
    quiet = page_of(shop(), show_warnings=False)
    assert "Too old." not in quiet.text and "success" not in quiet.ids
    assert "Too old." in page_of(shop()).text


def test_is_readable_without_scripts() -> None:
    page = page_of(shop(), show_successes=True)
    assert len(page.findings) == 6
    assert {"filter", "theme"} <= page.hidden_ids, "what needs the script shows with the script"


def test_prose_has_code_and_links_but_messages_have_not() -> None:
    rule = {
        "code": "a.b",
        "description": "Set `a<b`, see https://docs.example/x?a=1&b=2.",
        "solution": "javascript:alert(1) http://plain.example",
    }
    violation = Violation("See https://evil.example `now`", rule)
    shown = text_of(report(component(violations=(violation,))), "html")
    assert (
        "Set <code>a&lt;b</code>, see "
        '<a href="https://docs.example/x?a=1&amp;b=2" rel="noopener noreferrer">'
        "https://docs.example/x?a=1&amp;b=2</a>."
    ) in shown
    assert "See https://evil.example `now`</p>" in shown
    assert re.findall(r'href="(?!#|https://docs|data:)', shown) == []


def test_a_long_list_and_a_long_message_are_folded() -> None:
    many = report(
        component(
            violations=tuple(Violation(f"number {n}", {"code": "a.b"}) for n in range(25)),
            warnings=(PolicyWarning("w" * 5000, {"code": "a.c"}),),
        )
    )
    shown = text_of(many, "html")
    assert '<details class="more"><summary>Show 5 more findings</summary>' in shown
    assert "5,000 characters, show all" in shown
    assert len(page_of(many).findings) == 26


def test_loads_nothing_and_permits_only_its_own_style_and_script() -> None:
    shown = text_of(full(), "html")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', shown)
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/=]+'; script-src 'sha256-[\w+/=]+'; "
        r"img-src data:; base-uri 'none'; form-action 'none'",
        html.unescape(policy),
    )
    assert shown.count("<script>") == shown.count("<style>") == 1
    assert " style=" not in shown
    assert re.findall(r"\son\w+=", shown) == []


# From here on in a real browser.

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def opened(file: Path, fragment: str, profile: Path) -> str:
    """The document after its script has run, as the browser has it."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-dev-shm-usage",
            f"--user-data-dir={profile}", "--virtual-time-budget=5000", "--dump-dom",
            f"{file.as_uri()}{fragment}",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout.decode()


@pytest.fixture
def shop_page(tmp_path: Path) -> Path:
    file = tmp_path / "report.html"
    file.write_text(text_of(shop(), "html", show_successes=True))
    return file


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize(
    ("fragment", "status", "shown"),
    [
        ("", "All 6 findings are shown.", 6),
        ("#filter?component=api", "2 of 6 findings are shown.", 2),
        ("#filter?hide=success%2Cwarning", "3 of 6 findings are shown.", 3),
        ("#filter?words=TERM3", "1 of 6 findings are shown.", 1),
        ("#filter?words=reject+rule&component=web&hide=success", "2 of 6 findings are shown.", 2),
        ("#filter?words=no-such-thing", "0 of 6 findings are shown.", 0),
        ("#filter?component=nobody", "All 6 findings are shown.", 6),
    ],
)
def test_filters_in_chromium(
    shop_page: Path, tmp_path: Path, fragment: str, status: str, shown: int
) -> None:
    page = Page(opened(shop_page, fragment, tmp_path / "profile"))
    assert "filter" not in page.hidden_ids, "the script did not run"
    assert page.of("status") == status
    assert len(page.findings) == shown
    if "component=api" in fragment:
        assert all("Component api" in " ".join(finding.split()) for finding in page.findings)
    if shown == 0:
        assert {"violation", "warning", "success"} <= page.hidden_ids


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A server that notes what it is asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def attack(address: str) -> str:
    return (
        f"<script>document.title='gone';fetch('{address}/script')</script>"
        f"<img src={address}/image onerror=\"document.title='gone'\">"
        f"<link rel=stylesheet href={address}/style><iframe src={address}/frame></iframe>"
    )


@pytest.mark.slow
@in_browser
def test_a_message_with_markup_is_text_in_chromium(
    tmp_path: Path, listener: tuple[str, list[str]]
) -> None:
    address, asked = listener
    message = attack(address)
    rule = {"code": message, "title": message, "description": message, "term": message}
    file = tmp_path / "report.html"
    hostile = report(component(message, violations=(Violation(message, rule),)), snapshot=message)
    file.write_text(text_of(hostile, "html"))
    dom = opened(file, f"#filter?component={quote(message, safe='')}", tmp_path / "profile")
    assert "<title>✕ Must not be released" in dom
    page = Page(dom)
    assert page.of("status") == "The one finding is shown."
    assert message in page.of("violation")
    assert asked == []


@pytest.mark.slow
@in_browser
def test_markup_that_got_past_the_escaping_could_neither_run_nor_load(
    tmp_path: Path, listener: tuple[str, list[str]]
) -> None:
    address, asked = listener
    file = tmp_path / "report.html"
    page = text_of(full(), "html")
    # Without the policy the attack works, or the test below would prove nothing.
    naked = re.sub(r"<meta http-equiv=[^>]*>", "", page).replace(
        "</main>", f"{attack(address)}</main>"
    )
    file.write_text(naked)
    assert "<title>gone" in opened(file, "", tmp_path / "profile")
    assert {"/script", "/image", "/style", "/frame"} <= set(asked)
    asked.clear()
    file.write_text(page.replace("</main>", f"{attack(address)}</main>"))
    dom = opened(file, "", tmp_path / "other-profile")
    assert "<title>✕ Must not be released" in dom
    assert asked == []
