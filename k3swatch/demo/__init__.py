"""The incident of the README for real: a K3s-like host in private network namespaces (`lab`), what takes its port
(`kubernetes`), the services that tell about it (`services`), and the story that plays it all (`story`).

The tests use the same lab. Nothing here touches the machine's own network, rules or services.
"""
