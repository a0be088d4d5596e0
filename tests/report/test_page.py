"""The page in a real headless Chromium: it shows what was measured, runs nothing it was given, asks no network."""

import json
import shutil

import numpy as np
import pytest
from made_runs import LABELS, make_items, make_judge, make_run

from distjudge_trl.evaluation import human_side, item_kl
from distjudge_trl.report.build import build_report


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>",
    "</script><script>window.hacked = 1</script><!--",
    '"><svg onload=window.hacked=1> {{ 7 * 7 }} ${alert(1)} \u2028 \U0001f600 <b>bold</b>',
    '<a href="javascript:window.hacked=1">click</a>',
)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture()
def open_page(browser):
    """Open a report; fails on script errors, refused resources and any request but the file itself."""
    problems, pages = [], []

    def load(path):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
        page.on("request", lambda r: None if r.url == path.as_uri() else problems.append(f"request {r.url}"))
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-ready=true]", timeout=60_000)
        pages.append(page)
        return page

    load.problems = problems
    yield load
    for page in pages:
        page.close()
    assert not problems


def report(folder, **changes):
    list(build_report([folder / "runs"], folder / "out", **changes))
    return folder / "out" / "index.html"


def test_items_are_sorted_filtered_and_paged(tmp_path, open_page):
    records = make_items()
    log_q = make_judge(records, 1.0)
    make_run(tmp_path / "runs" / "sp", records, make_judge(records, 0.5), method="single-point")
    make_run(tmp_path / "runs" / "d", records, log_q)
    page = open_page(report(tmp_path))
    assert page.locator(".js-plotly-plot").count() == 3
    assert page.locator("#judge option:checked").inner_text() == "distribution"
    p, _ = human_side(records)
    kls = item_kl(p, log_q)
    worst = [records["id"][i] for i in np.argsort(-kls)[:10]]
    shown = [text.split("KL")[0].strip() for text in page.locator(".item h3").all_inner_texts()]
    assert shown == worst
    assert f"KL {kls.max():.3f}" in page.locator(".item h3").first.inner_text()
    assert f"60 of 60 items, mean KL {kls.mean():.3f}; page 1 of 6" in page.locator("#count").inner_text()
    bars = page.locator(".item").first.locator(".bar.judge span").all_inner_texts()
    assert [float(bar) for bar in bars] == pytest.approx(np.exp(log_q[np.argmax(kls)]), abs=0.006)

    page.locator("#next").click()
    assert "page 2 of 6" in page.locator("#count").inner_text()
    page.locator("#majority").select_option(label="neutral")
    neutral = int((p.argmax(-1) == 1).sum())
    assert page.locator("#count").inner_text().startswith(f"{neutral} of 60")
    page.locator("#judged").select_option(label="entailment")
    both = int(((p.argmax(-1) == 1) & (log_q.argmax(-1) == 0)).sum())
    text = page.locator("#count").inner_text()
    assert text.startswith(f"{both} of 60") if both else text == "No item matches."
    for control in ("#majority", "#judged"):
        page.locator(control).select_option(label="any")
    page.locator("#low").fill("1.0")
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(-1)
    assert page.locator("#count").inner_text().startswith(f"{int((entropy >= 1.0).sum())} of 60")
    page.locator("#low").fill("")
    page.locator("#group").select_option(label="group-7 (2)")
    assert page.locator("#count").inner_text().startswith("2 of 60")
    page.locator("#group").select_option(label="any")
    page.locator("#search").fill("ITEM-31")
    assert page.locator(".item").count() == 1
    page.locator("#judge").select_option(label="single-point")
    assert page.locator(".key .judge").first.inner_text() == "single-point"


def test_hostile_texts_stay_texts(tmp_path, open_page):
    records = make_items(12, name=HOSTILE[0], text=HOSTILE[1], group=HOSTILE[3])
    make_run(
        tmp_path / "runs" / "run",
        records,
        make_judge(records, 1.0),
        task=HOSTILE[2],
        method=HOSTILE[0],
        model=f"org {HOSTILE[3]}",
        labels=[f"{label} {text}" for label, text in zip(LABELS, HOSTILE, strict=False)],
        provenance={"git_revision": HOSTILE[1]},
    )
    page = open_page(report(tmp_path, title=HOSTILE[1]))
    page.wait_for_timeout(500)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[onerror], svg[onload]").count() == 0
    assert page.locator("a[href^='javascript:']").count() == 0
    assert page.title() == " ".join(HOSTILE[1].split())
    assert page.locator("h1").inner_text() == HOSTILE[1]
    prompt = page.locator(".prompt").first.inner_text()
    assert HOSTILE[1] in prompt
    assert page.locator(".item h3").first.inner_text().startswith(HOSTILE[0])
    assert HOSTILE[0] in page.locator(".bars .name").first.inner_text()
    assert HOSTILE[0] in page.locator("#judge option:checked").inner_text()
    # What the policy is for: even a script that got in would not run.
    refused = """() => new Promise(done => {
        document.addEventListener('securitypolicyviolation', event => done(event.violatedDirective));
        const script = document.createElement('script');
        script.textContent = 'window.hacked = 1';
        document.body.append(script);
        setTimeout(() => done('nothing was refused'), 2000);
    })"""
    assert page.evaluate(refused).startswith("script-src") and page.evaluate("window.hacked") is None
    # The refusal itself.
    assert len(open_page.problems) == 1 and "Content Security Policy" in open_page.problems.pop()


def test_no_tag_is_left_in_the_data(tmp_path):
    records = make_items(6, name=HOSTILE[1], text=HOSTILE[0])
    make_run(tmp_path / "runs" / "run", records, make_judge(records, 1.0))
    html = report(tmp_path).read_text()
    data = html.split('id="items">')[1].split("</script>")[0]
    assert "<" not in data and json.loads(data)[0]["items"][0]["prompt"][0]["content"].startswith(HOSTILE[0])


def test_a_large_set_is_sampled_and_the_page_says_so(tmp_path, open_page):
    records = make_items(60)
    make_run(tmp_path / "runs" / "run", records, make_judge(records, 1.0))
    page = open_page(report(tmp_path, max_items=20))
    assert "20 of 20 items" in page.locator("#count").inner_text()
    assert "A sample of 20 items each of snli" in page.locator("#browser .caption").inner_text()
    assert open_page(report(tmp_path, max_items=0)).locator("#browser").count() == 0
