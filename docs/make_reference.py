"""Make the pages of the site that repeat what the code or another file says. Nothing is imported that needs torch.

`mkdocs.yml` names this file as a hook. It adds to the site, at build time:

- `reference/keys.md`: every key of every config, every flag of every command, every metric of a training run;
- `reference/configs.md`: the shipped configs, as they are;
- `reference/api/*.md`: the API reference, one page for each folder of the package (mkdocstrings reads the docstrings);
- `data.md`, `contributing.md`, `changelog.md`: files that live elsewhere in the repository.

Links in the pages are written for the repository (`../data/README.md`), so that they also work on a code host. A link
to a file outside of `docs/` becomes a link to the page that shows this file.

    python docs/make_reference.py      # prints reference/keys.md
"""

from __future__ import annotations

import ast
import functools
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # MkDocs loads this file by its path

from read_code import (  # noqa: E402
    PACKAGE,
    ROOT,
    Key,
    KeyGroup,
    all_modules,
    command_flags,
    commands,
    config_commands,
    load_metrics,
    module_path,
    parse_file,
)

from video_thinker.keys.help import group_title  # noqa: E402

INCLUDED = {"data/README.md": "data.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository that are pages of the site."""
WIDE_PAGES = ("coming_from.md",)
"""Pages whose tables need the room of the table of contents."""
CONFIGS_PAGE = "reference/configs.md"
KEYS_PAGE = "reference/keys.md"
API_FOLDER = "reference/api"
API_TITLES = {
    "": "The words everyone shares",
    "benchmarks": "Benchmarks",
    "datasets": "Public data sets",
    "data": "Data",
    "models": "Models",
    "generation": "Generation",
    "rewards": "Rewards",
    "training": "Training",
    "evaluation": "Evaluation",
    "runs": "Run folders",
    "report": "Report",
    "synthesis": "Synthesis",
    "diagnostics": "Diagnostics",
    "toyworld": "Toy world",
}
"""Titles of the API pages by folder of the package; a folder that is not named here gets its own name."""


# -- Writing pages -----------------------------------------------------------------------------------------------------


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def _key_table(keys: tuple[Key, ...]) -> list[str]:
    rows = [f"| `{key.name}` | {_code(key.default)} | {_cell(key.help)} |" for key in keys]
    return ["| key | default | what it does |", "| --- | --- | --- |", *rows, ""]


def _origin(group: KeyGroup) -> str:
    return group.origin.split(".")[0]


def _title(group: KeyGroup) -> str:
    """Name a group in words: `TokenBudgetArguments` is "Token budget"; classes of libraries keep their names."""
    if _origin(group) != PACKAGE.name:
        return f"{group.name.lstrip('_')} ({_origin(group)})"
    return group_title(group.name)


@functools.cache
def keys_page() -> str:
    """Write the page of all keys, flags and metrics."""
    lines = [
        "# All keys, flags and metrics",
        "",
        "This page is made from the code when the site is built. `video-thinker COMMAND --help` says the same.",
        "",
        "A config is a YAML file. The command line overrides each key as `key=value`; the value is read as YAML.",
        "A misspelt key is an error. The order is: defaults, then the YAML file, then the command line.",
        "",
        "## Which command reads which keys",
        "",
        "Where two groups have the same key, the default of the group that stands first holds.",
        "",
        "| command | groups of keys |",
        "| --- | --- |",
    ]
    groups: dict[str, KeyGroup] = {}
    for command, found in config_commands().items():
        named = [f"[{_title(group)}](#{group.name.lower()})" for group in found if group.keys]
        lines.append(f"| `{command}` | {', '.join(named)} |")
        groups |= {group.name: group for group in found if group.keys}
    lines += ["", "## Keys of Video-Thinker", ""]
    theirs = [group for group in groups.values() if _origin(group) != PACKAGE.name]
    for group in groups.values():
        if group not in theirs:
            lines += [f"### {_title(group)} {{ #{group.name.lower()} }}", "", group.summary, ""]
            lines += _key_table(group.keys)
    lines += ["## Keys of TRL and Transformers", ""]
    for group in theirs:
        lines += [f"### {_title(group)} {{ #{group.name.lower()} }}", "", f"Inherited from `{group.origin}`.", ""]
        lines += _key_table(group.keys)
    return "\n".join([*lines, *_flag_sections(), *_metric_sections()]) + "\n"


def _flag_sections() -> list[str]:
    lines = ["## Flags of the commands", ""]
    for command, (_, summary) in commands().items():
        flags = command_flags(command)
        if not flags:
            continue
        lines += [f"### {command} {{ #command-{command.replace(' ', '-')} }}", "", f"`{summary}`", ""]
        lines += ["| argument | default | what it does |", "| --- | --- | --- |"]
        lines += [f"| `{flag.names}` | {_code(flag.default)} | {_cell(flag.help)} |" for flag in flags]
        lines.append("")
    return lines


def _metric_sections() -> list[str]:
    lines = [
        "## Metrics of a training run",
        "",
        "The metrics go to TensorBoard, W&B or trackio (`report_to`) and into `trainer_state.json` of each checkpoint.",
        "With `eval_file` and `eval_strategy`, metrics of the evaluation have the prefix `eval_`.",
        "[Logging](../logging.md) explains how to read them.",
        "",
    ]
    for origin, name in (("video_thinker", "Video-Thinker"), ("trl", "TRL"), ("transformers", "Transformers")):
        lines += [f"### Logged by {name}", "", "| metric | stage | unit | what it is |", "| --- | --- | --- | --- |"]
        for metric in load_metrics():
            if metric.origin == origin:
                lines.append(f"| `{metric.name}` | {metric.stage} | {metric.unit} | {_cell(metric.meaning)} |")
        lines.append("")
    return lines


def configs_page() -> str:
    """Show every shipped config."""
    lines = [
        "# Shipped configs",
        "",
        "These are the files of `configs/`, as they are. Comments say which values are the paper's.",
        "",
    ]
    for path in sorted((ROOT / "configs").rglob("*.*")):
        name = path.relative_to(ROOT).as_posix()
        language = {".yaml": "yaml", ".json": "json"}[path.suffix]
        lines += [f"## {name} {{ #{_anchor(name)} }}", "", f"```{language}", path.read_text().rstrip(), "```", ""]
    return "\n".join(lines)


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def api_pages() -> dict[str, tuple[str, str]]:
    """File -> (title, text) of the API reference: a page for each folder of the package, a heading for each module."""
    rooms: dict[str, list[str]] = {}
    for module, _ in all_modules():
        parts = module.split(".")[1:]
        path = module_path(module)
        if not parts or not _has_public_code(path):
            continue
        room = parts[0] if len(parts) > 1 or path.name == "__init__.py" else ""
        rooms.setdefault(room, []).append(module)
    pages = {}
    for room, found in sorted(rooms.items()):
        title = API_TITLES.get(room, room.replace("_", " ").capitalize())
        lines = [f"# {title}", ""]
        for module in found:
            lines += [f"## {module} {{ #module-{module} }}", "", f"::: {module}", ""]
        pages[f"{API_FOLDER}/{room or 'words'}.md"] = (title, "\n".join(lines))
    return pages


def _has_public_code(path: Path) -> bool:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.Assign, ast.AnnAssign)
    return any(isinstance(node, kinds) for node in parse_file(path).body)


