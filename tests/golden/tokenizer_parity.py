#!/usr/bin/env python3
"""Compares Sextant's tokenizer with Hugging Face `tokenizers`, string by string.

    tokenizer_parity.py --model FOLDER_OR_GGUF --cli build/tests/tokenizer_cli [--count 200000] [--source DIR ...]
    tokenizer_parity.py --model FOLDER_OR_GGUF --write-sample OUT.json [--sample-count 300]

The strings are lines and spans of source text, text of many scripts, emoji, runs of white space, digits, decoded
random bytes, every assigned code point, and special tokens as text and as tokens. Both the ids and the text decoded
from them are compared. For a GGUF file the reference is put together from its metadata. Exits 1 at any difference.
Needs the PyPI package `tokenizers`, and `jinja2` to compare chat prompts.
"""

import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

GPT2_SPLITS = {
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
}
CONTROL, USER_DEFINED = 3, 4  # token types of GGUF


def read_gguf_metadata(path):
    """Every key of a GGUF file's header."""
    formats = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
    with open(path, "rb") as file:

        def scalar(kind):
            layout = formats[kind]
            return struct.unpack(layout, file.read(struct.calcsize(layout)))[0]

        def string():
            return file.read(scalar(10)).decode()

        def value(kind):
            if kind == 8:
                return string()
            if kind == 9:
                member, count = scalar(4), scalar(10)
                return [value(member) for _ in range(count)]
            return scalar(kind)

        assert file.read(4) == b"GGUF"
        scalar(4)
        scalar(10)
        return {string(): value(scalar(4)) for _ in range(scalar(10))}


def reference_of_gguf(path):
    """The `tokenizers` object that a GGUF file's metadata describes, and its chat template."""
    metadata = read_gguf_metadata(path)
    assert metadata["tokenizer.ggml.model"] == "gpt2", metadata["tokenizer.ggml.model"]
    tokens = metadata["tokenizer.ggml.tokens"]
    types = metadata["tokenizer.ggml.token_type"]
    merges = [tuple(rule.split(" ")) for rule in metadata["tokenizer.ggml.merges"]]
    pre = metadata["tokenizer.ggml.pre"]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    reference = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=pre == "llama-bpe"))
    if pre == "smollm":
        reference.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    else:
        if pre == "qwen2":
            reference.normalizer = normalizers.NFC()
        reference.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(GPT2_SPLITS[pre]), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    reference.decoder = decoders.ByteLevel()
    for id, (token, kind) in enumerate(zip(tokens, types)):
        if kind in (CONTROL, USER_DEFINED):
            added = AddedToken(token, special=kind == CONTROL, normalized=False)
            (reference.add_special_tokens if kind == CONTROL else reference.add_tokens)([added])
    return reference, metadata.get("tokenizer.chat_template", "")


def load_reference(model):
    if os.path.isdir(model):
        reference = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
        config = os.path.join(model, "tokenizer_config.json")
        template = json.load(open(config)).get("chat_template", "") if os.path.exists(config) else ""
        return reference, template
    return reference_of_gguf(model)


def assigned_characters():
    return [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]


