"""The report in headless Chromium, with real clicks and keys. Chromium is the system's; nothing is downloaded."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.conftest import make_item, write_items
from tests.report_helpers import RIGHT, UGLY, prediction, write_eval_run, write_example
from video_thinker.evaluation import run as runner
from video_thinker.evaluation.tables import percent, with_interval
from video_thinker.report import command
from video_thinker.report.command import write_report
from video_thinker.report.strips import Strip

pytestmark = [pytest.mark.integration, pytest.mark.browser]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# A promise, not wait_for_function: that one polls by eval, which the page's own security policy forbids.
HEAD_IS_READ = """new Promise((done) => {
  const clip = document.querySelector("#detail video");
  if (clip.readyState >= 1) done();
  else clip.addEventListener("loadedmetadata", () => done(), { once: true });
})"""
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (extra dev)")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """Open a file; whatever the page complains of or asks the network for fails the test."""
    contexts, complaints = [], []

    def open_file(path: Path, anchor: str = "", **settings):
        context = browser.new_context(**{"viewport": {"width": 1300, "height": 850}, **settings})
        context.set_default_timeout(5000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append("a dialog"), dialog.dismiss()))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else complaints.append(r.url))
        page.goto(path.as_uri() + anchor)
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def example(media_root, tmp_path_factory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("example")
    runs = write_example(folder, media_root)
    return write_report(runs, folder / "report.html"), runs


@pytest.fixture
def page(open_page, example):
    return open_page(example[0])


def shown_ids(page) -> list[str]:
    return page.eval_on_selector_all(".row", "rows => rows.map(row => row.dataset.id)")


def selected_id(page) -> str:
    return page.get_attribute(".row[aria-selected=true]", "data-id")


def test_the_table_the_bars_and_metrics_json_agree(page, example):
    for run in example[1][:2]:
        for key, figures in json.loads((run / "metrics.json").read_text()).items():
            row = page.locator(f'tr[data-run="{run.name}"][data-key="{key}"]')
            names = page.locator("table.figures thead th").all_inner_texts()
            cells = dict(zip(names, row.locator("th, td").all_inner_texts(), strict=True))
            expected = with_interval(figures).replace(" (", " ").replace("-", "–").rstrip(")")
            assert cells["accuracy"] == expected
            assert cells["mIoU"] == percent(figures["miou"]) and cells["format"] == percent(figures["format_rate"])
            counts = {name: int(cells[name]) for name in ("items", "correct", "unanswered", "failed")}
            assert list(counts.values()) == [figures[f"num_{k}"] for k in ("samples", *list(counts)[1:])]
            assert sum(int(cells[name]) for name in ("correct", "wrong", "unanswered", "failed")) == counts["items"]
            entry = page.locator(".bars .entry", has=page.locator(f'.name[title="{run}"]')).nth(int("." in key))
            assert entry.locator(".value").inner_text() == expected
            track, bar = (entry.locator(part).bounding_box()["width"] for part in (".bar", ".bar i"))
            assert bar / track == pytest.approx(figures["accuracy"], abs=0.01)


def test_filters_and_their_counts(page):
    expected = {
        "all": ["q0", "q1", "q2", "q3", "q4", "q5", "q6"],
        "wrong": ["q1"],
        "unanswered": ["q2"],
        "failed": ["q3"],
        "lost": ["q1", "q2", "q4"],
        "truncated": ["q6"],
        "differ": ["q1", "q2", "q3"],
    }
    for name, ids in expected.items():
        button = page.locator(f'[data-filter="{name}"]')
        assert button.locator(".n").inner_text() == str(len(ids))
        button.click()
        assert shown_ids(page) == ids
        assert page.locator('#filters [aria-pressed="true"]').get_attribute("data-filter") == name


def test_category_and_search(page):
    page.select_option("#category", "other")
    assert shown_ids(page) == ["q2", "q6"]
    page.select_option("#category", "")
    page.fill("#search", "THIRD</i> color")
    assert shown_ids(page) == ["q1"]
    page.fill("#search", "cannot decode")
    assert shown_ids(page) == ["q3"]
    page.fill("#search", "nowhere to be found")
    assert shown_ids(page) == [] and "No sample passes" in page.inner_text("#detail")
    page.fill("#search", "")
    assert len(shown_ids(page)) == 7


def test_keys(page):
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert selected_id(page) == "q1" and "Which color comes <i>third</i>?" in page.inner_text("#detail .problem")
    page.keyboard.press("ArrowDown")
    assert selected_id(page) == "q2"
    page.keyboard.press("End")
    assert selected_id(page) == "q6"
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "detail"
    page.keyboard.press("ArrowRight")
    assert page.locator(".card").is_visible() and "yellow" in page.inner_text(".card")
    page.keyboard.press("Escape")
    assert page.locator(".card").is_hidden()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("/")
    page.keyboard.type("jkf")  # letters to search for, no commands
    assert page.input_value("#search") == "jkf" and shown_ids(page) == []
    page.keyboard.press("Escape")
    assert page.input_value("#search") == "" and len(shown_ids(page)) == 7
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    assert page.locator('#filters [aria-pressed="true"]').get_attribute("data-filter") == "correct"


def test_a_segment_shows_its_caption_and_thought(page):
    page.click('.row[data-id="q0"]')
    page.hover('.seg[data-owner="A"]')
    card = page.inner_text(".card")
    assert "00:03–00:04" in card and "yellow" in card and "the last" in card and "IoU 1.00" in card
    assert page.locator('.moments li[data-owner="A"]').get_attribute("class") == "on"
    page.mouse.move(5, 5)
    assert page.locator(".card").is_hidden()
    page.focus('.seg[data-owner="gold"]')
    assert "yellow" in page.inner_text(".card")


def test_segments_lie_at_their_times_and_gold_ones_under_predicted_ones(page):
    page.click('.row[data-id="q1"]')
    strip, ours, gold = (page.locator(s).bounding_box() for s in (".strip", '.seg[data-owner="A"]', ".gold-seg"))
    for box, start, end in ((ours, 0.0, 1.0), (gold, 3.0, 4.0)):
        assert box["x"] == pytest.approx(strip["x"] + strip["width"] * start / 4, abs=2)
        assert box["width"] == pytest.approx(strip["width"] * (end - start) / 4, abs=2)
    assert strip["y"] < ours["y"] < gold["y"]
    assert page.locator(".strip .frame").count() == 8
    assert page.locator(".ticks span").first.inner_text() == "00:00"
    assert page.locator(".ticks span").last.inner_text() == "00:04"


def test_two_models_side_by_side(page):
    page.click('.row[data-id="q1"]')
    one, other = page.locator(".model").all()
    assert "wrong" in one.inner_text() and "A. red" in one.inner_text() and "lost grounding" in one.inner_text()
    assert "correct" in other.inner_text() and "D. yellow" in other.inner_text()
    assert one.bounding_box()["y"] == other.bounding_box()["y"]
    assert [row.get_attribute("class") for row in page.locator('.row[data-id="q1"] .glyph').all()] == [
        "glyph wrong",
        "glyph correct",
    ]
    page.select_option("#entry-b", "")
    assert page.locator(".model").count() == 1
    page.select_option("#entry-a", label="first · blank")
    assert page.locator('[data-filter="wrong"] .n').inner_text() == "7"


def test_failed_and_unread_samples_say_why(page):
    page.click('.row[data-id="q3"]')
    text = page.inner_text("#detail")
    assert "No frames: " in text and "broken.mp4: cannot decode" in text and "failed, no completion" in text


def test_markup_in_a_completion_is_text(page):
    page.click('.row[data-id="q4"]')
    page.click('[data-model="A"] summary')
    completion = page.inner_text('[data-model="A"] pre')
    assert "<b>bold</b>" in completion and "</script><script>window.owned=2</script><!--" in completion
    page.focus('.seg[data-owner="A"]')
    assert '"><img src=x onerror="window.owned=1">' in page.inner_text(".card")
    assert page.evaluate("window.owned") is None
    assert page.locator("#detail img, #detail script, #detail b:not(.seg b)").count() == 0


def test_a_page_of_1280_pixels_shows_the_whole_table(open_page, example):
    page = open_page(example[0], viewport={"width": 1280, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every(box => box.scrollWidth <= box.clientWidth)")
    box = page.locator("#help").bounding_box()
    assert abs(box["y"] - page.locator("#sort").bounding_box()["y"]) < 5  # the tools stay in one line


def test_the_clip_plays_and_a_segment_goes_to_its_start(page):
    page.click('.row[data-id="q1"]')
    assert page.locator("#detail video").count() == 0  # nothing is read before a reader asks
    page.click(".clip summary")
    page.wait_for_selector("#detail video", state="attached")
    page.evaluate(HEAD_IS_READ)
    assert page.evaluate("document.querySelector('video').duration") == pytest.approx(4, abs=0.2)
    page.click('.seg[data-owner="gold"]')
    assert page.evaluate("document.querySelector('video').currentTime") == 3
    page.click('.row[data-id="q3"]')  # a broken file
    page.click(".clip summary")
    page.wait_for_selector(".clip .unread:visible")
    assert "cannot play" in page.inner_text(".clip .unread") and page.locator("#detail video").is_hidden()


def test_sorting_and_saving_the_list(page):
    page.select_option("#sort", "long")
    assert shown_ids(page)[:2] == ["q2", "q4"] and shown_ids(page)[-1] == "q5"  # 6 s, 5 s, …, an image
    page.select_option("#sort", "low")
    assert shown_ids(page)[0] == "q1" and shown_ids(page)[-1] in ("q3", "q5", "q6")  # without a figure: last
    page.click('[data-filter="lost"]')
    assert shown_ids(page) == ["q1", "q2", "q4"]
    page.select_option("#sort", "long")
    assert shown_ids(page) == ["q2", "q4", "q1"]
    with page.expect_download() as download:
        page.click("#export")
    assert download.value.suggested_filename == "id.lost.jsonl"
    rows = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert [row["problem_id"] for row in rows] == ["q2", "q4", "q1"]
    assert rows[1]["predictions"]["first"]["completion"] == UGLY and rows[1]["path"] == ["c.mp4"]
    assert rows[0]["predictions"]["first"]["reason"] == "no readable answer"


def test_the_legend_says_what_marks_and_colors_mean(page):
    assert page.locator("#legend").is_hidden()
    page.click("#help")
    legend = page.inner_text("#legend")
    for words in ("correct", "wrong", "failed, no completion", "gold segment", "beyond the end"):
        assert words in legend, words
    assert page.locator("#legend .glyph").count() == 4


def test_training_curves(page):
    assert page.locator(".run h3").all_inner_texts() == ["sft", "grpo"]
    assert page.locator(".chart > b").all_inner_texts() == ["Loss", "Reward", "Rewards", "KL to the reference"]
    chart = page.locator(".chart").first
    heights = [float(y) for y in re.findall(r",([\d.]+)", chart.locator("path.line").get_attribute("d"))]
    assert heights == sorted(heights) and heights[-1] - heights[0] > 50  # the loss falls, y grows downwards
    chart.locator("svg").hover(position={"x": 100, "y": 60})
    left = chart.locator("svg").bounding_box()["x"]
    assert chart.locator(".cross").bounding_box()["x"] == pytest.approx(left + 100, abs=2)
    assert re.search(r"training [\d.]+ at step \d+0\b", chart.locator(".readout").inner_text())


def test_a_link_opens_its_sample(open_page, example):
    page = open_page(example[0])
    page.click('.row[data-id="q2"]')
    anchor = "#" + page.url.partition("#")[2]
    assert selected_id(open_page(example[0], anchor)) == "q2"


def test_light_and_dark(open_page, example):
    def brightness(page) -> int:
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", color)[:3]))

    light, dark = (open_page(example[0], color_scheme=scheme) for scheme in ("light", "dark"))
    assert brightness(light) > 600 and brightness(dark) < 150
    light.click("#theme")
    dark.click("#theme")
    assert brightness(light) < 150 and brightness(dark) > 600


def test_on_a_phone(open_page, example):
    page = open_page(example[0], **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#detail").is_hidden()
    page.tap('.row[data-id="q1"]')
    assert page.locator("#detail").bounding_box()["width"] == 390
    assert page.evaluate("document.getElementById('detail').scrollWidth") <= 390
    page.tap('.seg[data-owner="A"]')
    assert "the first" in page.inner_text(".card")
    boxes = [model.bounding_box() for model in page.locator(".model").all()]
    assert boxes[1]["y"] > boxes[0]["y"] + boxes[0]["height"]
    page.tap(".back")
    assert page.locator("#detail").is_hidden() and selected_id(page) == "q1"


def test_only_trainings(open_page, example, tmp_path):
    page = open_page(write_report(example[1][2:], tmp_path / "report.html"))
    assert page.locator(".chart").count() == 4 and page.locator("#samples").count() == 0


def test_a_page_of_two_thousand_samples_builds_no_more_than_one_of_two_hundred(open_page, tmp_path, monkeypatch):
    draw = random.Random(0)
    frames = {f"{i}.mp4": draw.randbytes(12_000).hex()[:16_000] for i in range(2000)}  # as long as 12 kB in base64
    monkeypatch.setattr(
        command, "make_strip", lambda media, root, n, **_: Strip(media.path, f"data:,{frames[media.path]}", n, 1.7, 4.0)
    )
    items = [make_item(f"q{i}", f"{i}.mp4", data_source=f"source {i % 7}") for i in range(2000)]
    items_file = write_items(tmp_path / "items.jsonl", items)
    text = "I think about it. " * 60 + RIGHT
    rows = [prediction(item["problem_id"], text) for item in items]
    runs = [write_eval_run(tmp_path / name, items_file, {"id": rows, "id.blank": rows}) for name in ("one", "two")]
    out = write_report(runs, tmp_path / "report.html", max_samples=2000)
    small, page = open_page(write_report(runs, tmp_path / "small.html", max_samples=200)), open_page(out)
    assert out.stat().st_size > 40e6
    few, many = (one.locator("*").count() for one in (small, page))
    assert few > 100 and abs(many - few) < 10
    assert 5 < page.locator(".row").count() < 60
    page.focus("#list")
    page.keyboard.press("End")
    page.wait_for_selector(".row[data-id=q1999]", state="attached")
    assert page.locator(".row").count() < 60 and selected_id(page) == "q1999"


def test_real_clips_through_the_tiny_model(open_page, shared_dir, tiny_model_dir, tmp_path):
    config = {
        "model_name_or_path": str(tiny_model_dir),
        "splits": {"real": str(shared_dir / "annotations" / "real_clips.json")},
        "media_root": str(shared_dir / "videos"),
        "output_dir": str(tmp_path / "eval"),
        "max_frames": 4,
        "max_pixels": 16 * 28 * 28,
        "max_new_tokens": 16,
        "batch_size": 4,
    }
    (tmp_path / "eval.yaml").write_text(yaml.safe_dump(config))
    assert runner.main([str(tmp_path / "eval.yaml")]) == 0
    page = open_page(write_report([tmp_path / "eval"], tmp_path / "report.html"))
    assert shown_ids(page) == [f"real-{number}" for number in range(1, 8)]
    figures = json.loads((tmp_path / "eval" / "metrics.json").read_text())["real"]
    names = page.locator("table.figures thead th").all_inner_texts()
    cells = page.locator('tr[data-run="eval"][data-key="real"]').locator("th, td").all_inner_texts()
    shown = {name: int(cell) for name, cell in zip(names, cells, strict=True) if name in ("items", "failed", "correct")}
    assert shown == {"items": 7, "failed": 0, "correct": figures["num_correct"]} and figures["num_samples"] == 7
    images = set()
    for row in page.locator(".row").all():
        row.click()
        assert page.locator(".strip .frame").count() == 8 and page.locator(".gold-seg").count() >= 1
        images.add(page.locator(".frame").first.evaluate("frame => frame.style.backgroundImage"))
    assert len(images) == 3
