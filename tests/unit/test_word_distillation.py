"""The laws of criterion word_distillation, on one batch of a tiny transformer."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from fairseq.logging import metrics

from fairseq_plugins.criterions.word_distillation import WordDistillationCriterion
from tests.fixtures.models import toy_checkpoint, toy_model, toy_vocabulary
from tests.fixtures.training import assemble, toy_data

PLAIN, WORD = "label_smoothed_cross_entropy", "word_distillation"
CACHE = SimpleNamespace(temperature=1.0, top_k=5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A prepared folder, and two teachers for its vocabulary."""
    root = tmp_path_factory.mktemp("made")
    data, vocabulary = toy_data(root)
    return SimpleNamespace(
        data=data, root=root, vocabulary=vocabulary,
        teacher=toy_model(root / "teacher", vocabulary, seed=5),
        other=toy_model(root / "other", vocabulary, seed=6),
    )  # fmt: skip


def word(made, *words, **settings):
    return assemble(made.data, WORD, "--teacher", made.teacher, *words, **settings)


def with_cache(built, cache=CACHE, *, weight=0.5, temperature=1.0, top_k=0, precision="same"):
    """A criterion that reads the teacher of ``built`` from the batch, and such a batch."""
    built.task.teacher_cache = cache
    criterion = WordDistillationCriterion(
        built.task, False, 0.1, None, weight, "forward-kl", temperature, top_k, "bucket",
        precision, "none",
    )  # fmt: skip
    lprobs = built.criterion.online_teacher.lprobs(built.batch["net_input"], built.model)
    lprobs, indices = lprobs.topk(cache.top_k)
    batch = {**built.batch, "teacher": {"indices": indices, "lprobs": lprobs}}
    return built._replace(criterion=criterion.train(), batch=batch)


def reduced(criterion, *logging_outputs):
    with metrics.aggregate(new_root=True) as found:
        type(criterion).reduce_metrics(list(logging_outputs))
    return found.get_smoothed_values()


# -- the loss ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, fairseq", [((), ()), ((), ("--sentence-avg",)), (("--ignore-prefix-size", 1), ())]
)
def test_weight_0_equals_the_parent_bit_for_bit_and_runs_no_teacher(made, words, fairseq):
    plain = assemble(made.data, PLAIN, *words, fairseq=fairseq)
    distilled = word(made, "--teacher-weight", 0, *words, fairseq=fairseq)
    distilled.criterion.online_teacher.lprobs = None  # would raise if it were called
    (loss, size, logged), (expected, *rest) = distilled.loss(), plain.loss()
    assert torch.equal(loss, expected) and [size, logged] == rest
    for found, parent in zip(distilled.gradients(), plain.gradients(), strict=True):
        assert torch.equal(found, parent)


def test_weight_0_shows_the_teacher_in_validation_and_keeps_the_parents_loss(made):
    plain = assemble(made.data, PLAIN)
    distilled = word(made, "--teacher-weight", 0)
    found = distilled.task.valid_step(distilled.batch, distilled.model, distilled.criterion)
    expected = plain.task.valid_step(plain.batch, plain.model, plain.criterion)
    assert torch.equal(found[0], expected[0])
    assert found[2]["teacher_kl"] > 0


def test_the_loss_is_the_weighted_sum_of_its_terms(made):
    weight = 0.3
    plain, _, _ = assemble(made.data, PLAIN).loss()
    teacher, _, logged = word(made, "--teacher-weight", 1).loss()
    mixed, _, _ = word(made, "--teacher-weight", weight).loss()
    torch.testing.assert_close(mixed, (1 - weight) * plain + weight * teacher)
    torch.testing.assert_close(teacher, logged["teacher_kl"])  # forward KL, temperature 1


def test_temperature_counts_with_its_square(made):
    built = word(made, "--teacher-weight", 1, "--teacher-temperature", 3)
    loss, _, logged = built.loss()
    torch.testing.assert_close(loss, 9 * logged["teacher_kl"])


OPTIONS = [
    ("--teacher-weight", 0.4), ("--divergence", "reverse-kl"), ("--divergence", "jensen-shannon"),
    ("--teacher-temperature", 2), ("--teacher-top-k", 5), ("--teacher-precision", "bf16"),
    ("--teacher-precision", "fp16"), ("--token-weighting", "teacher-confidence"),
    ("--token-weighting", "teacher-entropy"), ("--label-smoothing", 0.2),
    ("--ignore-prefix-size", 1), ("--label-smoothing", 0),
]  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_changes_the_loss(made, option):
    assert not torch.equal(word(made, *option).loss()[0], word(made).loss()[0])


