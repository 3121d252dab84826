"""The laws of criterion selective_distillation, on batches of a tiny transformer."""

from types import SimpleNamespace

import pytest
import torch

from fairseq_plugins.criterions.selective_distillation import ScoreQueue
from tests.fixtures.models import toy_model
from tests.fixtures.training import assemble, toy_data


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A prepared folder and a teacher for its vocabulary."""
    root = tmp_path_factory.mktemp("made")
    data, vocabulary = toy_data(root)
    return SimpleNamespace(data=data, teacher=toy_model(root / "teacher", vocabulary, seed=5))


def selective(made, *words, criterion="selective_distillation", **settings):
    return assemble(made.data, criterion, "--teacher", made.teacher, *words, **settings)


LEVELS = pytest.mark.parametrize("level", ["batch", "queue"])
SCORES = pytest.mark.parametrize("by", ["student-loss", "teacher-confidence"])


@LEVELS
@SCORES
@pytest.mark.parametrize("k", [0, 5])
def test_share_1_equals_word_distillation_bit_for_bit(made, level, by, k):
    words = ("--teacher-top-k", k, "--token-weighting", "teacher-entropy")
    all_of_them = selective(
        made, "--selection-share", 1, "--selection-level", level, "--selection-by", by, *words
    )
    word = selective(made, *words, criterion="word_distillation")
    assert torch.equal(all_of_them.loss()[0], word.loss()[0])
    for found, expected in zip(all_of_them.gradients(), word.gradients(), strict=True):
        assert torch.equal(found, expected)


@LEVELS
def test_share_0_equals_the_parent_bit_for_bit_and_runs_no_teacher(made, level):
    none = selective(made, "--selection-share", 0, "--selection-level", level)
    none.criterion.online_teacher.lprobs = None  # would raise if it were called
    plain = assemble(made.data, "label_smoothed_cross_entropy")
    assert torch.equal(none.loss()[0], plain.loss()[0])
    for found, expected in zip(none.gradients(), plain.gradients(), strict=True):
        assert torch.equal(found, expected)


def per_token(built):
    return built.criterion(built.model, built.batch, reduce=False)[0].flatten()


@LEVELS
def test_selected_tokens_have_word_distillations_loss_and_the_others_the_plain_one(made, level):
    found = per_token(selective(made, "--selection-level", level))
    word = per_token(selective(made, criterion="word_distillation"))
    plain = per_token(selective(made, "--teacher-weight", 1e-12, criterion="word_distillation"))
    nll = per_token(
        selective(made, "--teacher-weight", 1e-12, "--label-smoothing", 0,
                  criterion="word_distillation")
    )  # fmt: skip
    real = assemble(made.data, "label_smoothed_cross_entropy").batch["target"].flatten() != 1
    n = int(real.sum())
    hardest = nll.masked_fill(~real, -1).topk((n + 1) // 2).indices
    expected = plain.clone()
    expected[hardest] = word[hardest]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "option",
    [("--selection-share", 0.2), ("--selection-by", "teacher-confidence"),
     ("--teacher-weight", 0.9)],
)  # fmt: skip
@LEVELS
def test_each_option_changes_the_loss(made, option, level):
    level = ("--selection-level", level)
    assert not torch.equal(selective(made, *level, *option).loss()[0],
                           selective(made, *level).loss()[0])  # fmt: skip


def test_selection_by_teacher_confidence_takes_where_it_is_surest(made):
    built = selective(
        made, "--selection-by", "teacher-confidence", "--selection-level", "batch",
        "--selection-share", 0.25,
    )  # fmt: skip
    top = built.criterion.online_teacher.lprobs(built.batch["net_input"], built.model).amax(-1)
    real = built.batch["target"].ne(1)
    tokens = built.criterion._compare(
        built.model, built.model(**built.batch["net_input"]), built.batch
    )
    chosen = built.criterion.distilled(tokens).view_as(real)
    assert chosen.sum() == -(-real.sum() // 4)
    assert top[chosen].min() >= top[real & ~chosen].max()


def test_the_share_that_is_selected_is_logged(made):
    _, _, logged = selective(made, "--selection-level", "batch", "--selection-share", 0.25).loss()
    assert logged["selected"] == -(-logged["teacher_tokens"] // 4)


# -- the queue ---------------------------------------------------------------------------


def scores_of(built):
    tokens = built.criterion._compare(
        built.model, built.model(**built.batch["net_input"]), built.batch
    )
    return tokens.nll.detach()[tokens.real]


def test_the_queue_holds_the_scores_of_the_last_real_tokens(made):
    built = selective(made, "--selection-queue", 100)
    scores = scores_of(built)
    assert 50 < len(scores) < 100
    built.loss()
    torch.testing.assert_close(built.criterion.queue.scores("cpu"), scores)
    built.loss()
    torch.testing.assert_close(
        built.criterion.queue.scores("cpu"), torch.cat([scores, scores])[-100:]
    )


def test_a_queue_of_another_size_selects_others(made):
    small, large = (selective(made, "--selection-queue", size) for size in (5, 30000))
    assert small.loss()[2]["selected"] != large.loss()[2]["selected"]


def test_the_past_decides_which_tokens_are_hard(made):
    built = selective(made)
    built.criterion.queue.push(torch.full((1000,), 100.0))  # everything was harder before
    assert built.loss()[2]["selected"] == 0
    easy = selective(made)
    easy.criterion.queue.push(torch.zeros(1000))
    logged = easy.loss()[2]
    assert logged["selected"] == logged["teacher_tokens"]


def test_validation_compares_with_the_queue_and_leaves_it_as_it_is(made):
    built = selective(made)
    built.criterion.eval()
    _, _, logged = built.task.valid_step(built.batch, built.model, built.criterion)
    assert 0 < logged["selected"] < logged["teacher_tokens"]  # by the batch alone
    assert len(built.criterion.queue.scores("cpu")) == 0
    built.criterion.queue.push(torch.zeros(1000))
    _, _, logged = built.task.valid_step(built.batch, built.model, built.criterion)
    assert logged["selected"] == logged["teacher_tokens"]
    assert len(built.criterion.queue.scores("cpu")) == 1000


def test_the_queue_travels_through_the_tasks_state(made):
    built = selective(made)
    built.loss()
    saved = built.task.state_dict()["kept"]
    resumed = selective(made)
    resumed.task._resumed = saved
    resumed.task.keep_state("selection_queue", resumed.criterion.queue)
    assert torch.equal(resumed.criterion.queue.scores("cpu"), built.criterion.queue.scores("cpu"))


def test_scores_that_overflowed_stay_out_of_the_queue():
    queue = ScoreQueue(10)
    queue.push(torch.tensor([1.0, float("nan"), float("inf"), 2.0]))
    assert queue.scores("cpu").tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "words, message",
    [
        (("--selection-by", "length"), "--selection-by is one of student-loss, teacher-confidence"),
        (("--selection-level", "epoch"), "--selection-level is one of batch, queue, not epoch"),
        (("--selection-share", 1.1), "--selection-share is a share from 0 to 1, not 1.1"),
        (("--selection-share", "nan"), "--selection-share is a share from 0 to 1"),
        (("--selection-queue", 0), "--selection-queue is 1 token or more, not 0"),
    ],
)
def test_bad_values_are_refused(made, words, message):
    with pytest.raises(ValueError, match=message):
        selective(made, *words)
