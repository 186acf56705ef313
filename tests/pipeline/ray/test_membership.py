from pipeline.ray.membership import SILENT_S, Membership, View, is_stale, next_nodes


def test_nodes_that_have_said_so_of_late_are_here():
    members = Membership()
    members.announce("a:1", "1", 0.0)
    members.announce("b:1", "1", 5.0)
    members.announce("c:1", "2", 5.0)
    assert members.view("1", 5.0).here == ("a:1", "b:1")
    assert members.view("2", 5.0).here == ("c:1",)
    assert members.view("1", SILENT_S).here == ("b:1",)


def test_one_that_has_left_is_known_to_have_for_a_while():
    members = Membership()
    members.announce("a:1", "1", 0.0)
    members.leave("a:1", 1.0)
    assert members.view("1", 2.0) == View((), frozenset({"a:1"}))
    assert members.view("1", 1000.0) == View((), frozenset())
    members.announce("a:1", "1", 1000.0)  # its address is used again
    assert members.view("1", 1000.0) == View(("a:1",), frozenset())


def test_a_router_takes_what_is_here_and_keeps_what_it_is_linked_to():
    linked = {"gone:1": False, "silent:1": True, "left:1": True, "here:1": False}
    view = View(("new:1", "here:1"), frozenset({"left:1"}))
    assert next_nodes(linked, view, 9) == ["silent:1", "here:1", "new:1"]
    assert next_nodes(linked, view, 2) == ["silent:1", "here:1"]


def test_a_directory_that_has_just_begun_takes_no_node_away():
    assert next_nodes({"a:1": True, "b:1": True}, Membership().view("1", 0.0), 4) == ["a:1", "b:1"]


def test_what_one_that_leaves_has_said_before_may_come_later():
    members = Membership()
    members.announce("a:1", "1", 0.0)
    members.leave("a:1", 1.0)
    members.announce("a:1", "1", 3.0)
    assert members.view("1", 3.0) == View((), frozenset({"a:1"}))
    members.announce("a:1", "1", 6.0)
    assert members.view("1", 6.0) == View(("a:1",), frozenset())


def test_a_router_without_its_nodes_begins_anew_when_there_are_others():
    before = View(("a:1", "b:1"), frozenset())
    assert not is_stale(["a:1", "b:1"], before, 100.0, 15.0), "there are no others"
    assert not is_stale(["a:1"], View((), frozenset()), 100.0, 15.0), "nor here"
    assert not is_stale(["a:1"], before, 10.0, 15.0)
    assert is_stale(["a:1"], before, 16.0, 15.0)
    assert is_stale(["a:1"], View(("b:1",), frozenset()), 0.0, 15.0), "its own are gone"
