import pytest

from data_prep.training_log import read_entries, summarise

TRAIN = (
    '2026-11-21 06:30:00 | INFO | train_inner | {"epoch": 1, "update": 0.5, "loss": "4.25", '
    '"wps": "3600.5", "num_updates": "1200"}\n'
)
VALID = (
    '2026-11-21 06:30:00 | INFO | valid | {"epoch": 1, "valid_loss": "5.5", "valid_bleu": "21.23", '
    '"valid_bleu_greedy": "20.1", "valid_chrf": "40", "valid_num_updates": "300", '
    '"valid_best_bleu_greedy": "20.1"}\n'
)


@pytest.mark.parametrize(
    "line, summary",
    [
        (TRAIN, "update 1,200: loss 4.25, 3,600 target tokens/s"),
        (
            TRAIN.replace('"wps"', '"teacher_kl": "1.234", "teacher_agreement": "61.4", "wps"'),
            "update 1,200: loss 4.25, teacher KL 1.23 bits, agreement 61 %, 3,600 target tokens/s",
        ),
        (VALID, "update 300, dev: loss 5.50, BLEU 21.2, BLEU greedy 20.1, chrF 40.0"),
        (
            VALID.replace("| valid |", "| valid_medical |").replace("valid_", "valid_medical_")
            .replace("valid_medical_medical", "valid_medical")
            .replace('"valid_medical_chrf"', '"valid_medical_general_bleu_greedy"'),
            "update 300, dev medical: loss 5.50, BLEU 21.2, BLEU greedy 20.1, "
            "general BLEU greedy 40.0",
        ),
        ("... num. shared model params: 6,554,880 (num. trained: 1)\n", "6,554,880 parameters"),
        ("| INFO | fairseq.trainer | begin training epoch 1\n", None),
        ("", None),
    ],
)
def test_the_screen_shows_what_people_watch(line, summary):
    assert summarise(line) == summary


def test_entries_are_numbers():
    (kind, entry), (other, _) = read_entries([VALID, "noise", TRAIN])
    assert (kind, other) == ("valid", "train_inner")
    assert entry["valid_bleu"] == 21.23
