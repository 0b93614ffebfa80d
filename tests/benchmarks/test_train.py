import torch

from benchmarks.train import made_up_sequences, pad_lists, tasks
from training.examples import Collator


def test_both_ways_train_on_the_same_examples():
    last, windows = tasks(users=20)
    assert len(last.plain) == len(last.examples)
    indices = [0, 7, 31, len(last.plain) - 1]
    plain, ours = pad_lists([last.plain[index] for index in indices]), Collator()(last.examples.__getitems__(indices))
    assert plain.keys() == ours.keys()
    assert all(torch.equal(plain[name], ours[name]) for name in plain)
    assert len(windows.plain) == len(windows.examples) == sum(-(-len(rows) // 21) for rows in made_up_sequences(20))
