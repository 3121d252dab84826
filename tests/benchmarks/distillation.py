"""Step time and memory: plain cross-entropy, a cached top-k teacher, and a teacher run online.

One student and one batch of random pieces; the sides take turns within a round. A step is
forward, backward and Adam's update. Ratios are of the median times to plain's. With --device
cuda the peak memory of a step is printed too.

Example:
  OMP_WAIT_POLICY=PASSIVE python tests/benchmarks/distillation.py --threads 2
"""

import argparse
import statistics
import time
from types import SimpleNamespace

import torch
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.data import Dictionary
from fairseq.models.transformer import TransformerConfig, TransformerModelBase

import fairseq_plugins  # noqa: F401  registers the criterions
from fairseq_plugins.teachers.online import teacher_lprobs

CACHED = {
    "cached, top 8, bucket": {},
    "cached, top 8, renormalise": {"teacher_tail": "renormalise"},
    "cached, top 8, temperature 2": {"teacher_temperature": 2.0},
    "cached, top 8, reverse KL": {"divergence": "reverse-kl"},
    "cached, top 8, selective": {"criterion": "selective_distillation"},
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocab", type=int, default=30000)
    parser.add_argument("--width", type=int, default=256, help="of the student; FFN is 4 times it")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--teacher-width", type=int, default=512, help="of the teacher, 6 layers")
    parser.add_argument("--sentences", type=int, default=32)
    parser.add_argument("--length", type=int, default=25, help="pieces of a sentence")
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)

    dictionary = Dictionary()
    for number in range(args.vocab - len(dictionary)):
        dictionary.add_symbol(f"piece{number}")
    task = SimpleNamespace(
        source_dictionary=dictionary, target_dictionary=dictionary, vocabulary=None,
        keep_state=lambda name, holder: None,
    )  # fmt: skip
    student = build_transformer(task, args.width, args.layers).to(args.device)
    batch = make_batch(args, dictionary)
    optimiser = torch.optim.Adam(student.parameters(), lr=1e-5)

    sides = {"plain": (build_criterion("label_smoothed_cross_entropy", task), batch)}
    task.teacher_cache = SimpleNamespace(temperature=1.0, top_k=args.top_k)
    distribution = torch.randn(args.sentences, args.length, args.vocab).log_softmax(-1)
    lprobs, indices = distribution.topk(args.top_k)
    cached = {"lprobs": lprobs.to(args.device), "indices": indices.to(args.device)}
    for name, settings in CACHED.items():
        settings = {"criterion": "word_distillation", **settings}
        task.teacher_cache.temperature = settings.get("teacher_temperature", 1.0)
        criterion = build_criterion(settings.pop("criterion"), task, **settings)
        sides[name] = (criterion, {**batch, "teacher": cached})
    teacher = build_transformer(task, args.teacher_width, 6).to(args.device)
    teacher.eval().requires_grad_(False)
    for name, top_k in (("online, all words", 0), (f"online, top {args.top_k}", args.top_k)):
        criterion = build_criterion("word_distillation", task, teacher_top_k=top_k)
        criterion.online_teacher = SimpleNamespace(
            lprobs=lambda net_input, model: teacher_lprobs([teacher], net_input)
        )
        sides[name] = (criterion, batch)

    seconds, memory = {name: [] for name in sides}, {}
    for number in range(args.rounds + 1):
        for name, (criterion, sample) in sides.items():
            taken, peak = step(student, optimiser, criterion.train(), sample, args.device)
            if number:  # the first round warms up
                seconds[name].append(taken)
                memory[name] = peak
    plain = statistics.median(seconds["plain"])
    print(f"{args.sentences * args.length} target pieces, {args.vocab:,} words, {args}")
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(taken, seconds["plain"], strict=True)]
        line = f"{name:30} {1000 * statistics.median(taken):8.1f} ms "
        line += f"{statistics.median(taken) / plain:6.3f} x plain "
        line += f"(rounds {min(ratios):.2f} to {max(ratios):.2f})"
        print(line + (f" {memory[name] / 2**20:8.0f} MiB" if memory[name] else ""))


def build_transformer(task, width, layers):
    cfg = TransformerConfig()
    cfg.share_all_embeddings = True
    for side in (cfg.encoder, cfg.decoder):
        side.embed_dim, side.ffn_embed_dim = width, 4 * width
        side.layers, side.attention_heads = layers, 8
    cfg.decoder.input_dim = cfg.decoder.output_dim = width
    cfg.max_source_positions = cfg.max_target_positions = 1024
    return TransformerModelBase.build_model(cfg, task)


def build_criterion(name, task, **settings):
    defaults = CRITERION_DATACLASS_REGISTRY[name](label_smoothing=0.1, sentence_avg=False)
    for key, value in settings.items():
        setattr(defaults, key, value)
    return CRITERION_REGISTRY[name].build_criterion(defaults, task)


def make_batch(args, dictionary):
    shape = (args.sentences, args.length)
    pieces = torch.randint(dictionary.nspecial, len(dictionary), (2, *shape), device=args.device)
    return {
        "net_input": {
            "src_tokens": pieces[0],
            "src_lengths": torch.full(shape[:1], args.length, device=args.device),
            "prev_output_tokens": pieces[1].roll(1, dims=1),
        },
        "target": pieces[1],
        "ntokens": pieces[1].numel(),
    }


def step(student, optimiser, criterion, sample, device):
    """Seconds of a step, and its peak memory in bytes (on a GPU)."""
    student.train()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    optimiser.zero_grad()
    loss, size, _ = criterion(student, sample)
    (loss / size).backward()
    optimiser.step()
    peak = 0
    if device == "cuda":
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    return time.perf_counter() - started, peak


if __name__ == "__main__":
    main()
