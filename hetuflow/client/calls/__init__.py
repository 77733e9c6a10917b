"""Every call of the HTTP API, one module for each kind of resource.

A function here makes no call: it describes one, to be given to ``Client.send`` or, where
it returns pages, to ``Client.pages``.
"""