def source_lines(folders, rng, count):
    """Random spans of the text files under `folders`."""
    endings = (".py", ".h", ".cc", ".cpp", ".md", ".txt", ".rst", ".json", ".proto", ".cmake", ".c", ".html", ".po")
    paths = []
    for folder in folders:
        for root, _, names in os.walk(folder):
            paths.extend(os.path.join(root, name) for name in sorted(names) if name.endswith(endings))
    paths.sort()
    rng.shuffle(paths)
    produced = 0
    while produced < count:
        for path in paths:
            try:
                with open(path, encoding="utf-8") as file:
                    text = file.read(200_000)
            except (OSError, UnicodeDecodeError):
                continue
            for _ in range(min(20, 1 + len(text) // 400)):
                begin = rng.randrange(max(1, len(text)))
                yield text[begin : begin + rng.randrange(1, 300)]
                produced += 1
                if produced == count:
                    return
        if not paths:
            return


def mixed_strings(rng, characters, special, count):
    """Strings made to hurt: scripts, emoji, white space, digits, combining marks, random bytes, special tokens."""
    by_block = {}
    for c in characters:
        by_block.setdefault(ord(c) >> 8, []).append(c)
    blocks = list(by_block.values())
    spaces = [c for c in characters if c.isspace()] + ["\u180e", "\u200b", "\ufeff"]
    marks = [c for c in characters if unicodedata.combining(c)]
    numbers = [c for c in characters if unicodedata.category(c).startswith("N")]
    emoji = [chr(c) for c in range(0x1F300, 0x1FAFF)] + ["\u200d", "\ufe0f", "\U0001f3fb", "\U0001f1e9", "\u2764"]
    ascii_text = [chr(c) for c in range(0x20, 0x7F)]
    contractions = ["'s", "'T", "'re", "'VE", "'m", "'ll", "'D", "'\u017f", "\u2019s", "'LL"]

    def span(letters, low=1, high=12):
        return "".join(rng.choice(letters) for _ in range(rng.randrange(low, high)))

    makers = [
        lambda: span(rng.choice(blocks)),
        lambda: span(rng.choice(blocks), 1, 60),
        lambda: span(characters),
        lambda: span(spaces) + span(ascii_text) + span(spaces),
        lambda: rng.choice([" ", "\n", "\t", "\r\n", "\u3000"]) * rng.randrange(1, 40) + span(ascii_text),
        lambda: span(numbers, 1, 20),
        lambda: str(rng.randrange(10 ** rng.randrange(1, 20))) + rng.choice(["", ".", ",", " ", "%"]),
        lambda: "".join(span(ascii_text, 1, 3) + span(marks, 1, 4) for _ in range(rng.randrange(1, 5))),
        lambda: span(emoji, 1, 10),
        lambda: "".join(span(ascii_text, 1, 6) + rng.choice(contractions) for _ in range(rng.randrange(1, 4))),
        lambda: bytes(rng.randrange(256) for _ in range(rng.randrange(1, 40))).decode("utf-8", "replace"),
        lambda: bytes(rng.randrange(256) for _ in range(rng.randrange(1, 40))).decode("latin-1"),
        lambda: span(ascii_text, 0, 8) + rng.choice(special) + span(ascii_text, 0, 8) + rng.choice(special),
        lambda: rng.choice(special)[: rng.randrange(1, 10)] + rng.choice(special),
        lambda: rng.choice(ascii_text) * rng.randrange(1, 200),
    ]
    for i in range(count):
        parts = [makers[i % len(makers)]()]
        while rng.random() < 0.3:
            parts.append(rng.choice(makers)())
        yield "".join(parts)


def all_strings(args, reference):
    rng = random.Random(args.seed)
    characters = assigned_characters()
    special = [token.content for token in reference.get_added_tokens_decoder().values()] or ["<none>"]
    strings = []
    if not args.write_sample:
        # Every character alone and in the places where splitting asks what kind it is.
        for c in characters:
            if ord(c) < 0x3400 or ord(c) >= 0xA000 and not 0xAC00 <= ord(c) < 0xD7A4 and ord(c) < 0x20000:
                strings.append(f"a{c}b {c}1{c} {c}{c}'{c}\n{c}")
    strings.extend(source_lines(args.source, rng, args.count // 4))
    strings.extend(mixed_strings(rng, characters, special, max(1, args.count - len(strings))))
    return strings


def run_cli(args, strings, parse_special):
    with tempfile.NamedTemporaryFile() as file:
        for text in strings:
            data = text.encode()
            file.write(struct.pack("<I", len(data)) + data)
        file.flush()
        file.seek(0)
        command = [args.cli, args.model] + (["parse_special"] if parse_special else [])
        answer = subprocess.run(command, stdin=file, stdout=subprocess.PIPE, check=True).stdout
    results, at = [], 0
    for _ in strings:
        (count,) = struct.unpack_from("<I", answer, at)
        ids = list(struct.unpack_from(f"<{count}i", answer, at + 4))
        at += 4 + 4 * count
        (length,) = struct.unpack_from("<I", answer, at)
        results.append((ids, answer[at + 4 : at + 4 + length].decode()))
        at += 4 + length
    assert at == len(answer), "the program answered more than was asked"
    return results


def expected(reference, strings, parse_special):
    reference.encode_special_tokens = not parse_special
    for begin in range(0, len(strings), 1000):
        batch = reference.encode_batch(strings[begin : begin + 1000], add_special_tokens=False)
        texts = reference.decode_batch([encoding.ids for encoding in batch], skip_special_tokens=False)
        yield from ((encoding.ids, text) for encoding, text in zip(batch, texts))


def compare(args, reference, strings):
    differences = 0
    for parse_special in (False, True):
        ours = run_cli(args, strings, parse_special)
        for text, mine, theirs in zip(strings, ours, expected(reference, strings, parse_special)):
            if mine != theirs:
                differences += 1
                if differences <= args.show:
                    print(f"DIFFERENT parse_special={parse_special} {text!r}\n  ours   {mine}\n  theirs {theirs}")
    print(
        f"{args.model}: {len(strings)} strings x 2 readings of special tokens compared with tokenizers "
        f"{tokenizers.__version__}: {differences} differences"
    )
    return differences


def write_sample(args, reference, template):
    strings = all_strings(args, reference)[: args.count]
    sample = {"family": args.family, "reference": f"tokenizers {tokenizers.__version__}", "strings": []}
    for parse_special in (False, True):
        for text, (ids, decoded) in zip(strings, expected(reference, strings, parse_special)):
            entry = {"text": text, "parse_special": parse_special, "ids": ids}
            if decoded != text:
                entry["decoded"] = decoded
            sample["strings"].append(entry)
    sample["chats"] = chat_samples(reference, template)
    with open(args.write_sample, "w", encoding="utf-8") as file:
        json.dump(sample, file, ensure_ascii=True, indent=0, separators=(",", ":"))
        file.write("\n")
    print(f"{args.write_sample}: {len(sample['strings'])} strings, {len(sample['chats'])} chats")


def chat_samples(reference, template):
    """Chats with the ids of the prompt that the model's own template makes."""
    if not template:
        return []
    import jinja2

    def refuse(message):
        raise ValueError(message)

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    program = environment.from_string(template)
    user = {"role": "user", "content": "  Name three primes, in one line.\n"}
    system = {"role": "system", "content": "You answer in French."}
    answer = {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\n2, 3, 5"}
    chats = [
        [user],
        [system, user],
        [user, answer, {"role": "user", "content": "And \U0001f600?"}],
        [system, user, {"role": "assistant", "content": "plain"}, user],
    ]
    samples = []
    reference.encode_special_tokens = False
    for messages in chats:
        text = program.render(
            messages=messages, add_generation_prompt=True, bos_token="<|begin_of_text|>", raise_exception=refuse
        )
        samples.append({"messages": messages, "ids": reference.encode(text, add_special_tokens=False).ids})
    return samples


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder with tokenizer.json, or a GGUF file")
    parser.add_argument("--cli", help="the built tokenizer_cli")
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=20, help="print so many differences")
    parser.add_argument("--source", nargs="*", default=["/usr/share/doc", "/usr/include", "/usr/lib/python3"])
    parser.add_argument("--write-sample", help="write strings with expected ids to this file instead")
    parser.add_argument("--family", default="", help="name stored in the sample")
    args = parser.parse_args()
    reference, template = load_reference(args.model)
    if args.write_sample:
        write_sample(args, reference, template)
        return 0
    return 1 if compare(args, reference, all_strings(args, reference)) else 0


if __name__ == "__main__":
    sys.exit(main())
