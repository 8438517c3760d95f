"""`video-thinker serve-engine CONFIG [key=value …]`: an engine in a process of its own, until it is interrupted.

`grpo`, `eval` and `difficulty` sample with it as `engine: server`, from another process, environment or machine.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from transformers import AutoConfig

from video_thinker.config import ModelArguments
from video_thinker.errors import ConfigError
from video_thinker.generation.arguments import ServeArguments
from video_thinker.generation.engine_http import read_token
from video_thinker.generation.engine_server import EngineServer, is_loopback
from video_thinker.generation.local import LocalEngine
from video_thinker.generation.served import (
    Identity,
    Served,
    checkpoint_name,
    describe_model,
    expected_weights,
    load_and_reset,
    load_into,
)
from video_thinker.generation.vllm import VLLMEngine
from video_thinker.keys.settings import parse_config
from video_thinker.models.layers import SHARE_PREFILL_LAYERS, unshared_causes
from video_thinker.models.loading import check_model_path, load_model, load_processor

MAX_TOKENS = 32768
"""Room of vLLM for a prompt with its completion where nothing else is said, in tokens."""


def open_server(args: ServeArguments) -> EngineServer:
    """Take the address; nothing is answered yet.

    Raises:
        ConfigError: it cannot be taken, or others could reach it without a token.
    """
    token = read_token(args.engine_token_env)
    if token is None and not is_loopback(args.host):
        raise ConfigError(
            f"host={args.host}: other machines could use this engine. Set a token in the environment variable "
            f"{args.engine_token_env} here and where it is used, or keep host=127.0.0.1."
        )
    return EngineServer(args.host, args.port, token, args.max_body_mib * 2**20)


def load_served(model_args: ModelArguments, args: ServeArguments) -> Served:
    """Load the engine that the keys name.

    Raises:
        ConfigError: there is no such model, it is an adapter, or vLLM is not installed.
    """
    path = model_args.model_name_or_path
    if check_model_path(path) != path:
        raise ConfigError(
            f"model_name_or_path={path!r} is an adapter: serve its base, {check_model_path(path)!r}; whoever samples "
            "sends the weights with the adapter."
        )
    config: Any = AutoConfig.from_pretrained(path)
    processor = load_processor(path)
    if args.engine == "vllm":
        vllm = VLLMEngine(
            processor,
            path,
            max_tokens=args.engine_max_tokens or MAX_TOKENS,
            dtype=model_args.dtype,
            temperature=args.temperature,
            gpu_memory_share=args.engine_gpu_memory_share,
            options=args.engine_options,
        )
        dtype, load, engine = vllm.engine.model_config.dtype, load_and_reset(vllm.load_weights, vllm.reset_caches), vllm
        identity = Identity("vllm", describe_model(config), str(dtype).removeprefix("torch."))
        return Served(engine, identity, expected_weights(path), load, checkpoint_name(path))
    model: Any = load_model(path, dtype=model_args.dtype, attn_implementation=model_args.attn_implementation).eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    local = LocalEngine(processor, share_prompts=not list(unshared_causes(model.config, SHARE_PREFILL_LAYERS)))
    local.update_weights(model)
    identity = Identity("local", describe_model(config), str(model.dtype).removeprefix("torch."))
    return Served(local, identity, expected_weights(path), load_into(model), checkpoint_name(path))


def main(argv: list[str]) -> int:
    """Serve until interrupted."""
    model_args, args = parse_config((ModelArguments, ServeArguments), argv)
    with open_server(args) as server:
        server.served = load_served(model_args, args)
        server.server_activate()
        identity = server.served.identity
        sys.stdout.write(f"serving engine={identity.engine} ({identity.dtype}) at engine_url={server.url}\n")
        sys.stdout.flush()
        server.serve_forever()
    return 0
