"""Host overhead per step: what a client waits between two tokens, less what the device alone needs for a step.

`device` says what is emulated and times it alone; `servers` starts RingServe, or `replaced`, the data path that it
replaces; `client` reads the streams and takes the time of every token; `measure` runs all of it in rounds that
alternate, `sections` what else is measured; `figures` and `report` say what came of it. The device is emulated: only
the time of the hosts' work is real.
"""
