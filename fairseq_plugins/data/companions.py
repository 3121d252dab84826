"""What goes beside a sentence pair in a batch: its untouched text, a teacher's distribution ..."""

from fairseq.data import BaseWrapperDataset

from data_prep.files import read_lines


class CompanionDataset(BaseWrapperDataset):
    """Sentence pairs with something beside each of them.

    A pair carries it through mixtures, where its number changes, into the batch.

    Args:
        dataset: ``LanguagePairDataset`` or what wraps one.
        key: where it stands in a batch.
        companion: has ``len``, ``[index]``, and ``collate(items, batch)``, which makes what the
            batch gets of the items in the order of the batch. The same in all bitexts of a mixture.

    Raises:
        ValueError: the companion belongs to another number of pairs.
    """

    def __init__(self, dataset, key, companion):
        super().__init__(dataset)
        if len(companion) != len(dataset):
            raise ValueError(
                f"{companion.path} has {len(companion):,} lines, but its prepared folder has "
                f"{len(dataset):,} sentences; prepare the folder again"
            )
        self.key, self.companion = key, companion

    def __getitem__(self, index):
        return {**self.dataset[index], self.key: self.companion[index]}

    def collater(self, samples):
        batch = self.dataset.collater(samples)
        if batch:
            # fairseq's collater sorts by length, so what is beside goes by id
            items = {sample["id"]: sample[self.key] for sample in samples}
            in_order = [items[number] for number in batch["id"].tolist()]
            batch[self.key] = self.companion.collate(in_order, batch)
        return batch

    @property
    def num_tokens_vec(self):
        return self.dataset.num_tokens_vec


def with_companions(dataset, companions):
    """``dataset`` with each of ``companions`` ({key: companion}) beside its pairs."""
    for key, companion in companions.items():
        dataset = CompanionDataset(dataset, key, companion)
    return dataset


class References:
    """The untouched target text of a held-out split, for validation: strings."""

    def __init__(self, path):
        self.path = path
        self._lines = list(read_lines(path))

    def __len__(self):
        return len(self._lines)

    def __getitem__(self, index):
        return self._lines[index]

    @staticmethod
    def collate(items, batch):
        return items
