"""How two servers' answers are compared."""

from scripts.verify.same_text import Answer, find_difference, judge, make_requests

TOP = {"a": -1.0, "b": -1.00005, "c": -3.0}


def answer(*tokens, **top):
    return Answer(list(tokens), [TOP | top] * len(tokens))


def request(temperature=0.0):
    return {"temperature": temperature}


def test_a_near_tie_is_one_with_temperature_0_only_if_the_two_are_close():
    near = find_difference(0.0, answer("a", "a"), answer("a", "b"))
    assert (near.position, near.tokens) == (1, ("a", "b"))
    assert 4e-5 < near.apart < 6e-5
    assert find_difference(0.0, answer("a"), answer("c")).apart == 2.0
    assert find_difference(0.7, answer("a"), answer("c")).apart == 0.0  # a draw may fall between any two
    assert 9e-3 < find_difference(0.7, answer("a"), answer("c", a=-1.01)).apart < 1.1e-2
    assert find_difference(0.7, answer("a"), answer("x")).apart > 90


def test_answers_are_judged(capsys):
    same = [answer(*"abc")] * 3
    assert judge([request()] * 3, same, same) == 0
    assert judge([request()] * 3, same, [answer(*"abc"), answer(*"bbc"), answer(*"abc")]) == 0  # one near tie
    assert "token 0: ('a', 'b')" in capsys.readouterr().out
    assert judge([request()] * 3, same, [answer(*"bbc"), answer(*"bbc"), answer(*"abc")]) == 1  # two are too many
    assert judge([request()] * 3, same, [answer(*"cbc"), *same[1:]]) == 1
    assert judge([request()] * 3, same, [answer(*"ab"), *same[1:]]) == 1


def test_each_text_is_asked_for_at_each_temperature():
    asked = make_requests(3, 50)
    assert [(one["temperature"], one["seed"]) for one in asked[:4]] == [(0.0, 0), (0.7, 0), (1.2, 0), (0.0, 1)]