def test_the_tail_changes_the_loss_and_so_does_another_teacher(made):
    bucket = word(made, "--teacher-top-k", 5).loss()[0]
    renormalised = word(made, "--teacher-top-k", 5, "--teacher-tail", "renormalise").loss()[0]
    ensemble = word(made, "--teacher", f"{made.teacher}:{made.other}").loss()[0]
    assert bucket != renormalised and ensemble != word(made).loss()[0]


def test_an_ensemble_averages_probabilities(made):
    built = word(made, "--teacher", f"{made.teacher}:{made.other}", "--teacher-temperature", 2)
    singly = [
        word(made, "--teacher", path, "--teacher-temperature", 2)
        for path in (made.teacher, made.other)
    ]
    found, *members = (
        one.criterion.online_teacher.lprobs(one.batch["net_input"], one.model).exp()
        for one in (built, *singly)
    )
    torch.testing.assert_close(found, (members[0] + members[1]) / 2)


def test_a_checkpoint_is_a_teacher_like_its_model_folder(made):
    path = toy_checkpoint(made.root / "teacher.pt", made.vocabulary, seed=5)
    assert torch.equal(word(made, "--teacher", path).loss()[0], word(made).loss()[0])


@pytest.mark.parametrize("k", [0, 5])
def test_padding_adds_nothing(made, k):
    built = word(made, "--teacher-top-k", k, "--token-weighting", "teacher-entropy")
    loss, _, logged = built.loss()
    padded = copy.deepcopy(built.batch)
    for holder, key in ((padded, "target"), (padded["net_input"], "prev_output_tokens")):
        holder[key] = torch.nn.functional.pad(holder[key], (0, 4), value=1)
    more, _, more_logged = built.loss(padded)
    torch.testing.assert_close(more, loss)
    for key in ("teacher_kl", "teacher_agreement", "teacher_tokens"):
        torch.testing.assert_close(more_logged[key], logged[key])


@pytest.mark.parametrize("k", [0, 5])
def test_order_within_a_batch_is_irrelevant(made, k):
    built = word(made, "--teacher-top-k", k, "--token-weighting", "teacher-confidence")
    turned = copy.deepcopy(built.batch)
    for holder in (turned, turned["net_input"]):
        for key in holder.keys() & {"target", "src_tokens", "src_lengths", "prev_output_tokens"}:
            holder[key] = holder[key].flip(0)
    torch.testing.assert_close(built.loss(turned)[0], built.loss()[0])


LEFT = ("--left-pad-target",)
COMBINATIONS = [
    (("--report-accuracy",), ()), (("--ignore-prefix-size", 2), ()), ((), ("--sentence-avg",)),
    ((), LEFT), (("--ignore-prefix-size", 1, "--report-accuracy"), LEFT),
]  # fmt: skip


@pytest.mark.parametrize("words, fairseq", COMBINATIONS)
@pytest.mark.parametrize("k", [0, 5])
def test_with_fairseqs_own_options_the_reference_term_is_the_parents(made, words, fairseq, k):
    """A weight next to 0 gives the parent's loss, and what the parent logs stays the same."""
    plain = assemble(made.data, PLAIN, *words, fairseq=fairseq)
    built = word(
        made, "--teacher-weight", 1e-9, "--teacher-top-k", k, *words, fairseq=fairseq
    )  # fmt: skip
    (loss, size, logged), (expected, plain_size, plain_logged) = built.loss(), plain.loss()
    torch.testing.assert_close(loss, expected)
    assert size == plain_size
    for key, value in plain_logged.items():
        torch.testing.assert_close(torch.as_tensor(logged[key]), torch.as_tensor(value))
    for found, parent in zip(built.gradients(), plain.gradients(), strict=True):
        torch.testing.assert_close(found, parent)


@pytest.mark.parametrize("words, fairseq", COMBINATIONS)
def test_with_fairseqs_own_options_the_teacher_stays_beside_its_tokens(made, words, fairseq):
    """A student that is its own teacher has no divergence from it, whatever is cut or shifted."""
    built = word(made, "--teacher-weight", 1, *words, fairseq=fairseq)
    built.criterion.online_teacher._networks = [copy.deepcopy(built.model).requires_grad_(False)]
    loss, _, logged = built.loss()
    assert loss.abs() < 1e-3 and max(g.abs().max() for g in built.gradients()) < 1e-3
    assert logged["teacher_agreement"] == logged["teacher_tokens"]
    cut = 2 if "2" in map(str, words) else 1 if "--ignore-prefix-size" in words else 0
    assert logged["teacher_tokens"] == built.batch["target"][:, cut:].ne(1).sum()


def test_unreduced_losses_are_those_of_the_tokens(made):
    built = word(made)
    each, _, logged = built.criterion(built.model, built.batch, reduce=False)
    assert each.shape == (built.batch["target"].numel(), 1)
    torch.testing.assert_close(each.sum(), built.loss()[0])


