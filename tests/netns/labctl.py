"""`lab` in the case files: what kubelet and kube-proxy would do to the host. Run inside the lab's host namespace.

lab portmap ADD|DEL PORT [HOSTIP]    the real CNI plugin, for the pod 10.42.0.244
lab kube-proxy                       kube-proxy's chains for the cluster's own Services
lab kube-ext-on | kube-ext-off       the Service's LoadBalancer status names 192.168.1.233, or no longer
lab flush-cni-dn                     the half fix
lab reader NUMBER accept|drop        a program on this NFQUEUE, until the ruleset changes again
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from k3swatch.demo import kubernetes
from k3swatch.demo.netns import Namespace

host, pod = Namespace(os.environ["LAB_HOST"]), Namespace(os.environ["LAB_POD"])
match sys.argv[1:]:
    case ["portmap", command, port, *rest]:
        kubernetes.portmap(host, command, pod, int(port), *rest)
    case ["kube-proxy"]:
        kubernetes.kube_proxy(host)
    case ["kube-ext-on"]:
        kubernetes.kube_ext_on(host)
    case ["kube-ext-off"]:
        kubernetes.kube_ext_off(host)
    case ["flush-cni-dn"]:
        kubernetes.flush_cni_dn(host)
    case ["reader", number, verdict]:
        reader = Path(__file__).resolve().parents[1] / "support" / "queuereader.py"
        host.run(sys.executable, str(reader), number, verdict)
    case _:
        sys.exit(__doc__)
