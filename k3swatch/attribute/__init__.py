"""Who: the pod, owner and Service that receive a diverted connection, and the process that committed the rule.

In: findings. Out: culprits, with how sure and from which sources. Read from the node's own files while the API is
down; every source is optional, bounded, and checked against another.

clues     what the rules on the way say of themselves; no file is read
root      files below a root directory: bounded, and no symlink leads out of it
cni       the CNI result cache and the host-local leases: whose address, whose chain
oci       containerd's task state: the sandbox, and where a klipper-lb container sends connections on
pods      /var/log/pods, the network namespaces, the names that ServiceLB gives
kine      K3s's SQLite datastore, read-only: owner, Service, and whether that still exists (wire: its protobuf)
cri       the container runtime's own word, over its socket: whether the sandbox lives, the pod's labels (grpc)
published docker's and podman's containers
gone      what a rule has outlived
receiver  puts all of it together (case: what it has so far)
process   who committed
"""
