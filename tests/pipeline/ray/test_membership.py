from pipeline.ray.membership import SILENT_S, Membership, View, next_nodes


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
