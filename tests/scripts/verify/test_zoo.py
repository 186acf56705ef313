"""The zoo of folders: which there are, and that it sees what a server answers wrongly. That one of them is served:
tests/server/test_demo_server.py; all of them: `make zoo`."""

from __future__ import annotations

import argparse
import json

import pytest

from model.tokenizer import load_tokenizer
from scripts.tools.family_checkpoints import load
from scripts.tools.family_weights import ANSWER, PROMPT
from scripts.verify import zoo
from scripts.verify.folders import answers
from scripts.verify.folders.alphabets import pairs_encoded, ranks, sentence_piece, signs, vocabulary
from scripts.verify.folders.answers import Judge, Outcome
from scripts.verify.folders.ways import WAYS

CHECKPOINTS = load()
FAMILIES = {it.config["model_type"] for it in CHECKPOINTS.values()}


def test_every_family_has_a_folder_and_every_folder_another_name():
    every = zoo.ways(tuple(CHECKPOINTS))
    assert {CHECKPOINTS[way.family].config["model_type"] for way in every} == FAMILIES
    assert {way.family for way in every} == set(CHECKPOINTS)
    assert len({way.name for way in every}) == len(every) > 34


@pytest.mark.parametrize("way", WAYS, ids=[way.name for way in WAYS])
def test_folders_are_written(way, tmp_path):
    folder = way.write(CHECKPOINTS[way.family], tmp_path)
    assert folder.is_dir()
    assert [place.name for place in tmp_path.iterdir()] in ([folder.name], [folder.parent.parent.name])


@pytest.mark.parametrize("alphabet", [signs(), sentence_piece(), ranks(), vocabulary()], ids=range(4))
def test_alphabets_are_what_their_files_say(alphabet, tmp_path):
    alphabet.write(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    ids = [it for it in range(len(alphabet.tokens)) if it not in alphabet.hidden]
    assert tokenizer.decode(ids) == alphabet.text(ids)
    text, expected = alphabet.text([9, 200, 40]), [9, 200, 40]
    if b"ab" in alphabet.tokens:
        text, expected = "abcdef GHIJ klm, 12345", pairs_encoded("abcdef GHIJ klm, 12345")
    assert tokenizer.encode(text) == expected


def served(answer, monkeypatch):
    """What the judge says of a server that answers so: a function of the prompt and the number of tokens."""
    it, alphabet, outcome = CHECKPOINTS["llama-mha"], signs(), Outcome("", "")
    whole = it.tokens.tolist()

    def json_of(url, body=None):
        if body is None:
            return {"data": [{"id": "x"}]}
        prompt = body["prompt"]
        length = PROMPT if isinstance(prompt, str) else len(prompt)
        ids, logprobs = whole[length:], it.logprobs[length - PROMPT :].tolist()
        top = [{} for _ in ids]
        for at, position in ((2, PROMPT - 1), (3, PROMPT + ANSWER - 2)):
            logits = it.logits[at]
            best = logits.argsort()[::-1][:5]
            norm = float(answers.np.logaddexp.reduce(logits.astype(float)))
            if position - length + 1 >= 0:
                top[position - length + 1] = {alphabet.name(one): float(logits[one]) - norm for one in best}
        reply = {
            "text": alphabet.text(ids),
            "tokens": list(map(alphabet.name, ids)),
            "logprobs": logprobs,
            "top": top,
        }
        reply = answer(reply)
        columns = {"tokens": reply["tokens"], "token_logprobs": reply["logprobs"], "top_logprobs": reply["top"]}
        return json.loads(json.dumps({"choices": [{"text": reply["text"], "logprobs": columns}]}))

    monkeypatch.setattr(answers, "_json", json_of)
    Judge("", it, alphabet, outcome).run()
    return outcome


def test_a_right_answer(monkeypatch):
    outcome = served(lambda reply: reply, monkeypatch)
    assert (outcome.tokens, outcome.wrong) == (ANSWER, [])
    assert outcome.difference < 1e-5


@pytest.mark.parametrize(
    ("answer", "wrong", "tokens"),
    [
        (lambda reply: {**reply, "tokens": [*reply["tokens"][:-1], "x"]}, "other tokens", ANSWER - 1),
        (lambda reply: {**reply, "text": reply["text"][1:]}, "another text", ANSWER),
        (lambda reply: {**reply, "logprobs": [it - 0.01 for it in reply["logprobs"]]}, "is off by 1.0e-02", ANSWER),
        (lambda reply: {**reply, "top": [dict.fromkeys("vwxyz", -1.0)] * len(reply["top"])}, "candidates", ANSWER),
    ],
)
def test_a_wrong_answer(answer, wrong, tokens, monkeypatch):
    outcome = served(answer, monkeypatch)
    assert any(wrong in it for it in outcome.wrong)
    assert outcome.tokens == tokens
    assert zoo.failed(outcome, None)


def test_only_a_named_engine_may_refuse():
    refused = Outcome("x", "y", refused="RingServe can't start: the engine knows no such family")
    assert zoo.failed(refused, None)
    assert not zoo.failed(refused, "mindformers")
    assert zoo.failed(Outcome("x", "y", refused="KeyError: 'x'"), "mindformers")
    assert list(zoo.lines([refused])) == [("x", "y", "refused", None, None, None)]


def test_names_are_chosen_by_a_part_of_them():
    assert {way.name for way in zoo.chosen(argparse.Namespace(only="gemma2, Unicode"))} == {
        "gemma2",
        "a name with blanks and Unicode",
    }
    with pytest.raises(SystemExit, match="no folder has 'gpt' in its name"):
        zoo.chosen(argparse.Namespace(only="gpt"))
