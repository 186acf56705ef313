"""The data path that RingServe replaces, rebuilt small: llm-serving's server process and agent process.

Kept, since they are what a token costs there: nine segments of `multiprocessing.shared_memory`; block tables and slot
mapping built from Python lists for every token; a text command over TCP; the server blocked in `recv(1)`, its event
loop with it; the agent that attaches to every segment anew, copies and pads the token ids to the full length,
takes the argmax, and gathers each token's logit in a loop.

Left out, to its advantage: debug logging (about 7 ms of a token there), sampling other than greedy, and everything
that only a real model needs. Detokenizing and the HTTP library are the same as RingServe's. The device is the same
emulated one.
"""