def test_accuracy_is_reported_beside_the_teacher(made):
    built = word(made, "--report-accuracy")
    likeliest = built.model(**built.batch["net_input"])[0].argmax(-1)
    real = built.batch["target"].ne(1)
    built.batch["target"][:3] = torch.where(real, likeliest, 1)[:3]
    logged = built.loss()[2]
    assert logged["n_correct"] >= real[:3].sum() > 0 and logged["total"] == real.sum()


# -- the teacher -------------------------------------------------------------------------


def test_the_teacher_is_frozen_in_evaluation_mode_and_no_part_of_the_criterion(made):
    built = word(made)
    before = [p.clone() for p in built.criterion.online_teacher._networks[0].parameters()]
    built.loss()
    (network,) = built.criterion.online_teacher._networks
    assert not network.training
    for parameter, old in zip(network.parameters(), before, strict=True):
        assert not parameter.requires_grad and parameter.grad is None
        assert torch.equal(parameter, old)
    assert not list(built.criterion.parameters()) and not built.criterion.state_dict()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_teacher_can_be_copied_and_sent_to_another_process(made, copied):
    built = word(made)
    teacher = copied(built.criterion.online_teacher)
    args = built.batch["net_input"], built.model
    assert torch.equal(teacher.lprobs(*args), built.criterion.online_teacher.lprobs(*args))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_teacher_follows_the_students_precision(made, dtype):
    built = word(made)
    expected, _, _ = built.loss()
    built.model.to(dtype), built.criterion.to(dtype)
    loss, _, _ = built.loss()
    assert loss.dtype == torch.float32
    assert next(built.criterion.online_teacher._networks[0].parameters()).dtype == dtype
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0.0)
    assert all(gradient.isfinite().all() for gradient in built.gradients())


def test_a_teacher_of_its_own_precision_keeps_it_under_autocast(made):
    net_input = word(made).batch["net_input"]
    full = word(made, "--teacher-precision", "fp32")
    same = word(made)
    with torch.autocast("cpu", torch.bfloat16):
        kept = full.criterion.online_teacher.lprobs(net_input, full.model)
        cast = same.criterion.online_teacher.lprobs(net_input, same.model)
    plain = full.criterion.online_teacher.lprobs(net_input, full.model)
    assert torch.equal(kept, plain) and not torch.equal(cast, plain)


def test_another_vocabulary_is_refused_with_two_cures(made, tmp_path):
    vocabulary = toy_vocabulary(tmp_path / "vocabulary", seed=9).folder
    foreign = toy_model(tmp_path / "foreign", vocabulary)
    with pytest.raises(ValueError, match="another vocabulary.*binarise.*dad-generate"):
        word(made, "--teacher", foreign)


def test_a_checkpoint_of_unknown_vocabulary_is_refused_unless_allowed(made, tmp_path):
    path = toy_checkpoint(tmp_path / "stock.pt", made.vocabulary, task_state={})
    with pytest.raises(ValueError, match="--allow-unknown-vocabulary"):
        word(made, "--teacher", path)
    word(made, "--teacher", path, fairseq=("--allow-unknown-vocabulary",)).loss()


def test_a_teacher_of_shorter_sentences_is_refused(made, tmp_path):
    path = toy_checkpoint(
        tmp_path / "short.pt", made.vocabulary, flags=("--max-target-positions", "100")
    )
    with pytest.raises(ValueError, match="takes 100 target pieces.*--max-target-positions 100"):
        word(made, "--teacher", path)


def test_a_missing_teacher_is_refused(made):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        word(made, "--teacher", made.root / "nowhere")


@pytest.mark.parametrize(
    "words, message",
    [
        (("--teacher-weight", 1.5), "--teacher-weight is a share from 0 to 1, not 1.5"),
        (("--teacher-weight", -0.1), "--teacher-weight is a share"),
        (("--teacher-weight", "nan"), "--teacher-weight is a share"),
        (("--teacher-temperature", 0), "--teacher-temperature is more than 0"),
        (("--teacher-temperature", "inf"), "--teacher-temperature is more than 0"),
        (("--teacher-temperature", "nan"), "--teacher-temperature is more than 0"),
        (("--teacher-top-k", -1), "--teacher-top-k is from 0"),
        (("--teacher-top-k", 100000), "--teacher-top-k is from 0"),
        (("--divergence", "kl"), "--divergence is one of forward-kl, reverse-kl, jensen-shannon"),
        (("--teacher-tail", "cut"), "--teacher-tail is one of bucket, renormalise, not cut"),
        (("--teacher-precision", "int8"), "--teacher-precision is one of same, fp32"),
        (("--token-weighting", "all"), "--token-weighting is one of none, teacher-confidence"),
    ],
)
def test_bad_values_are_refused(made, words, message):
    with pytest.raises(ValueError, match=message):
        word(made, *words)