# -- Links -------------------------------------------------------------------------------------------------------------


def shown_at(target: str) -> str | None:
    """Name the page that shows a file of the repository, with an anchor; `None` if there is none."""
    if target in INCLUDED:
        return INCLUDED[target]
    if target.startswith("configs/") and Path(target).suffix in (".yaml", ".json"):
        return f"{CONFIGS_PAGE}#{_anchor(target)}"
    return None


LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def rewrite_links(text: str, source: str, page: str) -> str:
    """Turn links between files of the repository into links between pages.

    Args:
        text: Markdown.
        source: The file in the repository, e.g. `data/README.md`; its links are relative to its folder.
        page: The page in the site, e.g. `data.md`.
    """

    def replace(match: re.Match[str]) -> str:
        label, link, anchor = match.group(1), match.group(2), match.group(3) or ""
        if "://" in link or link.startswith("mailto:"):
            return match.group(0)
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
        if target.startswith("docs/"):
            shown: str | None = target.removeprefix("docs/") + anchor
        else:
            shown = shown_at(target)
            shown = shown + anchor if shown and "#" not in shown else shown
        if shown is None:  # a file that the site does not show
            return label if "`" in label else f"{label} (`{target}`)"
        return f"[{label}]({posixpath.relpath(shown, posixpath.dirname(page) or '.')})"

    blocks = re.split(r"(^```.*?^```)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(block if block.startswith("```") else LINK.sub(replace, block) for block in blocks)


def generated_pages() -> dict[str, str]:
    """All pages that this file adds, by their path in the site."""
    pages = {KEYS_PAGE: keys_page(), CONFIGS_PAGE: configs_page()}
    for source, page in INCLUDED.items():
        pages[page] = rewrite_links((ROOT / source).read_text(encoding="utf-8"), source, page)
    return pages | {page: text for page, (_, text) in api_pages().items()}


# -- What MkDocs calls -------------------------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """Put the API pages into the navigation, in the place of the word `api-pages`."""

    def fill(entry: Any) -> Any:
        if isinstance(entry, list):
            return [fill(one) for one in entry]
        if isinstance(entry, dict):
            return {title: fill(one) for title, one in entry.items()}
        return [{title: page} for page, (title, _) in api_pages().items()] if entry == "api-pages" else entry

    config.nav = fill(config.nav)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for page, text in generated_pages().items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrite the links of the pages that are written by hand."""
    if page.file.src_uri in WIDE_PAGES:
        page.meta["hide"] = ["toc"]
    if page.file.generated_by:
        return markdown
    return rewrite_links(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


if __name__ == "__main__":
    sys.stdout.write(keys_page())
