"""Every metric that a training run logs, with its unit and its meaning.

The page "All keys, flags and metrics" of the documentation is made from this table. A test reads the sources of this
package, TRL and Transformers. It fails when they log a metric that is not here, or when one here is logged nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A logged metric.

    `name` is the key in the log; NAME in it stands for a reward. `stage` is "sft", "grpo" or "both". `origin` is the
    package that logs it.
    """

    name: str
    stage: str
    unit: str
    meaning: str
    origin: str = "video_thinker"


METRICS: tuple[Metric, ...] = (
    Metric("perf/tokens_per_s", "both", "tokens/s", "Tokens trained on, over all ranks: prompt and target or "
           "completion, no padding. A prompt that completions share counts once."),
    Metric("perf/samples_per_s", "both", "samples/s", "Samples trained on, over all ranks: items in SFT, completions "
           "in GRPO."),
    Metric("perf/tflops", "both", "TFLOP/s", "FLOPs that the model needs, per device and second. Generation, scoring, "
           "forward and backward count. Padding and recomputation do not."),
    Metric("perf/mfu", "both", "share", "`perf/tflops` over the device's dense bf16 peak. It is missing where the peak "
           "is unknown, as on a CPU; `peak_tflops` sets it."),
    Metric("time/step", "both", "s", "An optimizer step, from fetching its data to the updated weights. The phases "
           "below add up to it. All times are means over steps and ranks."),
    Metric("time/decode", "both", "s", "Reading and preprocessing media in the training process."),
    Metric("time/data_wait", "both", "s", "Waiting for the data workers (`dataloader_num_workers`)."),
    Metric("time/vision", "both", "s", "Forwards of the vision tower, taken out of the phases in which they happen."),
    Metric("time/generation", "grpo", "s", "Sampling completions. It is 0 in SFT."),
    Metric("time/scoring", "grpo", "s", "Log-probabilities of old policy and reference. It is 0 in SFT."),
    Metric("time/reward", "grpo", "s", "Computing rewards. It is 0 in SFT."),
    Metric("time/forward", "both", "s", "Forwards of the policy with gradient."),
    Metric("time/backward", "both", "s", "Backwards of the policy."),
    Metric("time/optimizer", "both", "s", "Clipping and the optimizer."),
    Metric("time/other", "both", "s", "The rest of the step; the blind canary is in it."),
    Metric("data/wait_share", "both", "share", "Share of the step spent on `time/decode` and `time/data_wait`, on the "
           "rank where it is largest."),
    Metric("memory/gpu_peak_gib", "both", "GiB", "Most memory allocated on a GPU since the last entry, of the rank "
           "where it is largest. Missing without a GPU."),
    Metric("memory/host_rss_gib", "both", "GiB", "Memory of the process now, of the rank where it is largest."),
    Metric("canary/log_prob_gap", "both", "nats/token", "How much log-probabilities change when the pixels are "
           "blanked. 0 means that the model does not see the video; the run then stops (`canary_min_gap`)."),
    Metric("engine/logp_gap_mean", "grpo", "nats/token", "Difference between the engine's log-probabilities of its own "
           "tokens and the trainer's, before any update. Only with an engine of its own forward (`engine: vllm`)."),
    Metric("engine/logp_gap_max", "grpo", "nats", "The largest of these differences; see `engine_max_gap`."),
    Metric("canary/engine_gap", "grpo", "nats/token", "The same with blank frames in the trainer, at the canary's "
           "steps. It must be larger than the difference with the video: else the engine is blind, and the run stops."),
    Metric("groups/mixed", "grpo", "share", "Groups with right and with wrong answers. Only these teach the answer."),
    Metric("groups/all_correct", "grpo", "share", "Groups in which every answer is right."),
    Metric("groups/all_wrong", "grpo", "share", "Groups in which every answer is wrong."),
    Metric("groups/drawn_again", "grpo", "share", "Groups sampled to replace groups of equal rewards, over the groups "
           "of a rollout. Only with `dynamic_sampling_rounds`."),
    Metric("groups/equal_left", "grpo", "share", "Groups of equal rewards that are left after the last round. Only "
           "with `dynamic_sampling_rounds`."),
    # TRL
    Metric("reward", "grpo", "reward", "Mean over completions of the weighted sum of rewards.", "trl"),
    Metric("reward_std", "grpo", "reward", "Standard deviation of that sum over all completions.", "trl"),
    Metric("rewards/NAME/mean", "grpo", "0 to 1", "Mean of one reward, before its weight. "
           "`rewards/accuracy_reward/mean` is the training accuracy, `rewards/format_reward/mean` the format "
           "rate.", "trl"),
    Metric("rewards/NAME/std", "grpo", "0 to 1", "Standard deviation of one reward.", "trl"),
    Metric("frac_reward_zero_std", "grpo", "share", "Groups whose rewards are all equal; they have no advantage and "
           "teach nothing.", "trl"),
    Metric("completions/mean_length", "grpo", "tokens", "Mean length of completions.", "trl"),
    Metric("completions/min_length", "grpo", "tokens", "Shortest completion.", "trl"),
    Metric("completions/max_length", "grpo", "tokens", "Longest completion.", "trl"),
    Metric("completions/clipped_ratio", "grpo", "share", "Completions cut off at `max_completion_length`.", "trl"),
    Metric("completions/mean_terminated_length", "grpo", "tokens", "Mean length of completions that ended by "
           "themselves.", "trl"),
    Metric("completions/min_terminated_length", "grpo", "tokens", "Shortest of those that ended by themselves.", "trl"),
    Metric("completions/max_terminated_length", "grpo", "tokens", "Longest of those that ended by themselves.", "trl"),
    Metric("kl", "grpo", "nats/token", "Distance of the policy from the reference. Only with `beta` above 0.", "trl"),
    Metric("entropy", "both", "nats/token", "Mean entropy of the model's next-token distribution: over completions in "
           "GRPO, over targets in SFT.", "trl"),
    Metric("clip_ratio/low_mean", "grpo", "share", "Tokens clipped from below (their odds fell too far).", "trl"),
    Metric("clip_ratio/low_min", "grpo", "share", "The same for the completion with the fewest.", "trl"),
    Metric("clip_ratio/high_mean", "grpo", "share", "Tokens clipped from above (their odds rose too far).", "trl"),
    Metric("clip_ratio/high_max", "grpo", "share", "The same for the completion with the most.", "trl"),
    Metric("clip_ratio/region_mean", "grpo", "share", "Tokens clipped on either side. All five are 0 with one update "
           "per rollout.", "trl"),
    Metric("step_time", "grpo", "s", "TRL's own clock: seconds in `training_step` of an optimizer step. `time/step` "
           "also counts the optimizer.", "trl"),
    Metric("num_tokens", "both", "tokens", "Tokens seen since the start of the run, prompts included.", "trl"),
    Metric("mean_token_accuracy", "sft", "share", "Target tokens that are the model's first choice.", "trl"),
    Metric("policy_loss", "grpo", "loss", "Loss before the entropy bonus. Only with an entropy bonus.", "trl"),
    Metric("entropy_coef", "grpo", "weight", "Weight of the entropy bonus. Only with an entropy bonus.", "trl"),
    Metric("aux_loss", "both", "loss", "Load balancing of a mixture of experts. Only for such models.", "trl"),
    Metric("cispo_clip_ratio", "grpo", "share", "Clipped tokens. Only with `loss_type: cispo`.", "trl"),
    Metric("vespo/phi_seq_mean", "grpo", "weight", "Mean sequence weight. Only with `loss_type: vespo`.", "trl"),
    Metric("tools/call_frequency", "grpo", "calls", "Tool calls per completion. Only with tools.", "trl"),
    Metric("tools/failure_frequency", "grpo", "share", "Tool calls that failed. Only with tools.", "trl"),
    Metric("sampling/sampling_logp_difference/mean", "grpo", "nats", "Difference between the engine's "
           "log-probabilities and the trainer's. Only with `engine: vllm`.", "trl"),
    Metric("sampling/sampling_logp_difference/max", "grpo", "nats", "The largest of these differences.", "trl"),
    Metric("sampling/importance_sampling_ratio/min", "grpo", "ratio", "Correction for this difference: its least "
           "value. Only with `engine: vllm`.", "trl"),
    Metric("sampling/importance_sampling_ratio/mean", "grpo", "ratio", "Its mean.", "trl"),
    Metric("sampling/importance_sampling_ratio/max", "grpo", "ratio", "Its largest value.", "trl"),
    # Transformers
    Metric("loss", "both", "loss", "Training loss, mean since the last entry. In GRPO it is near 0 by construction and "
           "says nothing about progress: look at the rewards.", "transformers"),
    Metric("grad_norm", "both", "norm", "Norm of the gradient before clipping (`max_grad_norm`).", "transformers"),
    Metric("learning_rate", "both", "", "Learning rate of the next step.", "transformers"),
    Metric("epoch", "both", "epochs", "Passes over the data so far.", "transformers"),
    Metric("train_loss", "both", "loss", "Mean loss of the whole run, logged once at its end.", "transformers"),
    Metric("train_runtime", "both", "s", "Duration of the run, logged once at its end.", "transformers"),
    Metric("train_samples_per_second", "both", "samples/s", "Logged once at the end of the run.", "transformers"),
    Metric("train_steps_per_second", "both", "steps/s", "Logged once at the end of the run.", "transformers"),
    Metric("total_flos", "both", "FLOP", "Transformers' estimate for the whole run. `perf/tflops` is more exact.",
           "transformers"),
    Metric("eval_runtime", "both", "s", "Duration of an evaluation during training.", "transformers"),
    Metric("eval_samples_per_second", "both", "samples/s", "Speed of this evaluation.", "transformers"),
    Metric("eval_steps_per_second", "both", "steps/s", "Speed of this evaluation.", "transformers"),
)  # fmt: skip
"""In the order of the page. An evaluation during training logs the same names with the prefix `eval_`."""


def is_documented(name: str, rewards: frozenset[str] = frozenset()) -> bool:
    """Tell whether a logged key is in the table, as it is, with the prefix `eval_`, or with NAME for a reward."""
    known = {metric.name for metric in METRICS}
    parts = name.removeprefix("eval_").split("/")
    if len(parts) == 3 and parts[0] == "rewards" and (not rewards or parts[1] in rewards):
        parts[1] = "NAME"
    return name in known or "/".join(parts) in known
