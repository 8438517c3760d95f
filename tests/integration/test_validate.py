"""`video-thinker validate` with the real decoders."""

from __future__ import annotations

import re

from tests.conftest import make_item, write_items
from video_thinker.diagnostics.validate import main, validate


def test_sound_clips_and_a_broken_one(media_root, tmp_path, capsys):
    rows = [
        make_item("ok", "a.mp4"),
        make_item("image", "./still.png", data_type="image"),
        make_item("broken", "broken.mp4"),
        make_item("late", "a.mp4", segments=[{"start_s": 3.0, "end_s": 9.0}]),
        make_item("missing", "nope.mp4"),
        make_item("not an image", "a.mp4", data_type="image"),
    ]
    path = write_items(tmp_path / "items.jsonl", rows)
    report = validate([path], media_root, workers=2)
    errors = [(f.where.rpartition(":")[2], f.message) for f in report.findings if f.severity == "error"]
    assert sorted(line for line, _ in errors) == ["3", "4", "5", "6"]
    assert "broken.mp4" in dict(errors)["3"]
    assert "outside the video of 4.00 s" in dict(errors)["4"]
    assert "nope.mp4" in dict(errors)["5"]
    assert report.num_rows_ok == 2
    assert main([str(path), "--media-root", str(media_root)]) == 1
    assert "FAILED: 4 errors" in capsys.readouterr().out


def test_real_clips(shared_dir, tmp_path):
    report = validate([shared_dir / "annotations" / "real_clips.json"], shared_dir / "videos")
    assert report.findings == []
    assert (report.num_rows_ok, report.num_media) == (7, 3)
    names = ["corrupted.mp4", "unordered.mov", "video_0.mov"]
    path = write_items(tmp_path / "bad.jsonl", [make_item(name, name, segments=[], process="") for name in names])
    messages = {
        finding.where.rpartition(":")[2]: finding.message
        for finding in validate([path], shared_dir / "videos").findings
    }
    assert set(messages) == {"1", "3"}
    assert "cannot decode" in messages["1"]
    assert "it has 3 frames, min_frames=4 asks for more" in messages["3"]


def test_half_a_matroska_file(tmp_path, media_root, capsys):
    import av

    whole = tmp_path / "whole.mkv"
    with av.open(str(media_root / "b.mp4")) as source, av.open(str(whole), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = whole.read_bytes()
    (tmp_path / "half.mkv").write_bytes(content[: len(content) // 2])
    rows = [make_item("whole", "whole.mkv", segments=[]), make_item("half", "half.mkv", segments=[], process=None)]
    path = write_items(tmp_path / "items.jsonl", rows)
    (finding,) = validate([path], tmp_path).findings
    assert (finding.where, finding.severity) == (f"{path}:2", "warning")
    assert re.search(r"half\.mkv: only [23]\.\d+ s of video can be read of the 6\.00 s", finding.message)


def test_what_is_decoded_is_what_a_run_would_take(media_root, tmp_path, capsys):
    path = write_items(tmp_path / "items.jsonl", [make_item("a", "a.mp4")])  # 32 frames
    argv = [str(path), "--media-root", str(media_root)]
    assert main([*argv, "num_frames=32"]) == 0
    assert main([*argv, "num_frames=34"]) == 1
    assert "num_frames=34" in capsys.readouterr().out