def test_no_teacher_is_refused(made):
    with pytest.raises(ValueError, match="--teacher MODEL.*--teacher-cache FOLDER"):
        assemble(made.data, WORD)


# -- the teacher's cache -----------------------------------------------------------------


def test_a_cached_teacher_gives_the_loss_of_the_same_top_k_online(made):
    online = word(made, "--teacher-top-k", 5)
    cached = with_cache(online)
    torch.testing.assert_close(cached.loss()[0], online.loss()[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(cached.loss()[2], online.loss()[2])


def test_fewer_words_than_the_cache_has_are_the_first_ones(made):
    online = word(made, "--teacher-top-k", 3)
    torch.testing.assert_close(with_cache(online, top_k=3).loss()[0], online.loss()[0])


def test_a_batch_without_a_teacher_is_an_error_in_training_and_plain_in_validation(made, caplog):
    built = with_cache(word(made))
    bare = {key: value for key, value in built.batch.items() if key != "teacher"}
    with pytest.raises(ValueError, match="dad-cache-teacher"):
        built.loss(bare)
    caplog.set_level("INFO")
    for _ in range(2):
        _, _, logged = built.task.valid_step(bare, built.model, built.criterion)
    assert "teacher_kl" not in logged
    assert sum("validation" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"temperature": 2.0}, "made at 1; pass --teacher-temperature 1"),
        ({"top_k": 6}, "holds 5 words per token; lower it"),
        ({"precision": "fp16"}, "--teacher-precision fp16 is for --teacher"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused(made, settings, message):
    with pytest.raises(ValueError, match=message):
        with_cache(word(made), **settings)


def test_a_teacher_and_a_cache_are_one_too_many(made):
    built = word(made)
    built.task.teacher_cache = CACHE
    with pytest.raises(ValueError, match="--teacher and --teacher-cache are two"):
        WordDistillationCriterion(
            built.task, False, 0.1, str(made.teacher), 0.5, "forward-kl", 1.0, 0, "bucket", "same",
            "none",
        )  # fmt: skip


def test_a_task_that_knows_no_vocabulary_is_refused(made):
    with pytest.raises(ValueError, match="needs --task sequence_distillation"):
        assemble(made.data, WORD, "--teacher", made.teacher, task="translation")


# -- what is logged ----------------------------------------------------------------------


def test_logged_numbers_are_per_token_averages_in_fairseqs_units(made):
    built = word(made)
    _, _, logged = built.loss()
    found = reduced(built.criterion, logged)
    tokens = built.batch["target"].ne(1).sum().item()
    assert logged["teacher_tokens"] == tokens
    bits = logged["teacher_kl"].item() / tokens / torch.tensor(2.0).log().item()
    assert found["teacher_kl"] == pytest.approx(bits, abs=1e-3)
    assert found["teacher_agreement"] == pytest.approx(
        100 * logged["teacher_agreement"].item() / tokens, abs=1e-3
    )
    assert found["ppl"] == pytest.approx(2 ** found["nll_loss"], rel=0.01)


def test_averages_are_the_same_summed_over_workers_or_not(made):
    one, two = word(made, size=4), word(made, size=9)
    outputs = [one.loss()[2], two.loss()[2]]
    summed = {key: sum(output[key] for output in outputs) for key in outputs[0]}
    assert WordDistillationCriterion.logging_outputs_can_be_summed()
    assert reduced(one.criterion, *outputs) == reduced(one.criterion, summed)


def test_agreement_counts_the_tokens_with_the_same_likeliest_word(made):
    built = word(made)
    _, _, logged = built.loss()
    student = built.model(**built.batch["net_input"])[0].argmax(-1)
    teacher = built.criterion.online_teacher.lprobs(built.batch["net_input"], built.model)
    expected = (student == teacher.argmax(-1)) & built.batch["target"].ne(1)
    assert logged["teacher_agreement"] == expected.sum() > 0


def test_forward_kl_is_logged_whatever_the_divergence(made):
    forward, reverse = word(made).loss()[2], word(made, "--divergence", "reverse-kl").loss()[2]
    torch.testing.assert_close(forward["teacher_kl"], reverse["teacher_kl"])


def test_the_same_quantities_are_logged_in_training_and_validation(made):
    built = word(made)
    _, _, valid = built.task.valid_step(built.batch, built.model, built.criterion)
    assert valid.keys() == built.loss()[2].keys()


def test_a_batch_of_nothing_but_padding_is_finite(made):
    """Workers that have run out of data are given such a loss times 0."""
    built = word(made, "--token-weighting", "teacher-confidence")
    built.batch["target"].fill_(1)
    loss, _, logged = built.loss()
    assert loss == 0 and logged["teacher_tokens"] == 0
    assert "teacher_kl" not in reduced(built.criterion, {**logged, "sample_size": 1, "ntokens": 1})
