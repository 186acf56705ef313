"""Whether one client can hurt another: hostile requests of every kind, and what a bystander sees of them.

A bystander and an attacker, each a process of its own, talk HTTP to a server, and know nothing of its inside. Each
turn of an attack is followed by one in which the same attacker sends the same bytes at the same times to a sink.
"""
