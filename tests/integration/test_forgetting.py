"""Learning test: a model that is held while it adapts forgets less of the general domain.

General sentences are copied word by word; sentences of the domain, of other words, are
copied one word further (w10 becomes w11 ...). Adapting sees the domain alone, so whatever
it does to the shared weights is lost to the general domain.

Seen, seeds 1, 2, 3, nats per token: the general loss rises from 0.1 to 4.4, 2.8, 3.0 without
an anchor, to 1.2, 1.5, 1.2 with --anchor-weight, 2.2, 0.6, 0.6 with --anchor-l2, 2.6, 0.7,
1.6 with --ewc-weight; the domain's falls from 5.9 to between 1.2 and 2.1 with all of them.
"""

import copy

import pytest
import torch

from fairseq_plugins.checkpoints import load_checkpoint, vocabulary_of, weights_fingerprint
from fairseq_plugins.teachers.fisher import FisherSum, squared_gradients
from tests.fixtures.models import toy_checkpoint
from tests.fixtures.training import assemble, toy_data

WORDS = 10  # of each domain; pieces of the toy vocabulary stand for them
FIRST = {"general": 280, "domain": 280 + WORDS}
SIZE = (
    "--encoder-embed-dim", 32, "--decoder-embed-dim", 32,
    "--encoder-ffn-embed-dim", 32, "--decoder-ffn-embed-dim", 32,
    "--encoder-normalize-before", "--decoder-normalize-before",
)  # fmt: skip
UPDATES = {"general": 300, "domain": 60}
HELD = {
    "free": ("--anchor-weight", 0),
    "distribution": ("--anchor-weight", 0.5),
    "l2": ("--anchor-l2", 0.1),
    "ewc": ("--ewc-weight", 10),
}


def batch(domain, dictionary, seed, sentences=32, length=6):
    """Sentences of random words; targets as the domain wants them."""
    chance = torch.Generator().manual_seed(seed)
    words = torch.randint(WORDS, (sentences, length), generator=chance)
    shift = 0 if domain == "general" else 1
    ends = torch.full((sentences, 1), dictionary.eos())
    source = torch.cat([words + FIRST[domain], ends], dim=1)
    target = torch.cat([(words + shift) % WORDS + FIRST[domain], ends], dim=1)
    return {
        "net_input": {
            "src_tokens": source,
            "src_lengths": torch.full((sentences,), length + 1),
            "prev_output_tokens": target.roll(1, dims=1),
        },
        "target": target,
        "ntokens": target.numel(),
    }


def learn(network, criterion, domain, dictionary, seed, lr):
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    for update in range(UPDATES[domain]):
        optimizer.zero_grad()
        sample = batch(domain, dictionary, seed * 10_000 + update)
        loss, sample_size, _ = criterion(network, sample)
        (loss / sample_size).backward()
        optimizer.step()


@torch.no_grad()
def loss_on(network, domain, dictionary):
    """Nats per token on sentences that nobody trained on."""
    sample = batch(domain, dictionary, seed=-1)
    lprobs = network.get_normalized_probs(network(**sample["net_input"]), log_probs=True)
    return -lprobs.gather(-1, sample["target"].unsqueeze(-1)).mean().item()


def fisher_of(network, path, dictionary):
    total = FisherSum.zeros(network)
    for number in range(200):
        sample = batch("general", dictionary, seed=-2 - number, sentences=1)
        total.add(*squared_gradients(network, sample, "model", number))
    state = load_checkpoint(path)
    return {
        "fisher": total.per_token(),
        "model": weights_fingerprint(state["model"]),
        "vocabulary": vocabulary_of(state),
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_data(tmp_path_factory.mktemp("forgetting"), sentences=8)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_adapting_with_an_anchor_forgets_less(data, tmp_path, seed):
    prepared, vocabulary = data
    start = assemble(prepared, "label_smoothed_cross_entropy", fairseq=SIZE, seed=seed)
    dictionary = start.task.target_dictionary
    learn(start.model, start.criterion, "general", dictionary, seed, lr=3e-3)
    path = tmp_path / "general.pt"
    flags = [str(word) for word in SIZE]
    toy_checkpoint(path, vocabulary, flags=flags, model=start.model.state_dict())
    torch.save(fisher_of(start.model, path, dictionary), tmp_path / "fisher.pt")
    before, unadapted = (loss_on(start.model, name, dictionary) for name in FIRST)
    losses = {}
    for name, options in HELD.items():
        if name == "ewc":
            options += ("--fisher", tmp_path / "fisher.pt")
        held = assemble(prepared, "anchored_adaptation", "--anchor", path, *options, fairseq=SIZE)
        network = copy.deepcopy(start.model)
        learn(network, held.criterion, "domain", dictionary, seed, lr=3e-3)
        losses[name] = [loss_on(network, domain, dictionary) for domain in ("general", "domain")]
    free_general, free_domain = losses.pop("free")
    assert free_general - before > 1, "there is something to forget"
    for name, (general, domain) in losses.items():
        assert general - before < 0.75 * (free_general - before), name
        assert domain < 0.6 * unadapted and domain < free_domain + 0.6, name
