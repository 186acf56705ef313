"""The training of the demo model in small: its text, its documents, and a network of a few thousand weights.

What is shipped is tested in tests/model/test_demo.py.
"""

from __future__ import annotations

import random
import re

import pytest

from scripts.lab.paths import ROOT

DATA = ROOT / "scripts" / "train" / "data"


@pytest.fixture
def text():
    from scripts.train.corpus import read_corpus

    return read_corpus(DATA)


def questions_of(text):
    return [question for pair in text.pairs for question in pair.questions]


def test_there_are_enough_answers_and_several_wordings(text):
    assert len(text.pairs) >= 250
    assert sum(len(pair.questions) >= 3 for pair in text.pairs) > 0.95 * len(text.pairs)
    assert all(pair.answer.endswith((".", "!", "?")) for pair in text.pairs)
    assert text.fallback.startswith("I do not know that.")


def test_what_is_unknown_is_not_taught_elsewhere(text):
    subjects = set((DATA / "unknown_subjects.txt").read_text(encoding="utf-8").split())
    others = [pair for pair in text.pairs if pair.answer != text.fallback]
    taught = {f"What is {article}{subject}?" for subject in subjects for article in ("", "a ", "an ")}
    assert not taught & {question for pair in others for question in pair.questions}


@pytest.mark.parametrize("block", ["? Only a question", "Only an answer."])
def test_an_incomplete_block_is_named(block, tmp_path):
    from scripts.train.corpus import read_pairs

    (tmp_path / "bad.txt").write_text(f"? Q\nA.\n\n{block}\n")
    with pytest.raises(ValueError, match=re.escape(f"bad.txt: the block that begins with '{block}'")):
        read_pairs(tmp_path)


def test_a_question_with_two_answers_is_named(tmp_path):
    from scripts.train.corpus import read_pairs

    (tmp_path / "bad.txt").write_text("? What?\nA.\n\n? what?\nB.\n")
    with pytest.raises(ValueError, match=r"'what\?' has two answers"):
        read_pairs(tmp_path)


def test_an_epoch_is_determined_by_its_seed_and_asks_every_question(text):
    first, again, other = (text.epoch(random.Random(seed)) for seed in (1, 1, 2))
    assert first == again != other
    learned = {span.text for document in first for span in document if span.learned}
    for pair in text.pairs:
        assert {f"{pair.answer}</s>", f" {pair.answer}</s>"} & learned


def test_variations_keep_the_subject():
    from scripts.train.noise import vary

    rng = random.Random(1)
    varied = {vary("What is a ring buffer?", rng) for _ in range(300)}
    assert {"What is a ring buffer?", "what is a ring buffer", "Explain ring buffers."} <= varied
    assert all("ring buffer" in question for question in varied)


def test_documents_have_the_form_of_the_prompts(text):
    """Training and the shipped chat template must agree to the byte."""
    from model.demo import DEMO_DIR
    from model.tokenizer import load_tokenizer
    from scripts.train.corpus import chat_document

    document = chat_document("Who?", "Me.", system="Be brief.")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    prompt = "".join(span.text for span in document if not span.learned)
    assert prompt == load_tokenizer(DEMO_DIR).apply_chat_template(messages)


class TestNetwork:
    """Needs torch, which only the extra `train` installs."""

    @pytest.fixture(autouse=True)
    def torch(self):
        torch = pytest.importorskip("torch")
        torch.set_num_threads(1)  # these matrices are too small to share
        return torch

    @pytest.fixture
    def tokenizer(self, text):
        from scripts.train.bpe import train_tokenizer

        return train_tokenizer(text.texts(), 300)

    def make_trainer(self, tokenizer, folder, epochs=4):
        """Learns two short answers."""
        import torch

        from scripts.train.corpus import bare_document
        from scripts.train.llama import Llama, LlamaShape
        from scripts.train.loop import Trainer, TrainingPlan

        torch.manual_seed(1)
        model = Llama(LlamaShape(300, 32, 64, 1, 2, 1, 16, 64))
        documents = [bare_document("Who?", "Me."), bare_document("Where?", "Here.")]
        plan = TrainingPlan(seed=1, epochs=epochs)
        return Trainer(model, tokenizer, lambda _: documents, plan), documents

    def test_ids_span_by_span_are_those_of_the_whole(self, text, tokenizer):
        from scripts.train.batches import tokenize

        for document in text.epoch(random.Random(3))[:200]:
            whole = "".join(span.text for span in document)
            assert tokenize(document, tokenizer).ids == tokenizer.encode(whole, add_special_tokens=False).ids

    def test_a_resumed_run_equals_an_unbroken_one(self, tokenizer, tmp_path):
        checkpoint = tmp_path / "checkpoint.pt"
        unbroken, _ = self.make_trainer(tokenizer, tmp_path)
        assert len(list(unbroken.run(tmp_path / "other.pt"))) == 4
        broken, _ = self.make_trainer(tokenizer, tmp_path)
        lines = broken.run(checkpoint)
        next(lines), next(lines)
        resumed, _ = self.make_trainer(tokenizer, tmp_path)
        resumed.resume(checkpoint)
        assert len(list(resumed.run(checkpoint))) == 2
        for one, other in zip(unbroken.model.parameters(), resumed.model.parameters(), strict=True):
            assert one.equal(other)

    def test_the_verdict_is_that_of_greedy_decoding(self, torch, tokenizer, tmp_path):
        from scripts.train.batches import tokenize
        from scripts.train.evaluation import judge

        for epochs in (1, 200):
            trainer, documents = self.make_trainer(tokenizer, tmp_path, epochs)
            list(trainer.run(tmp_path / "checkpoint.pt"))
            verdicts = judge(trainer.model, tokenizer, documents)
            for document, verdict in zip(documents, verdicts, strict=True):
                example = tokenize(document, tokenizer)
                prompt = example.ids[: example.learned.index(True)]
                ids = list(prompt)
                while len(ids) < len(example.ids):
                    ids.append(int(trainer.model.logits(trainer.model(torch.tensor([ids])))[0, -1].argmax()))
                assert verdict.exact == (ids == example.ids) == (verdict.margin > 0) == (epochs == 200)
