"""Makes the golden data: tiny random models and what Hugging Face transformers (fp32) computes with them.

Not run in CI: it needs torch, transformers, accelerate, gguf and tokenizers (versions in README.md).

    python generate.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf
"""

import argparse
import json
import pathlib
import shutil

import numpy
import torch
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

HERE = pathlib.Path(__file__).parent
SITES = ["resid_pre", "attn_in", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post"]
LENS = [("resid_post", "own"), ("attn_out", "own"), ("attn_out", "residual"), ("mlp_out", "residual")]
TOP_K = 5
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRAINING_TEXT = [
    "The quick brown fox jumps over the lazy dog. A model is a map, and a map is not the territory.",
    "Once upon a time, in a village by the sea, there lived an old navigator who measured the height of the sun.",
    "She looked at the horizon, turned the arm of the instrument, and read the angle: fifty-one degrees, 12 minutes.",
]


def tiny_tokenizer(folder: pathlib.Path, special: list[str], template: str, bos: str | None, eos: str) -> None:
    """Writes tokenizer.json and tokenizer_config.json: byte-level BPE over a few sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(TRAINING_TEXT * 4, trainer)
    tokenizer.add_special_tokens(special)
    if bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": bos, "eos_token": eos, "chat_template": template, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights large enough that every block changes the residual stream."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.2 * noise if "norm" in name else noise * (1.5 / parameter.shape[-1] ** 0.5)


def old_spelling(config: dict) -> dict:
    """The config as transformers before 5 wrote it: rope_theta beside rope_scaling, torch_dtype."""
    old = dict(config)
    rope = dict(old.pop("rope_parameters"))
    old["rope_theta"] = rope.pop("rope_theta")
    old["rope_scaling"] = rope
    old["torch_dtype"] = old.pop("dtype")
    return old


def tiny_llama(folder: pathlib.Path) -> torch.nn.Module:
    rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    config = LlamaConfig(vocab_size=408, hidden_size=96, intermediate_size=176, num_hidden_layers=3, num_attention_heads=6,
                         num_key_value_heads=3, max_position_embeddings=256, rms_norm_eps=1e-5, rope_parameters=rope,
                         tie_word_embeddings=False, bos_token_id=400, eos_token_id=[401, 404])
    model = LlamaForCausalLM(config)
    randomise(model, 1)
    model = model.to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="250KB")
    tiny_tokenizer(folder, LLAMA3_SPECIAL, LLAMA3_TEMPLATE, "<|begin_of_text|>", "<|eot_id|>")
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.rope_scaling.json").write_text(json.dumps(old_spelling(written), indent=1, sort_keys=True) + "\n")
    # Read back as any user would: casting a model to bf16 rounds its rotary frequencies too, and .float() keeps that.
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def wide_llama(folder: pathlib.Path) -> torch.nn.Module:
    """A key/value head, some MLP and some vocabulary for each of 8 ranks; heads that tensor cores multiply."""
    config = LlamaConfig(vocab_size=408, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=16,
                         num_key_value_heads=8, head_dim=32, max_position_embeddings=256, rms_norm_eps=1e-5,
                         rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, tie_word_embeddings=False,
                         bos_token_id=400, eos_token_id=[401, 404])
    model = LlamaForCausalLM(config)
    randomise(model, 3)
    model = model.to(torch.bfloat16)
    model.save_pretrained(folder)
    tiny_tokenizer(folder, LLAMA3_SPECIAL, LLAMA3_TEMPLATE, "<|begin_of_text|>", "<|eot_id|>")
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def tiny_qwen3(folder: pathlib.Path) -> torch.nn.Module:
    config = Qwen3Config(vocab_size=410, hidden_size=64, intermediate_size=112, num_hidden_layers=3, num_attention_heads=6,
                         num_key_value_heads=3, head_dim=32, max_position_embeddings=256, rms_norm_eps=1e-6,
                         rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}, tie_word_embeddings=True,
                         bos_token_id=400, eos_token_id=402)
    model = Qwen3ForCausalLM(config)
    randomise(model, 2)
    model.save_pretrained(folder)
    tiny_tokenizer(folder, QWEN_SPECIAL, CHATML_TEMPLATE, None, "<|im_end|>")
    return model.float()


@torch.no_grad()
def greedy(model: torch.nn.Module, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
    """Greedy continuation without end-of-text handling, and each token's log-probability."""
    ids, logprobs, cache, new = list(prompt), [], None, list(prompt)
    for _ in range(count):
        out = model(torch.tensor([new]), past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        scores = out.logits[0, -1].float().log_softmax(-1)
        new = [int(scores.argmax())]
        ids += new
        logprobs.append(float(scores[new[0]]))
    return ids, logprobs


@torch.no_grad()
def record(model: torch.nn.Module, ids: list[int]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Every site's rows {site: [layers, positions, hidden]} and the logits [positions, vocab]."""
    rows: dict[str, list[torch.Tensor]] = {site: [] for site in SITES}
    hooks = []

    def first(value):
        return value[0] if isinstance(value, tuple) else value

    for layer in model.model.layers:
        hooks += [
            layer.register_forward_pre_hook(lambda m, a, k: rows["resid_pre"].append(a[0][0]), with_kwargs=True),
            layer.input_layernorm.register_forward_hook(lambda m, a, o: rows["attn_in"].append(o[0])),
            layer.self_attn.register_forward_hook(lambda m, a, o: rows["attn_out"].append(first(o)[0])),
            layer.post_attention_layernorm.register_forward_pre_hook(lambda m, a: rows["resid_mid"].append(a[0][0])),
            layer.post_attention_layernorm.register_forward_hook(lambda m, a, o: rows["mlp_in"].append(o[0])),
            layer.mlp.register_forward_hook(lambda m, a, o: rows["mlp_out"].append(o[0])),
            layer.register_forward_hook(lambda m, a, o: rows["resid_post"].append(first(o)[0])),
        ]
    logits = model(torch.tensor([ids])).logits[0].float()
    for hook in hooks:
        hook.remove()
    return {site: torch.stack([r.clone() for r in rows[site]]) for site in SITES}, logits


@torch.no_grad()
def read(model: torch.nn.Module, rows: dict[str, torch.Tensor], ids: list[int], site: str, how: str) -> dict[str, torch.Tensor]:
    """The lens's readings of one site, in double precision. `ids` is one longer than the rows' positions."""
    norm, head = model.model.norm, model.lm_head.weight.double()
    eps = norm.variance_epsilon

    def logprobs(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return ((x.double() / scale * norm.weight.double()) @ head.T).log_softmax(-1)

    def rms(x: torch.Tensor) -> torch.Tensor:
        return (x.double().pow(2).mean(-1, keepdim=True) + eps).sqrt()

    post = rows["resid_post"]
    final = logprobs(post[-1], rms(post[-1]))
    targets = torch.tensor(ids[1:])
    out: dict[str, list] = {k: [] for k in ("entropy", "kl", "target_logprob", "target_rank", "top_ids", "top_logprobs")}
    for layer in range(post.shape[0]):
        x = rows[site][layer]
        p = logprobs(x, rms(post[layer]) if how == "residual" else rms(x))
        chosen = p.gather(1, targets[:, None])
        top = p.topk(TOP_K)
        out["entropy"].append(-(p.exp() * p).sum(-1))
        out["kl"].append((final.exp() * (final - p)).sum(-1))
        out["target_logprob"].append(chosen[:, 0])
        out["target_rank"].append(1 + (p > chosen).sum(-1))
        out["top_ids"].append(top.indices)
        out["top_logprobs"].append(top.values)
    readings = {k: torch.stack(v) for k, v in out.items()}
    same = readings["top_ids"][:, :, 0] == final.argmax(-1)[None]
    depth = torch.full((len(targets),), -1)
    for position in range(len(targets)):
        for layer in reversed(range(post.shape[0])):
            if not same[layer, position]:
                break
            depth[position] = layer
    readings["depth"] = depth
    return readings


def as_numpy(tensor: torch.Tensor) -> numpy.ndarray:
    kind = numpy.float32 if tensor.is_floating_point() else numpy.int32
    return numpy.ascontiguousarray(tensor.numpy().astype(kind))


def write(path: pathlib.Path, model: torch.nn.Module, prompt: list[int], new: int, row_positions: list[int] | None,
          long: int) -> None:
    """One golden file; with row_positions only those positions' rows and log-probabilities are kept."""
    ids, chosen = greedy(model, prompt, new)
    inputs = ids[:-1]
    rows, logits = record(model, inputs)
    keep = list(range(len(inputs))) if row_positions is None else [p % len(inputs) for p in row_positions]
    tensors = {"token_ids": torch.tensor(ids), "row_positions": torch.tensor(keep),
               "greedy_logprobs": torch.tensor(chosen), "logprobs": logits.log_softmax(-1)[keep]}
    for site in SITES:
        tensors[f"rows.{site}"] = rows[site][:, keep]
    for site, how in LENS:
        for name, values in read(model, rows, ids, site, how).items():
            tensors[f"lens.{site}.{how}.{name}"] = values
    if long:
        long_ids, long_logprobs = greedy(model, prompt, long)
        tensors["long_token_ids"] = torch.tensor(long_ids)
        tensors["long_logprobs"] = torch.tensor(long_logprobs)
    metadata = {"prompt_count": str(len(prompt)), "top_k": str(TOP_K)}
    save_file({k: as_numpy(v) for k, v in tensors.items()}, path, metadata=metadata)
    path.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=pathlib.Path, help="the quickstart's SmolLM2 file; without it that golden is kept")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    prompt = [17, 300, 42, 351, 5, 5, 260, 399, 128, 77, 311, 64]
    for name, make in (("llama31_tiny", tiny_llama), ("qwen3_tiny", tiny_qwen3), ("llama31_wide_tiny", wide_llama)):
        folder = HERE / "models" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model = make(folder).eval()
        for file in folder.iterdir():
            file.chmod(0o644)
        write(HERE / f"{name}.golden.safetensors", model, prompt, 36, None, 0)
    if arguments.gguf:
        model = AutoModelForCausalLM.from_pretrained(arguments.gguf.parent, gguf_file=arguments.gguf.name,
                                                     dtype=torch.float32).eval()
        prompt = [6403, 1980, 253, 655, 28, 281, 253, 6560, 411, 260, 3426, 28]
        write(HERE / "smollm2.golden.safetensors", model, prompt, 12, [3], 240)


if __name__ == "__main__":
    main()
