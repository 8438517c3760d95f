"""The model card (`README.md`) of what a run saves: what it is, how it was trained, how to load and cite it.

Every figure is read from what lies in the run folder, so that a card says nothing that nobody measured:

    run.yaml             settings, command line, hashes of the data files, versions
    samples.jsonl        the samples it was trained on, and their media files
    trainer_state.json   how long it was trained, and what was logged
    adapter_config.json  a LoRA adapter's shape, and its base

Results of evaluations stand between two marks, so that `video-thinker card` can put them in later and leave the rest.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from video_thinker.errors import ConfigError, DataError
from video_thinker.prompts import PROMPT_STYLES, render_question, render_system
from video_thinker.runs.card_texts import (
    NO_RESULTS,
    cite,
    code,
    describe_frames,
    describe_pixels,
    describe_settings,
    describe_trained,
    load_code,
    logged_figures,
    reward_rows,
    stage_of,
)
from video_thinker.runs.files import read_json, write_text
from video_thinker.runs.manifest import CARD
from video_thinker.runs.record import RUN_INFO, SAMPLES_FILE, read_run_info
from video_thinker.schema import VideoSample

RESULTS_BEGIN, RESULTS_END = "<!-- results: begin -->", "<!-- results: end -->"
EXAMPLE = VideoSample("", "QUESTION", "multiple choice", "A", ("A. FIRST OPTION", "B. SECOND OPTION"), ())


@dataclass(frozen=True)
class Saved:
    """What a card is about.

    Args:
        folder: Where its files are (perhaps not for long).
        path: Where they are when they are complete, or the name under which they are loaded.
        run_folder: Folder of the run that made it, with run.yaml and samples.jsonl.
        state: What `trainer_state.json` holds or will hold.
        parameters: Table of the trained parameters by part, where a model was at hand.
        merged_from: The adapter that was merged into a base.
    """

    folder: Path
    path: str
    run_folder: Path
    state: Mapping[str, Any]
    parameters: str = ""
    merged_from: str = ""


def write_card(saved: Saved) -> None:
    """Write `README.md` into the folder, in place of what a library wrote there."""
    write_text(saved.folder / CARD, render_card(saved))


def render_card(saved: Saved) -> str:
    """Write the card as Markdown with a YAML head."""
    info = read_run(saved.run_folder)
    config: dict[str, Any] = info.get("config", {})
    adapter = {} if saved.merged_from else read_json(saved.folder / "adapter_config.json")
    if saved.merged_from:
        config = {**config, "merged_adapter": read_json(Path(saved.merged_from) / "adapter_config.json")}
    base = (adapter or config.get("merged_adapter", {})).get("base_model_name_or_path") or config.get(
        "model_name_or_path", ""
    )
    samples = read_samples(saved.run_folder / SAMPLES_FILE)
    licence, licence_text = find_licence(base)
    style = config.get("prompt_style")
    environment = Environment(
        loader=PackageLoader("video_thinker.runs", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    name = Path(saved.path).name if not Path(saved.path).name.startswith("checkpoint-") else saved.path
    text = environment.get_template("card.md.jinja").render(
        front_matter=_front_matter(config, base, licence, is_adapter=bool(adapter)),
        name=name,
        summary=_summary(config, base, saved.merged_from, is_adapter=bool(adapter)),
        facts=_facts(config, base, saved, adapter),
        load_code=load_code(saved.path, base if adapter else None),
        ask_command=_ask_command(saved.path, config, samples),
        data=_data(info, samples),
        media=_media(config, samples),
        config=config,
        frames=describe_frames(config),
        pixels=describe_pixels(config),
        question=render_question(EXAMPLE, style) if style in PROMPT_STYLES else "QUESTION",
        system=render_system(style) if style in PROMPT_STYLES else None,
        trained=describe_trained(config, adapter),
        parameters=saved.parameters,
        settings=describe_settings(config),
        rewards=reward_rows(config),
        logged=logged_figures(saved.state.get("log_history", [])),
        results_begin=RESULTS_BEGIN,
        results=NO_RESULTS.format(path=saved.path),
        results_end=RESULTS_END,
        made=_made(info),
        licence=licence_text,
        citation=cite(stage_of(config)),
    )
    return text.lstrip("\n")


def read_run(run_folder: Path) -> dict[str, Any]:
    """Read `run.yaml`; `{}` if there is none.

    Raises:
        ConfigError: it is damaged.
    """
    path = run_folder / RUN_INFO
    return read_run_info(path) if path.is_file() else {}


def read_samples(path: Path) -> list[dict[str, Any]]:
    """Read the rows of `samples.jsonl`; `[]` if there is none.

    Raises:
        DataError: it is damaged.
    """
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: damaged ({error}); remove it to write the card without it.") from error


def _front_matter(config: Mapping[str, Any], base: str, licence: str | None, *, is_adapter: bool) -> str:
    tags = ["video", "reasoning", "video-thinker", *filter(None, [stage_of(config)])]
    head: dict[str, Any] = {
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "video-text-to-text",
        "tags": [*tags, *(["lora"] if is_adapter else [])],
    }
    if base.count("/") == 1 and not Path(base).exists():  # a name on the hub; it takes nothing else here
        head["base_model"] = base
    if licence:
        head["license"] = licence
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True)


def _summary(config: Mapping[str, Any], base: str, merged_from: str, *, is_adapter: bool) -> str:
    what = "A LoRA adapter for a video-language model" if is_adapter else "A video-language model"
    how = {
        "sft": "trained by supervised fine-tuning on traces (moments with their times, then the answer)",
        "grpo": "trained by GRPO, reinforcement learning with the rewards below",
    }.get(stage_of(config) or "", "trained")
    merged = f" An adapter ({code(merged_from)}) is merged into it." if merged_from else ""
    start = f" from {code(base)}" if base else ""
    return f"{what}, {how},{start} with Video-Thinker {metadata.version('video-thinker')}.{merged}"


def _facts(config: Mapping[str, Any], base: str, saved: Saved, adapter: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("this folder holds", "a LoRA adapter; its base is loaded beside it" if adapter else "a full checkpoint")]
    if lineage := find_lineage(config):
        facts.append(("made from", " ← ".join(lineage)))
    if adapter or saved.merged_from:
        facts.append(("base of the adapter", code(base)))
    if step := saved.state.get("global_step"):
        epoch = saved.state.get("epoch")
        facts.append(
            ("trained for", f"{step} {'step' if step == 1 else 'steps'}" + (f", {epoch:.3g} epochs" if epoch else ""))
        )
    return facts


def find_lineage(config: Mapping[str, Any]) -> list[str]:
    """Follow `model_name_or_path` through the run folders it names: GRPO from an SFT folder from a hub name."""
    found: list[str] = []
    start = config.get("model_name_or_path")
    while start and start not in found and len(found) < 8:  # a folder that names itself would go on for ever
        found.append(start)
        folder = Path(start)
        folder = folder.parent if folder.name.startswith("checkpoint-") else folder
        earlier = read_run(folder).get("config", {})
        start = earlier.get("model_name_or_path")
    return [code(name) for name in found]


def _ask_command(path: str, config: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> str:
    root = Path(str(config.get("media_root") or "."))
    videos = [media[0] for sample in samples for media in sample["media"] if not media[0].endswith((".png", ".jpg"))]
    video = str(root / videos[0]) if videos else "clip.mp4"
    return shlex.join(["video-thinker", "ask", video, "What happens in this video?", "--model", path])


def _data(info: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    config, hashes = info.get("config", {}), info.get("data_sha256", {})
    rows: list[dict[str, Any]] = []
    if samples and not config.get("train_file"):
        rows.append(
            {"path": "rows given in Python", "use": "training", "num_samples": len(samples), "sha256": "no file"}
        )
    for key, use in (("train_file", "training"), ("eval_file", "evaluation during training")):
        if config.get(key):
            count = len(samples) if key == "train_file" and samples else "not counted"
            rows.append(
                {"path": config[key], "use": use, "num_samples": count, "sha256": hashes.get(key, "not recorded")}
            )
    return rows


def _media(config: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> str:
    files = {media[0]: media[1] or 0 for sample in samples for media in sample["media"]}
    if not files:
        return ""
    size = sum(files.values())
    written = f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size:,} bytes"
    return (
        f"The training samples show {len(files)} media files ({written}) under {code(config.get('media_root'))}. "
        f"`{SAMPLES_FILE}` in the run's folder lists each sample with a hash, and its files with their sizes."
    )


def _made(info: Mapping[str, Any]) -> list[str]:
    lines = []
    if info.get("command_line"):
        lines.append(f"command: {code(info['command_line'])}")
    if info.get("date"):
        lines.append(f"started: {info['date']}")
    if info.get("git_commit"):
        lines.append(f"source: Video-Thinker at commit `{info['git_commit']}`")
    there = {name: version for name, version in info.get("packages", {}).items() if version != "not installed"}
    main = [f"{name} {there[name]}" for name in ("torch", "transformers", "trl", "peft", "accelerate") if name in there]
    if main:
        lines.append(f"versions: {', '.join(main)}")
    return [*lines, "all settings: `run.yaml` in this folder or the run's"] if lines else []


def find_licence(base: str) -> tuple[str | None, str]:
    """Say what licence the base has.

    Returns:
        Its short name in the hub's terms, `None` where it is not known, and a sentence.
    """
    folder = Path(base)
    head = read_front_matter(folder / CARD) if base and folder.is_dir() else _hub_front_matter(base)
    name = head.get("license")
    if isinstance(name, str) and name:
        shown = head.get("license_name") or name
        return name, f"The base {code(base)} is under the licence {code(shown)}; it holds for this model, too."
    files = sorted(path.name for path in folder.glob("LICEN[SC]E*")) if base and folder.is_dir() else []
    if files:
        return None, f"The licence of the base holds for this model, too: {code(str(folder / files[0]))}."
    where = (
        f"https://huggingface.co/{base}" if base.count("/") == 1 and not folder.exists() else code(base or "unknown")
    )
    return None, f"The licence of the base holds for this model, too; it is not recorded here: see {where}."


def _hub_front_matter(name: str) -> dict[str, Any]:
    """Read the head of a base's card from the cache of the hub; nothing is fetched for it."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, CARD)
    except HFValidationError:
        return {}
    return read_front_matter(Path(found)) if isinstance(found, str) else {}


def read_front_matter(path: Path) -> dict[str, Any]:
    """Read the YAML head of a Markdown file; `{}` where there is none."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---\n"):
        return {}
    try:
        head = yaml.safe_load(text[4:].partition("\n---")[0])
    except yaml.YAMLError:
        return {}
    return head if isinstance(head, dict) else {}


def put_results(card: Path, results: str) -> None:
    """Put results between the marks of a card; all else stays.

    Raises:
        ConfigError: it has no marks.
    """
    text = card.read_text(encoding="utf-8")
    before, begin, rest = text.partition(RESULTS_BEGIN)
    _, end, after = rest.partition(RESULTS_END)
    if not (begin and end):
        raise ConfigError(
            f"{card}: has no marks {RESULTS_BEGIN} and {RESULTS_END} for the results; put them in, or remove the file "
            "to have a new card written."
        )
    write_text(card, f"{before}{RESULTS_BEGIN}\n{results.strip()}\n{RESULTS_END}{after}")
